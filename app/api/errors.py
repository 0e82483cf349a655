"""Every error as a problem document (RFC 9457)."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask, Response, g, json
from werkzeug.exceptions import BadRequest, HTTPException, Unauthorized
from werkzeug.http import HTTP_STATUS_CODES

from app.credentials.errors import CredentialNotFound, HashingBusy
from app.database.errors import DatabaseUnavailable
from app.identity.key_sources import KeysUnavailable

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 1

UNAVAILABLE = "The service is unavailable for the moment"
UNAUTHENTICATED = "Check authentication credentials"

# The same for an unknown address, an unknown credential, and another unit's.
NOT_FOUND = "There is nothing at this address"

# What a domain error means to a caller: the status, and the detail.
DOMAIN_ERRORS: Mapping[type[Exception], tuple[int, str]] = {
    CredentialNotFound: (404, NOT_FOUND),
    HashingBusy: (503, UNAVAILABLE),
    DatabaseUnavailable: (503, UNAVAILABLE),
    KeysUnavailable: (503, UNAVAILABLE),
}

# What HTTP itself has to say, where werkzeug says it at more length.
_DETAILS = {
    404: NOT_FOUND,
    405: "The address does not take this method",
    500: "Something went wrong on our side; the X-Request-Id helps us to find out what",
}

_logger = logging.getLogger(__name__)


class InvalidInput(BadRequest):
    """A request body or parameter that the contract does not allow.

    `errors` says what is wrong with each member: pairs of a JSON pointer (RFC 6901) and a detail.
    """

    def __init__(self, detail: str, errors: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.errors = [{"pointer": pointer, "detail": detail} for pointer, detail in errors]


class Unauthenticated(Unauthorized):
    """No valid credentials; `challenge` is the value of WWW-Authenticate (RFC 9110, 11.6.1)."""

    def __init__(self, challenge: str) -> None:
        super().__init__(UNAUTHENTICATED)
        self.challenge = challenge

    def get_headers(self, *_: Any) -> list[tuple[str, str]]:
        return [("WWW-Authenticate", self.challenge)]


def init_app(app: Flask) -> None:
    """Answer every error as a problem document, whoever raised it."""
    app.register_error_handler(HTTPException, _answer_http_error)
    for error in DOMAIN_ERRORS:
        app.register_error_handler(error, _answer_domain_error)
    app.register_error_handler(Exception, _answer_unexpected_error)


def problem(status: int, detail: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """Return a problem document's members, in the contract's order."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES[status],
        "status": status,
        "detail": detail,
    }
    if errors:
        document["errors"] = errors
    return document


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    detail = _DETAILS.get(status) or error.description or HTTP_STATUS_CODES[status]
    response = _response(problem(status, detail, getattr(error, "errors", None)))
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers[name] = value
    return response


def _answer_domain_error(error: Exception) -> Response:
    status, detail = DOMAIN_ERRORS[type(error)]
    response = _response(problem(status, detail))
    if status == 503:  # noqa: PLR2004  the number is the name
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _answer_unexpected_error(error: Exception) -> Response:
    fields = {"request_id": g.request_id}
    _logger.error("unexpected error", exc_info=error, extra={"fields": fields})
    return _response(problem(500, _DETAILS[500]))


def _response(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document) + "\n", status=document["status"], mimetype=PROBLEM_JSON)
