"""`/docs`: the guide and the reference, as HTML for people and as Markdown for programs.

Every link is relative to the page, so that it is right behind a proxy that adds a path prefix.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect

from app.api.http.application import current_app
from app.api.http.cacheable import cacheable_response
from app.api.http.problems import ERRORS_PATH
from app.docs import assets

if TYPE_CHECKING:
    from apispec import APISpec
    from werkzeug.wrappers import Response as BaseResponse

    from app.docs.pages import Pages

# Scripts and styles come only from our own files; the page has none inline.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_blueprint(spec: APISpec) -> Blueprint:
    """Return the blueprint that shows the OpenAPI document to people."""
    docs = Blueprint("docs", __name__, template_folder="templates")

    @cache
    def pages() -> Pages:
        from app.docs.pages import Pages  # noqa: PLC0415  2 MiB, which few workers need

        return Pages(spec)

    @docs.get("/")
    def redirect_to_docs() -> BaseResponse:
        return redirect("docs", HTTPStatus.PERMANENT_REDIRECT)

    @docs.get("/docs/")
    def redirect_without_slash() -> BaseResponse:
        return redirect("../docs", HTTPStatus.PERMANENT_REDIRECT)

    @docs.get("/docs")
    def guide_and_reference() -> Response:
        token = current_app.development_token()
        if token is None:
            return _protected(cacheable_response(pages().public, "text/html"))
        # no cache may keep a page with a token
        return _protected(Response(pages().with_token(token)))

    @docs.get(ERRORS_PATH)
    def errors() -> Response:
        return _protected(cacheable_response(pages().errors, "text/html"))

    @docs.get("/docs.md")
    @docs.get("/llms.txt")
    def text() -> Response:
        return cacheable_response(pages().text, "text/markdown")

    @docs.get("/docs/static/<name>")
    def asset(name: str) -> Response:
        response = assets.asset_response(name)
        if response is None:
            raise NotFound
        return response

    return docs


def _protected(response: Response) -> Response:
    """Allow the page no more than it needs."""
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
