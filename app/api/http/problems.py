"""Errors as the caller sees them: problem documents (RFC 9457). This module needs no Flask."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES

from app.api.http import problem_types
from app.api.http.problem_types import ProblemType
from app.json_bytes import json_bytes
from app.times import format_time

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
MAX_BODY_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class InputError:
    """What is wrong with one member of the request body. `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the caller sees it.

    `headers` are sent with it, besides the content type. `extensions` are further members of the
    document. `closes` tells that no other request can follow on the connection, because the end of
    this one's body is unknown or far away.
    """

    type: ProblemType
    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[InputError, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)  # RFC 9457, 3.2
    closes: bool = False

    @property
    def title(self) -> str:
        """The status phrase."""
        return HTTP_STATUS_CODES[self.status]

    def document(self) -> dict[str, Any]:
        """Return the members of the problem document, in the contract's order."""
        document: dict[str, Any] = {
            "type": self.type.uri,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [asdict(each) for each in self.errors]
        return {**document, **self.extensions}

    def body(self) -> bytes:
        """Return the problem document as it is sent."""
        return json_bytes(self.document()) + b"\n"

    def header_items(self) -> list[tuple[str, str]]:
        """Return the content type and the headers that go with the problem."""
        connection = [("Connection", "close")] if self.closes else []  # RFC 9112, 9.6
        return [("Content-Type", MEDIA_TYPE), *self.headers.items(), *connection]


class HTTPProblem(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def unauthenticated(type_: ProblemType, challenge: str) -> Problem:
    """Return the problem of missing or invalid credentials.

    `challenge` is the value of WWW-Authenticate (RFC 9110, 11.6.1).
    """
    headers = {"WWW-Authenticate": challenge}
    return Problem(type_, 401, "Check authentication credentials", headers)


def too_many_failures(retry_after: int) -> Problem:
    """Return the problem of a client that failed too often (RFC 6585, 4).

    `retry_after` is in seconds.
    """
    headers = {"Retry-After": str(retry_after)}
    return Problem(problem_types.TOO_MANY_FAILURES, 429, "Too many failed verifications", headers)


def too_many_issues(retry_after: int) -> Problem:
    """Return the problem of a unit that issues and rotates too often.

    `retry_after` is in seconds.
    """
    detail = "The unit has issued and rotated too many client secrets"
    headers = {"Retry-After": str(retry_after)}
    return Problem(problem_types.TOO_MANY_ISSUES, 429, detail, headers)


def invalid_input(detail: str, errors: Iterable[InputError] = ()) -> Problem:
    """Return the problem of a request body that breaks the contract's rules."""
    return Problem(problem_types.INVALID_INPUT, 400, detail, errors=tuple(errors))


def invalid_parameter(detail: str) -> Problem:
    """Return the problem of a query parameter or header that breaks the contract's rules."""
    return Problem(problem_types.INVALID_PARAMETER, 400, detail)


def invalid_expiry(reason: str) -> Problem:
    """Return the problem of an `expires_at` that is not allowed. The reason begins with "Must"."""
    return invalid_input(
        f"expires_at {reason[0].lower()}{reason[1:]}", [InputError("/expires_at", reason)]
    )


def credential_in_use(last_used_at: datetime) -> Problem:
    """Return the problem of a credential that was used too recently to be revoked."""
    return Problem(
        problem_types.CREDENTIAL_IN_USE,
        409,
        "The credential was used within unused_for",
        extensions={"last_used_at": format_time(last_used_at)},
    )


def malformed_http(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the problem of malformed or unsupported HTTP."""
    return Problem(problem_types.MALFORMED_HTTP, status, detail, headers or {})


_AFTER_A_SECOND = {"Retry-After": str(RETRY_AFTER_SECONDS)}

NO_ACTIVE_UNIT = Problem(problem_types.NO_ACTIVE_UNIT, 400, "Active OU must be set")
NO_HOST = Problem(problem_types.MISSING_HOST, 400, "The Host header is missing")
INVALID_HOST = Problem(problem_types.MALFORMED_HTTP, 400, "The Host header is not valid")
BODY_UNREADABLE = Problem(
    problem_types.UNREADABLE_BODY, 400, "The request body cannot be read", closes=True
)
BODY_TOO_SHORT = Problem(
    problem_types.UNREADABLE_BODY,
    400,
    "The request body is shorter than its Content-Length",
    closes=True,
)
BODY_NOT_JSON = Problem(problem_types.MALFORMED_JSON, 400, "The request body is not valid JSON")
BODY_NOT_AN_OBJECT = Problem(
    problem_types.MALFORMED_JSON, 400, "The request body is not a JSON object"
)
ROLE_MISSING = Problem(
    problem_types.ROLE_MISSING, 403, "Your role does not allow changing credentials"
)
FOREIGN_UNIT = Problem(problem_types.FOREIGN_UNIT, 403, "You are not a member of the active OU")
NOT_FOUND = Problem(problem_types.NOT_FOUND, 404, "No such resource")
# The same whether the credential does not exist or belongs to another unit.
CREDENTIAL_NOT_FOUND = Problem(problem_types.CREDENTIAL_NOT_FOUND, 404, "No such credential")
CLIENT_SECRET_NOT_FOUND = Problem(
    problem_types.CLIENT_SECRET_NOT_FOUND, 404, "No such live client secret"
)
METHOD_NOT_ALLOWED = Problem(
    problem_types.METHOD_NOT_ALLOWED, 405, "This resource does not support that method"
)
SECRET_LIMIT = Problem(
    problem_types.LIVE_SECRET_LIMIT,
    409,
    "Two client secrets are already live; end one first, or rotate with overlap_seconds 0",
)
LAST_SECRET = Problem(
    problem_types.LAST_SECRET,
    409,
    "This is the last live client secret; rotate, disable or revoke the credential instead",
)
AMBIGUOUS_HINT = Problem(
    problem_types.AMBIGUOUS_HINT,
    409,
    "Two live client secrets have this hint; rotate with overlap_seconds 0 instead",
)
REQUEST_IN_PROGRESS = Problem(
    problem_types.REQUEST_IN_PROGRESS,
    409,
    "A request with this Idempotency-Key is under way",
    _AFTER_A_SECOND,
)
RESPONSE_ERASED = Problem(
    problem_types.RESPONSE_ERASED,
    409,
    "This request was carried out before, and its response is no longer kept",
)
IDEMPOTENCY_KEY_REUSED = Problem(
    problem_types.IDEMPOTENCY_KEY_REUSED,
    422,
    "This Idempotency-Key belongs to a different request",
)
CREDENTIAL_LIMIT = Problem(
    problem_types.CREDENTIAL_LIMIT, 409, "The unit has reached its limit of credentials"
)
BODY_TOO_LARGE = Problem(
    problem_types.BODY_TOO_LARGE,
    413,
    f"The request body exceeds {MAX_BODY_BYTES} bytes",
    closes=True,
)
MEDIA_TYPE_NOT_JSON = Problem(
    problem_types.UNSUPPORTED_MEDIA_TYPE, 415, "The request body must be application/json"
)
CHARSET_NOT_UTF_8 = Problem(
    problem_types.UNSUPPORTED_MEDIA_TYPE, 415, "The request body must be UTF-8"
)
BODY_ENCODED = Problem(
    problem_types.UNSUPPORTED_MEDIA_TYPE,
    415,
    "The request body must not have a Content-Encoding",
)
UNEXPECTED = Problem(
    problem_types.UNEXPECTED,
    500,
    "An unexpected error occurred. Quote the X-Request-Id when you report it",
)
NOT_CHUNKED = Problem(
    problem_types.MALFORMED_HTTP, 501, "The Transfer-Encoding must be chunked", closes=True
)
UNAVAILABLE = Problem(
    problem_types.UNAVAILABLE, 503, "The service is temporarily unavailable", _AFTER_A_SECOND
)
NOT_READY = Problem(
    problem_types.NOT_MIGRATED, 503, "The database is not migrated", _AFTER_A_SECOND
)

# The problems that have no variable parts.
CONSTANTS = [each for each in globals().values() if isinstance(each, Problem)]
