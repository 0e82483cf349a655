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

from app.api.http.application import current_app, request
from app.api.http.cacheable import cacheable_response, compressed_response
from app.api.http.problems import ERRORS_PATH
from app.docs import assets
from app.docs.origin import origin_of, with_origin

if TYPE_CHECKING:
    from apispec import APISpec
    from werkzeug.wrappers import Response as BaseResponse

    from app.docs.pages import Pages
    from app.settings import Settings

# Scripts and styles come only from our own files; the page has none inline.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_blueprint(spec: APISpec, settings: Settings) -> Blueprint:
    """Return the blueprint that shows the OpenAPI document to people."""
    docs = Blueprint("docs", __name__, template_folder="templates")
    views = _Views(spec, settings)
    docs.get("/")(views.redirect_to_docs)
    docs.get("/docs/")(views.redirect_without_slash)
    docs.get("/docs")(views.guide_and_reference)
    docs.get(ERRORS_PATH)(views.errors)
    docs.get("/docs/changelog")(views.changelog)
    docs.get("/docs.md")(views.text)
    docs.get("/llms-full.txt")(views.text)
    docs.get("/llms.txt")(views.index)
    docs.get("/docs/<name>.md")(views.part)
    docs.get("/docs/search.json")(views.search_index)
    docs.get("/docs/static/<name>")(views.asset)
    return docs


class _Views:
    def __init__(self, spec: APISpec, settings: Settings) -> None:
        self._settings = settings

        @cache
        def pages() -> Pages:
            from app.docs.pages import Pages  # noqa: PLC0415  2 MiB, which few workers need

            return Pages(spec)

        self._pages = pages

    def redirect_to_docs(self) -> BaseResponse:
        return redirect("docs", HTTPStatus.PERMANENT_REDIRECT)

    def redirect_without_slash(self) -> BaseResponse:
        return redirect("../docs", HTTPStatus.PERMANENT_REDIRECT)

    def guide_and_reference(self) -> Response:
        token = current_app.development_token()
        if token is None:
            return self._html(self._pages().public)
        page = self._at_origin(self._pages().with_token(token))
        response = _protected(compressed_response(page, "text/html"))
        response.headers["Cache-Control"] = "no-store"  # it has a token
        return response

    def errors(self) -> Response:
        return self._html(self._pages().errors)

    def changelog(self) -> Response:
        return self._html(self._pages().changelog)

    def text(self) -> Response:
        return self._markdown(self._pages().text)

    def index(self) -> Response:
        return self._markdown(self._pages().index)

    def part(self, name: str) -> Response:
        content = self._pages().part(name)
        if content is None:
            raise NotFound
        return self._markdown(content)

    def search_index(self) -> Response:
        return cacheable_response(self._pages().search_index, "application/json")

    def asset(self, name: str) -> Response:
        response = assets.asset_response(name)
        if response is None:
            raise NotFound
        return response

    def _html(self, content: bytes) -> Response:
        return _protected(cacheable_response(self._at_origin(content), "text/html"))

    def _markdown(self, content: bytes) -> Response:
        return cacheable_response(self._at_origin(content), "text/markdown")

    def _at_origin(self, content: bytes) -> bytes:
        """Return the page with the address that readers use in its samples."""
        origin = self._settings.public_url or origin_of(
            request.headers.get("Host", ""),
            request.headers.get("X-Forwarded-Proto", ""),
            behind_proxies=self._settings.trusted_proxies > 0,
        )
        return with_origin(content, origin)


def _protected(response: Response) -> Response:
    """Allow the page no more than it needs."""
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
