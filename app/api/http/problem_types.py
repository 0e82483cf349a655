"""The kinds of problem: what programs branch on, and what /docs/errors says about each.

A slug is part of the contract. It is never renamed, and never used for another kind.
"""

from dataclasses import dataclass

ERRORS_PATH = "/docs/errors"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem. `retry` says whether the same request may succeed later, and when."""

    slug: str
    cause: str
    remedy: str
    retry: str = "No. The same request gets the same answer."

    @property
    def uri(self) -> str:
        """The `type` of the problem document (RFC 9457, 3.1.1), relative to the service."""
        return f"{ERRORS_PATH}#{self.slug}"


_AFTER = "Yes, after the seconds in `Retry-After`."
_LATER = "Yes, after a second, then at growing intervals."

# The request

MALFORMED_HTTP = ProblemType(
    "malformed-http",
    "The request is not valid HTTP/1.1: a malformed line or header, an ambiguous length, a line or "
    "header that is too long, or a transfer coding other than `chunked`.",
    "Check the client library, and any proxy in between.",
)
MISSING_HOST = ProblemType(
    "missing-host", "The request has no Host header (RFC 9112, 3.2).", "Send a Host header."
)
UNREADABLE_BODY = ProblemType(
    "unreadable-body",
    "The body ends before its Content-Length, or its chunks are malformed.",
    "Send the whole body. If you did, look for a proxy that cut it off, and send it again.",
    "Yes, if the connection broke.",
)
MALFORMED_JSON = ProblemType(
    "malformed-json",
    "The body is not a JSON object in UTF-8, or contains a name twice.",
    "Send one JSON object (RFC 8259).",
)
INVALID_INPUT = ProblemType(
    "invalid-input",
    "A member of the body is missing, unknown, of the wrong type or out of range. `errors` names "
    "each by its JSON pointer.",
    "Correct the members in `errors`.",
)
INVALID_PARAMETER = ProblemType(
    "invalid-parameter",
    "A query parameter or a header has a value that is not allowed, or was given twice. Or a "
    "cursor belongs to another list.",
    "Correct the parameter that `detail` names. Start a list again without `cursor`.",
)
BODY_TOO_LARGE = ProblemType(
    "body-too-large", "The body exceeds 16 KiB.", "Send only the documented members."
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    "The body is not `application/json` in UTF-8, or has a Content-Encoding.",
    "Send `Content-Type: application/json` and no Content-Encoding.",
)
NOT_FOUND = ProblemType(
    "not-found", "No operation has this address.", "Check the path against the reference."
)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    "The address exists, but does not support the method.",
    "Use one of the methods in `Allow`.",
)

# Authentication and authorization

INVALID_TOKEN = ProblemType(
    "invalid-token",
    "There is no bearer token, or it was not accepted. The service says no more; its log has the "
    "reason under the same X-Request-Id.",
    "Send `Authorization: Bearer` with a token for this service. If it is refused, ask the "
    "operator.",
)
TOKEN_EXPIRED = ProblemType(
    "token-expired",
    "The token was valid, but has expired.",
    "Get a new token from your identity provider, and send the request again.",
    "Yes, with a new token.",
)
NO_ACTIVE_UNIT = ProblemType(
    "no-active-unit",
    "The token has no `unit_id`, and the cookie `activeOu` names no unit, or more than one.",
    "Choose a unit: get a token with `unit_id`, or set the cookie to one of its `unit_ids`. The "
    "operator may have chosen other names for these claims.",
)
FOREIGN_UNIT = ProblemType(
    "foreign-unit",
    "The cookie `activeOu` names a unit that is not in the token.",
    "Choose one of the token's units.",
)
ROLE_MISSING = ProblemType(
    "role-missing",
    "Your role may read credentials but not change them.",
    "Ask somebody with a role that may change them.",
)

# Verification

INVALID_PAIR = ProblemType(
    "invalid-pair",
    "The client ID and client secret are unknown, wrong, revoked, disabled or expired. The answer "
    "is the same for all of these.",
    "As a receiver: refuse the event. As a sender: check the pair, and ask its owner for a new "
    "client secret.",
)
TOO_MANY_FAILURES = ProblemType(
    "too-many-failures",
    "This client has failed too often in this minute. A valid pair is not limited.",
    "Correct the pair.",
    _AFTER,
)

# Credentials

CREDENTIAL_NOT_FOUND = ProblemType(
    "credential-not-found",
    "The active unit has no such credential. It may have been revoked, or belong to another unit.",
    "Check the `secret_id` and the active unit.",
)
CLIENT_SECRET_NOT_FOUND = ProblemType(
    "client-secret-not-found",
    "The credential has no live client secret with this hint. It may have ended already.",
    "Read the credential to see its live client secrets.",
)
CREDENTIAL_LIMIT = ProblemType(
    "credential-limit",
    "The unit has as many credentials as it may have.",
    "Revoke credentials that nobody uses (`unused_since` finds them), or ask the operator.",
)
LIVE_SECRET_LIMIT = ProblemType(
    "live-secret-limit",
    "Two client secrets are live, so a rotation cannot let a third one overlap.",
    "End one of them first, or rotate with `overlap_seconds` 0, which ends both.",
)
LAST_SECRET = ProblemType(
    "last-secret",
    "Ending the last live client secret would leave a credential that nobody can use.",
    "Rotate, disable or revoke the credential instead.",
)
AMBIGUOUS_HINT = ProblemType(
    "ambiguous-hint",
    "Both live client secrets end in the same four characters.",
    "Rotate with `overlap_seconds` 0 instead.",
)
CREDENTIAL_IN_USE = ProblemType(
    "credential-in-use",
    "The credential was used within `unused_for`. `last_used_at` says when.",
    "Find out who uses it, or revoke it without `unused_for`.",
    "Yes, once it has been unused for that long.",
)
TOO_MANY_ISSUES = ProblemType(
    "too-many-issues",
    "The unit has issued and rotated too many client secrets in this minute. Attempts that got 404 "
    "or 409 count too.",
    "Spread the calls over time.",
    _AFTER,
)
REQUEST_IN_PROGRESS = ProblemType(
    "request-under-way",
    "An earlier request with this Idempotency-Key has not been answered yet.",
    "Send it again: you will get the answer of the earlier one.",
    _AFTER,
)
RESPONSE_ERASED = ProblemType(
    "answer-erased",
    "The same request was carried out before, with this Idempotency-Key. Its response is no longer "
    "kept, because its client secret has been used or has ended. This time, nothing has changed.",
    "Use the client secret that you have. For another change, use a new key.",
)
IDEMPOTENCY_KEY_REUSED = ProblemType(
    "idempotency-key-reused",
    "The Idempotency-Key was used for a different request.",
    "Use a new key for each request.",
)

# The service

UNAVAILABLE = ProblemType(
    "unavailable",
    "The database or the issuer's keys cannot be reached, or the service is too busy. Nothing was "
    "decided: a pair may be valid, and a change may or may not have been made.",
    "Send the request again; send a change with the same Idempotency-Key.",
    _AFTER,
)
NOT_MIGRATED = ProblemType(
    "not-migrated",
    "The database lacks a migration of this version.",
    "As the operator: run `credentials migrate`.",
    _AFTER,
)
UNEXPECTED = ProblemType(
    "unexpected",
    "The service itself failed. Its log has the reason under the same X-Request-Id.",
    "Report the failure, with the X-Request-Id.",
    _LATER,
)

PROBLEM_TYPES = [each for each in globals().values() if isinstance(each, ProblemType)]
