"""`/docs`: the guide and the reference for people, and the same as text for programs."""

from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from flask import Blueprint, Response, render_template
from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Response as BaseResponse

from app.api.docs import assets, markdown
from app.api.docs.pages import Pages
from app.api.docs.samples import LANGUAGES
from app.api.http.application import current_app
from app.api.http.cacheable import cacheable_response
from app.api.http.problem_types import PROBLEM_TYPES

# Scripts and styles are our files; the page itself contains none.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_blueprint(spec: APISpec) -> Blueprint:
    """Return the blueprint that shows the OpenAPI document to people."""
    docs = Blueprint("docs", __name__, template_folder="templates")
    pages = Pages(spec)

    # In production there is no token, so the page is rendered once.
    @lru_cache(maxsize=1)
    def page(token: str | None) -> bytes:
        return _render(
            "docs.html", pages=pages, languages=LANGUAGES, html=markdown.html_of, token=token
        )

    @cache
    def errors_page() -> bytes:
        return _render("errors.html", problem_types=PROBLEM_TYPES)

    @docs.get("/")
    @docs.get("/docs/")
    def lead_to_the_page() -> BaseResponse:
        return redirect("/docs", HTTPStatus.PERMANENT_REDIRECT)

    @docs.get("/docs")
    def guide_and_reference() -> Response:
        return _page(page(current_app.development_token()))

    @docs.get("/docs/errors")
    def errors() -> Response:
        return _page(errors_page())

    @docs.get("/docs.md")
    @docs.get("/llms.txt")
    def text() -> Response:
        return cacheable_response(pages.text, "text/markdown")

    @docs.get("/docs/static/<name>")
    def asset(name: str) -> Response:
        response = assets.asset_response(name)
        if response is None:
            raise NotFound
        return response

    return docs


def _render(template: str, **values: Any) -> bytes:
    return render_template(
        template, asset=assets.asset_name, inline=markdown.inline_html_of, **values
    ).encode()


def _page(content: bytes) -> Response:
    response = cacheable_response(content, "text/html")
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
