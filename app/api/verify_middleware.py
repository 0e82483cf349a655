"""WSGI middleware that serves `/verify` without Flask (ADR 8). `create_app` installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.api.http.access_log import AccessRecord
from app.api.http.application import address_of, request_id_of
from app.api.http.errors import problem_of
from app.api.http.headers import COMMON_HEADERS, is_host
from app.api.verify import ROUTE, VerifyResponse, verification_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from app.services import Services


class VerifyMiddleware:
    """Serves plain requests to `/verify`, and passes all others to Flask.

    A request is plain if it has a valid Host, no body, and a method that `/verify` supports.
    """

    def __init__(self, flask: WSGIApplication, services: Services) -> None:
        self._flask = flask
        self._services = services

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_plain(environ):
            return self._flask(environ, start_response)
        method: str = environ["REQUEST_METHOD"]
        record = AccessRecord(
            request_id=request_id_of(environ),
            method=method,
            address=address_of(environ),
            route=ROUTE,
        )
        try:
            response = verification_response(environ, self._services, record)
        except Exception as error:  # noqa: BLE001  every error has its problem document
            response = VerifyResponse.of(problem_of(error, request_id=record.request_id))
        record.finish(response.status, self._services.request_durations)
        start_response(
            response.status_line,
            [*response.headers, ("X-Request-Id", record.request_id), *COMMON_HEADERS],
        )
        return [] if method == "HEAD" else [response.body]


def _is_plain(environ: WSGIEnvironment) -> bool:
    return (
        environ["PATH_INFO"] == ROUTE
        and environ["REQUEST_METHOD"] in ("GET", "HEAD", "POST")
        and environ.get("CONTENT_LENGTH", "") in ("", "0")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and "HTTP_HOST" in environ
        and is_host(environ["HTTP_HOST"])
    )
