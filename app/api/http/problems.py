"""The catalogue of problems: errors as the caller sees them (RFC 9457). It needs no Flask.

A type is what programs branch on, and what /docs/errors explains. Its slug is part of the contract:
it is never renamed, and never used for another type.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES

from app.bulkheads import BulkheadFull
from app.credentials import errors
from app.database.errors import DatabaseUnavailable, UnsuitableDatabase
from app.identifiers import is_identifier
from app.identity.key_sources import KeysUnavailable
from app.json_bytes import json_bytes
from app.times import format_time

MEDIA_TYPE = "application/problem+json"
JSON_MEDIA_TYPE = "application/json"
PATCH_MEDIA_TYPES = (JSON_MEDIA_TYPE, "application/merge-patch+json")  # RFC 7396
ERRORS_PATH = "/docs/errors"
RETRY_AFTER_SECONDS = 1
MAX_BODY_BYTES = 16 * 1024


_NEVER = "No. The same request gets the same response."
_AFTER = "Yes, after the seconds in `Retry-After`."
_LATER = "Yes, after a second, then at growing intervals."


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem. `retry` says whether the same request may succeed later, and when."""

    slug: str
    status: int
    cause: str
    remedy: str
    retry: str = _NEVER
    other_status: int | None = None

    @property
    def uri(self) -> str:
        """The `type` of the problem document: an identifier, the same in every installation.

        So it has neither the host nor a proxy's path prefix. It is a full path, because RFC 9457,
        3.1.1 advises against references that clients would have to resolve.
        """
        return f"{ERRORS_PATH}#{self.slug}"


@dataclass(frozen=True, slots=True)
class InputError:
    """What is wrong with one member of the request body. `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the caller sees it. Its status is the type's, unless given.

    `headers` are sent with it, besides the content type. `extensions` are further members of the
    document. `closes` tells that no other request can follow on the connection, because the end of
    this one's body is unknown or far away.
    """

    type: ProblemType
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    errors: tuple[InputError, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)  # RFC 9457, 3.2
    closes: bool = False

    def __post_init__(self) -> None:
        if not self.status:
            object.__setattr__(self, "status", self.type.status)

    @property
    def title(self) -> str:
        """The status phrase."""
        return HTTP_STATUS_CODES[self.status]

    @property
    def status_line(self) -> str:
        """The status with its phrase, as WSGI wants it."""
        return status_line(self.status)

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


def status_line(status: int) -> str:
    """Return a status with its phrase. Werkzeug would write the phrase in capitals."""
    return f"{status} {HTTP_STATUS_CODES[status]}"


class HTTPProblem(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def _problem(  # noqa: PLR0913  each is a part of the catalogue
    slug: str,
    status: int,
    detail: str,
    *,
    cause: str,
    remedy: str,
    retry: str = _NEVER,
    headers: Mapping[str, str] | None = None,
    closes: bool = False,
) -> Problem:
    """Return the only problem of its type."""
    type_ = ProblemType(slug, status, cause, remedy, retry)
    return Problem(type_, detail, headers or {}, closes=closes)


def _retry_after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


# The request

_MALFORMED_HTTP = ProblemType(
    "malformed-http",
    400,
    "The request is not valid HTTP/1.1: a malformed line or header, an ambiguous length, a line or "
    "header that is too long, or a transfer coding other than `chunked`.",
    "Check the client library, and any proxy in between.",
    other_status=501,
)
INVALID_HOST = Problem(_MALFORMED_HTTP, "The Host header is not valid")
NOT_CHUNKED = Problem(
    _MALFORMED_HTTP, "The Transfer-Encoding must be chunked", status=501, closes=True
)


def malformed_http(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the problem of malformed or unsupported HTTP."""
    return Problem(_MALFORMED_HTTP, detail, headers or {}, status)


HEADER_TOO_LONG = _problem(
    "header-too-long",
    431,
    "Accept-Encoding, Content-Type and If-None-Match must have at most 1,024 characters",
    cause="A header that is a list is so long that reading it would take longer than everything "
    "else. Several headers of one name count together.",
    remedy="Check the client library, and any proxy in between, for headers that grow.",
)
NO_HOST = _problem(
    "missing-host",
    400,
    "The Host header is missing",
    cause="The request has no Host header (RFC 9112, 3.2).",
    remedy="Send a Host header.",
)

_UNREADABLE_BODY = ProblemType(
    "unreadable-body",
    400,
    "The body ends before its Content-Length, or its chunks are malformed.",
    "Send the whole body. If you did, look for a proxy that cut it off, and send it again.",
    "Yes, if the connection broke.",
)
BODY_UNREADABLE = Problem(_UNREADABLE_BODY, "The request body cannot be read", closes=True)
BODY_TOO_SHORT = Problem(
    _UNREADABLE_BODY, "The request body is shorter than its Content-Length", closes=True
)

_MALFORMED_JSON = ProblemType(
    "malformed-json",
    400,
    "The body is not a JSON object in UTF-8, or contains a name twice.",
    "Send one JSON object (RFC 8259).",
)
BODY_NOT_JSON = Problem(_MALFORMED_JSON, "The request body is not valid JSON")
BODY_NOT_AN_OBJECT = Problem(_MALFORMED_JSON, "The request body is not a JSON object")

_INVALID_INPUT = ProblemType(
    "invalid-input",
    400,
    "A member of the body is missing, unknown, of the wrong type or out of range. `errors` names "
    "each by its JSON pointer.",
    "Correct the members in `errors`.",
)


def invalid_input(detail: str, errors: Iterable[InputError] = ()) -> Problem:
    """Return the problem of a request body that breaks the contract's rules."""
    return Problem(_INVALID_INPUT, detail, errors=tuple(errors))


def invalid_expiry(error: errors.InvalidExpiry) -> Problem:
    """Return the problem of an `expires_at` that is not allowed."""
    reason = str(error)
    detail = f"expires_at {reason[0].lower()}{reason[1:]}"
    return invalid_input(detail, [InputError("/expires_at", reason)])


def invalid_restriction(error: errors.InvalidRestriction) -> Problem:
    """Return the problem of `scopes` or `addresses` that are not allowed."""
    pointer, detail = f"/{error.member}", str(error)
    items = [InputError(f"{pointer}/{item}", what) for item, what in error.problems.items()]
    return invalid_input(detail, items or [InputError(pointer, detail)])


_INVALID_PARAMETER = ProblemType(
    "invalid-parameter",
    400,
    "A query parameter or a header has a value that is not allowed, or was given twice. A change "
    "has a query parameter that its operation does not have. Or a cursor belongs to another list.",
    "Correct the parameter that `detail` names. Start a list again without `cursor`.",
)


def invalid_parameter(detail: str) -> Problem:
    """Return the problem of a query parameter or header that breaks the contract's rules."""
    return Problem(_INVALID_PARAMETER, detail)


def unknown_parameter(name: str) -> Problem:
    """Return the problem of a query parameter that the operation does not have."""
    shown = name if is_identifier(name) else "A parameter in the query"
    return invalid_parameter(f"{shown} is not a parameter of this operation")


_BODY_TOO_LARGE = ProblemType(
    "body-too-large",
    413,
    "The body exceeds 16 KiB, or 64 KiB for a leak report.",
    "Send only the documented members.",
)


def body_too_large(max_bytes: int) -> Problem:
    """Return the problem of a body that exceeds so many bytes."""
    return Problem(_BODY_TOO_LARGE, f"The request body exceeds {max_bytes} bytes", closes=True)


BODY_TOO_LARGE = body_too_large(MAX_BODY_BYTES)

_UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "The body is not `application/json` in UTF-8, or has a Content-Encoding. A `PATCH` may also be "
    "`application/merge-patch+json`.",
    "Send `Content-Type: application/json` and no Content-Encoding.",
)
MEDIA_TYPE_NOT_JSON = Problem(_UNSUPPORTED_MEDIA_TYPE, "The request body must be application/json")
BODY_ENCODED = Problem(_UNSUPPORTED_MEDIA_TYPE, "The request body must not have a Content-Encoding")


def unsupported_patch(problem: Problem) -> Problem:
    """Return the problem with the media types that a PATCH may have (RFC 5789, 2.2)."""
    return replace(problem, headers={"Accept-Patch": ", ".join(PATCH_MEDIA_TYPES)})


NOT_FOUND = _problem(
    "not-found",
    404,
    "No such resource",
    cause="No operation has this address.",
    remedy="Check the path against the reference.",
)
METHOD_NOT_ALLOWED = _problem(
    "method-not-allowed",
    405,
    "This resource does not support that method",
    cause="The address exists, but does not support the method.",
    remedy="Use one of the methods in `Allow`.",
)

# Authentication and authorization


def _unauthenticated(type_: ProblemType, challenge: str) -> Problem:
    """Return a problem with the value of its WWW-Authenticate header (RFC 9110, 11.6.1)."""
    return Problem(type_, "Check authentication credentials", {"WWW-Authenticate": challenge})


_BEARER = 'Bearer realm="LeadVibe"'
_INVALID_TOKEN_CHALLENGE = f'{_BEARER}, error="invalid_token"'

_INVALID_TOKEN = ProblemType(
    "invalid-token",
    401,
    "There is no bearer token, or it was not accepted. The service says no more; its log has the "
    "reason under the same X-Request-Id.",
    "Send `Authorization: Bearer` with a token for this service. If it is refused, ask the "
    "operator.",
)
NO_TOKEN = _unauthenticated(_INVALID_TOKEN, _BEARER)
INVALID_TOKEN = _unauthenticated(_INVALID_TOKEN, _INVALID_TOKEN_CHALLENGE)

TOKEN_EXPIRED = _unauthenticated(
    ProblemType(
        "token-expired",
        401,
        "The token was valid, but has expired.",
        "Get a new token from your identity provider, and send the request again.",
        "Yes, with a new token.",
    ),
    f'{_INVALID_TOKEN_CHALLENGE}, error_description="The token has expired"',
)
NO_ACTIVE_UNIT = _problem(
    "no-active-unit",
    400,
    "Active OU must be set",
    cause="The token has no `unit_id`, and the cookie `activeOu` names no unit, or more than one.",
    remedy="Choose a unit: get a token with `unit_id`, or set the cookie to one of its `unit_ids`. "
    "The operator may have chosen other names for these claims.",
)
FOREIGN_UNIT = _problem(
    "foreign-unit",
    403,
    "You are not a member of the active OU",
    cause="The cookie `activeOu` names a unit that is not in the token.",
    remedy="Choose one of the token's units.",
)
ROLE_MISSING = _problem(
    "role-missing",
    403,
    "Your role does not allow changing credentials",
    cause="Your role may read credentials but not change them.",
    remedy="Ask somebody with a role that may change them.",
)

# Verification

INVALID_PAIR = _unauthenticated(
    ProblemType(
        "invalid-pair",
        401,
        "The client ID and client secret are unknown, wrong, revoked, disabled or expired. The "
        "response is the same for all of these.",
        "As a receiver: refuse the event. As a sender: check the pair, and ask its owner for a new "
        "client secret.",
    ),
    'Basic realm="LeadVibe", charset="UTF-8"',
)

_SCOPE_MISSING = ProblemType(
    "scope-missing",
    403,
    "The pair is valid, but its credential does not have the scope in the path. Or the path has "
    "none, and the credential is restricted to scopes.",
    "As a receiver: refuse the event, and ask for the scope that the event needs. As a sender: ask "
    "the credential's owner for the scope.",
)


def scope_missing(scope: str | None) -> Problem:
    """Return the problem of a credential without the scope, or with scopes if that is None."""
    if scope is None:
        return Problem(_SCOPE_MISSING, "Ask for a scope: /verify/{scope}")
    return Problem(_SCOPE_MISSING, f"The credential does not have the scope {scope}")


_TOO_MANY_FAILURES = ProblemType(
    "too-many-failures",
    429,
    "This client has failed too often in this minute. A valid pair is not limited.",
    "Correct the pair.",
    _AFTER,
)


def too_many_failures(retry_after: int) -> Problem:
    """Return the problem of a client that failed too often (RFC 6585, 4), for so many seconds."""
    detail = "Too many failed verifications"
    return Problem(_TOO_MANY_FAILURES, detail, _retry_after(retry_after))


# Credentials

CREDENTIAL_NOT_FOUND = _problem(
    "credential-not-found",
    404,
    "No such credential",
    cause="The active unit has no such credential. It may have been revoked, or belong to another "
    "unit.",
    remedy="Check the `secret_id` and the active unit.",
)
CLIENT_SECRET_NOT_FOUND = _problem(
    "client-secret-not-found",
    404,
    "No such live client secret",
    cause="The credential has no live client secret with this hint. It may have ended already.",
    remedy="Read the credential to see its live client secrets.",
)
CREDENTIAL_LIMIT = _problem(
    "credential-limit",
    409,
    "The unit has reached its limit of credentials",
    cause="The unit has as many credentials as it may have.",
    remedy="Revoke credentials that nobody uses (`unused_since` finds them), or ask the operator.",
)
SECRET_LIMIT = _problem(
    "live-secret-limit",
    409,
    "Two client secrets are already live; end one first, or rotate with overlap_seconds 0",
    cause="Two client secrets are live, so a rotation cannot let a third one overlap.",
    remedy="End one of them first, or rotate with `overlap_seconds` 0, which ends both.",
)
LAST_SECRET = _problem(
    "last-secret",
    409,
    "This is the last live client secret; rotate, disable or revoke the credential instead",
    cause="Ending the last live client secret would leave a credential that nobody can use.",
    remedy="Rotate, disable or revoke the credential instead.",
)
AMBIGUOUS_HINT = _problem(
    "ambiguous-hint",
    409,
    "Two live client secrets have this hint; rotate with overlap_seconds 0 instead",
    cause="Both live client secrets end in the same four characters.",
    remedy="Rotate with `overlap_seconds` 0 instead.",
)

_CREDENTIAL_IN_USE = ProblemType(
    "credential-in-use",
    409,
    "The credential or client secret was used within `unused_for`, and `last_used_at` says when. "
    "Or it was not, but a client secret was made within that time, so its sender may not have it "
    "yet.",
    "Find out who uses it, or end it without `unused_for`.",
    "Yes, once it has been unused for that long.",
)


def credential_in_use(last_used_at: datetime | None) -> Problem:
    """Return the problem of a credential or client secret that was used, or is too new, to end."""
    if last_used_at is None:
        return Problem(_CREDENTIAL_IN_USE, "The newest client secret was created within unused_for")
    return Problem(
        _CREDENTIAL_IN_USE,
        "The credential was used within unused_for",
        extensions={"last_used_at": format_time(last_used_at)},
    )


_TOO_MANY_ISSUES = ProblemType(
    "too-many-issues",
    429,
    "The unit has issued and rotated too many client secrets in this minute. Attempts that got 404 "
    "or 409 count too.",
    "Spread the calls over time.",
    _AFTER,
)


def too_many_issues(retry_after: int) -> Problem:
    """Return the problem of a unit that issued and rotated too often, for so many seconds."""
    detail = "The unit has issued and rotated too many client secrets"
    return Problem(_TOO_MANY_ISSUES, detail, _retry_after(retry_after))


_TOO_MANY_CHANGES = ProblemType(
    "too-many-changes",
    429,
    "The unit has updated credentials, or revoked them with `unused_for`, too often in this "
    "minute. Attempts that changed nothing count too. Disabling a credential, and revoking one "
    "without `unused_for`, are never limited.",
    "Spread the calls over time. Read a credential first, and update only what differs.",
    _AFTER,
)


def too_many_changes(retry_after: int) -> Problem:
    """Return the problem of a unit that made too many changes, for so many seconds."""
    detail = "The unit has made too many changes"
    return Problem(_TOO_MANY_CHANGES, detail, _retry_after(retry_after))


_TOO_MANY_REPORTS = ProblemType(
    "too-many-reports",
    429,
    "Too many leak reports came from this address in this minute.",
    "Put up to 100 client secrets into one report.",
    _AFTER,
)


def too_many_reports(retry_after: int) -> Problem:
    """Return the problem of a client that reported leaks too often, for so many seconds."""
    return Problem(_TOO_MANY_REPORTS, "Too many leak reports", _retry_after(retry_after))


_HISTORY_LOST = ProblemType(
    "history-lost",
    410,
    "Events up to `cursor` are no longer in the trail: the database was restored, or has lost its "
    "latest changes in a failover. You have read events that it does not have.",
    "Follow the `Link` of this response: it skips no event. If `cursor` is from a database that is "
    "gone, it leads to the start of the trail, and you get events twice. Keep the events that were "
    "lost: the operator may need them.",
)

HISTORY_LOST = Problem(
    _HISTORY_LOST, "Events up to the cursor were lost in a failover or a restore"
)


def history_lost(link: str) -> Problem:
    """Return the problem of a follower whose last events were lost, with the Link to go on."""
    return replace(HISTORY_LOST, headers={"Link": link})


REQUEST_IN_PROGRESS = _problem(
    "request-under-way",
    409,
    "A request with this Idempotency-Key is under way",
    cause="An earlier request with this Idempotency-Key has no response yet.",
    remedy="Send it again: you will get the response of the earlier one.",
    retry=_AFTER,
    headers=_retry_after(RETRY_AFTER_SECONDS),
)
RESPONSE_ERASED = _problem(
    "answer-erased",
    409,
    "This request was carried out before, and its response is no longer kept",
    cause="The same request was carried out before, with this Idempotency-Key. Its response is no "
    "longer kept, because its client secret has been used or has ended. This time, nothing has "
    "changed.",
    remedy="Use the client secret that you have. For another change, use a new key.",
)
IDEMPOTENCY_KEY_REUSED = _problem(
    "idempotency-key-reused",
    422,
    "This Idempotency-Key belongs to a different request",
    cause="The Idempotency-Key was used for a different request.",
    remedy="Use a new key for each request.",
)

# The service

UNAVAILABLE = _problem(
    "unavailable",
    503,
    "The service is temporarily unavailable",
    cause="The database or the issuer's keys cannot be reached, or the service is too busy. "
    "Nothing was decided: a pair may be valid, and a change may or may not have been made.",
    remedy="Send the request again; send a change with the same Idempotency-Key.",
    retry=_AFTER,
    headers=_retry_after(RETRY_AFTER_SECONDS),
)


def unavailable_for(seconds: int) -> Problem:
    """Return the problem of what may be available again after so many seconds."""
    return replace(UNAVAILABLE, headers=_retry_after(seconds))


LAST_USE_UNKNOWN = Problem(
    UNAVAILABLE.type,
    "Another process has not recorded its latest uses yet",
    _retry_after(RETRY_AFTER_SECONDS),
)
NOT_READY = _problem(
    "not-migrated",
    503,
    "The database is not migrated",
    cause="The database lacks a migration of this version.",
    remedy="As the operator: run `credentials migrate`.",
    retry=_AFTER,
    headers=_retry_after(RETRY_AFTER_SECONDS),
)

_UNSUITABLE_DATABASE = ProblemType(
    "unsuitable-database",
    503,
    "The database is not as the service needs it. `detail` says what is wrong.",
    "As the operator: see the requirements under *Postgres* in docs/operations.md.",
    _LATER,
)


def unsuitable_database(detail: str) -> Problem:
    """Return the problem of a database that the service cannot use."""
    return Problem(_UNSUITABLE_DATABASE, detail, _retry_after(RETRY_AFTER_SECONDS))


_UNEXPECTED = ProblemType(
    "unexpected",
    500,
    "The service itself failed. Its log has the reason under the same X-Request-Id.",
    "Report the failure, with the X-Request-Id.",
    _LATER,
)
UNEXPECTED = Problem(
    _UNEXPECTED, "An unexpected error occurred. Quote the X-Request-Id when you report it"
)
NOT_SERVED = Problem(_UNEXPECTED, "The request cannot be served")

# In the order of the page that explains them.
PROBLEM_TYPES = list(
    dict.fromkeys(
        each.type if isinstance(each, Problem) else each
        for each in list(globals().values())
        if isinstance(each, Problem | ProblemType)
    )
)

_DOMAIN_ERRORS: Mapping[type[Exception], Problem | Callable[[Any], Problem]] = {
    errors.InvalidExpiry: invalid_expiry,
    errors.InvalidRestriction: invalid_restriction,
    errors.ScopeMissing: lambda error: scope_missing(error.scope),
    errors.VerificationRefused: INVALID_PAIR,
    errors.TooManyFailures: lambda error: too_many_failures(error.retry_after),
    errors.TooManyIssues: lambda error: too_many_issues(error.retry_after),
    errors.TooManyChanges: lambda error: too_many_changes(error.retry_after),
    errors.TooManyReports: lambda error: too_many_reports(error.retry_after),
    errors.CredentialNotFound: CREDENTIAL_NOT_FOUND,
    errors.ClientSecretNotFound: CLIENT_SECRET_NOT_FOUND,
    errors.CredentialLimitReached: CREDENTIAL_LIMIT,
    errors.SecretLimitReached: SECRET_LIMIT,
    errors.LastSecret: LAST_SECRET,
    errors.AmbiguousHint: AMBIGUOUS_HINT,
    errors.CredentialInUse: lambda error: credential_in_use(error.last_used_at),
    errors.HistoryLost: HISTORY_LOST,
    errors.LastUseUnknown: LAST_USE_UNKNOWN,
    errors.RequestInProgress: REQUEST_IN_PROGRESS,
    errors.ResponseErased: RESPONSE_ERASED,
    errors.IdempotencyKeyReused: IDEMPOTENCY_KEY_REUSED,
    BulkheadFull: UNAVAILABLE,
    DatabaseUnavailable: UNAVAILABLE,
    UnsuitableDatabase: lambda error: unsuitable_database(str(error)),
    KeysUnavailable: lambda error: unavailable_for(error.retry_after),
}


def problem_of_domain_error(error: Exception) -> Problem | None:
    """Return the problem that tells the domain's error, to every door. None for any other error."""
    for kind, problem in _DOMAIN_ERRORS.items():
        if isinstance(error, kind):
            return problem if isinstance(problem, Problem) else problem(error)
    return None
