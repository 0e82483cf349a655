"""`/docs`: the guide and the reference, as HTML for people and as Markdown for programs."""

from functools import cache, partial
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from flask import Blueprint, Response, render_template
from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Response as BaseResponse

from app.api.http.application import current_app
from app.api.http.cacheable import cacheable_response
from app.api.http.problems import ERRORS_PATH, PROBLEM_TYPES
from app.docs import assets, markdown
from app.docs.content import Content, indented_json
from app.docs.samples import LANGUAGES

# Scripts and styles come only from our own files; the page has none inline.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_blueprint(spec: APISpec) -> Blueprint:
    """Return the blueprint that shows the OpenAPI document to people."""
    docs = Blueprint("docs", __name__, template_folder="templates")
    content = Content(spec)
    public_page = cache(partial(_page, content))
    errors_page = cache(_errors_page)

    @docs.get("/")
    @docs.get("/docs/")
    def redirect_to_docs() -> BaseResponse:
        return redirect("/docs", HTTPStatus.PERMANENT_REDIRECT)

    @docs.get("/docs")
    def guide_and_reference() -> Response:
        token = current_app.development_token()
        if token is None:
            return _protected(cacheable_response(public_page(), "text/html"))
        return _protected(Response(_page(content, token)))  # contains a token: no cache may keep it

    @docs.get(ERRORS_PATH)
    def errors() -> Response:
        return _protected(cacheable_response(errors_page(), "text/html"))

    @docs.get("/docs.md")
    @docs.get("/llms.txt")
    def text() -> Response:
        return cacheable_response(content.text, "text/markdown")

    @docs.get("/docs/static/<name>")
    def asset(name: str) -> Response:
        response = assets.asset_response(name)
        if response is None:
            raise NotFound
        return response

    return docs


def _page(content: Content, token: str | None = None) -> bytes:
    return _render(
        "docs.html",
        content=content,
        languages=LANGUAGES,
        html=markdown.html_of,
        indented_json=indented_json,
        token=token,
    )


def _errors_page() -> bytes:
    return _render("errors.html", problem_types=PROBLEM_TYPES)


def _render(template: str, **values: Any) -> bytes:
    return render_template(
        template, asset=assets.asset_name, inline=markdown.inline_html_of, **values
    ).encode()


def _protected(response: Response) -> Response:
    """Allow the page no more than it needs."""
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
