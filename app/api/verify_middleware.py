"""WSGI middleware that serves `/verify` without Flask. `create_app` installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.api.http.application import address_of, request_id_of
from app.api.http.headers import is_host
from app.api.http.problems import MAX_BODY_BYTES
from app.api.plain_verification import PlainVerification
from app.api.verify import plain_paths

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from app.services import Services


class VerifyMiddleware:
    """Serves plain requests to `/verify` (see `PlainVerification`), and passes others to Flask.

    A body is ignored, and not waited for: a proxy may pass on the event's Content-Length without
    its body. So the connection is closed after the response.
    """

    def __init__(self, flask: WSGIApplication, services: Services) -> None:
        self._flask = flask
        self._services = services
        self._paths = plain_paths(services.verifier.scopes)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path not in self._paths or not _is_plain(environ):
            return self._flask(environ, start_response)
        method: str = environ["REQUEST_METHOD"]
        verification = PlainVerification(
            self._services,
            method=method,
            scope=self._paths[path],
            authorization=environ.get("HTTP_AUTHORIZATION", ""),
            request_id=request_id_of(environ.get("HTTP_X_REQUEST_ID", "")),
            address=address_of(environ),
        )
        response = verification.response(self._services.verifier.verify)
        if _length(environ):
            response.headers.append(("Connection", "close"))
        start_response(response.status_line, response.headers)
        return [] if method == "HEAD" else [response.body]


def _is_plain(environ: WSGIEnvironment) -> bool:
    return (
        environ["REQUEST_METHOD"] in ("GET", "HEAD", "POST")
        and _length(environ) <= MAX_BODY_BYTES
        and "HTTP_TRANSFER_ENCODING" not in environ
        and "HTTP_HOST" in environ
        and is_host(environ["HTTP_HOST"])
    )


def _length(environ: WSGIEnvironment) -> int:
    return int(environ.get("CONTENT_LENGTH") or 0)
