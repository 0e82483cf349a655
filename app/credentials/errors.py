"""The domain's errors: what it refuses, and why."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from app.times import format_time

Refusal = Literal["malformed", "unknown", "wrong", "expired", "disabled", "address", "scope"]


class InvalidName(ValueError):
    """The name breaks the contract's rules. The message says which rule, without the name."""


class InvalidExpiry(ValueError):
    """The client secret must not expire at that time. `latest` is the limit, such as "10 years"."""

    def __init__(self, latest: str) -> None:
        super().__init__(f"Must be in the future, at most {latest} ahead")


class InvalidRestriction(ValueError):
    """The `member`, `scopes` or `addresses`, breaks a `rule`: what is wrong with it as a whole.

    `problems` says what is wrong with single items, by their position.
    """

    def __init__(
        self,
        member: Literal["scopes", "addresses"],
        rule: str,
        problems: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(f"{member} {rule}")
        self.member = member
        self.problems = problems or {}


class VerificationRefused(Exception):
    """The client ID and client secret are not, or no longer, a valid pair.

    The reason is never told to the caller. It is "expired", "disabled" or "address" (the credential
    must not be used from there) only for a pair that would otherwise be valid. A revoked credential
    is "unknown", because its row is deleted.
    """

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedPair(VerificationRefused):
    """The pair does not have the format of one, so it is a mistake and not a guess at a secret."""

    def __init__(self) -> None:
        super().__init__("malformed")


class ScopeMissing(VerificationRefused):
    """The pair is valid, but its credential does not have the scope. The caller is told.

    `scope` is None if the caller named none, and the credential has scopes.
    """

    def __init__(self, scope: str | None) -> None:
        super().__init__("scope")
        self.scope = scope


class LimitExceeded(Exception):
    """Something was tried too often in this minute. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"retry after {retry_after} s")
        self.retry_after = retry_after


class TooManyFailures(LimitExceeded):
    """The client has failed too often to verify this client ID."""


class TooManyIssues(LimitExceeded):
    """The unit has issued and rotated too often."""


class TooManyChanges(LimitExceeded):
    """The unit has made too many changes."""


class TooManyReports(LimitExceeded):
    """The client has reported leaks too often."""


class CredentialNotFound(Exception):
    """The unit has no such credential. Another unit's credential counts as not existing."""


class ClientSecretNotFound(Exception):
    """The credential has no live client secret with that hint."""


class CredentialLimitReached(Exception):
    """The unit already has as many credentials as it may have."""


class SecretLimitReached(Exception):
    """The credential already has as many live client secrets as it may have."""


class LastSecret(Exception):
    """It is the credential's last live client secret, which cannot be ended alone."""


class AmbiguousHint(Exception):
    """Two live client secrets of the credential have the same hint."""


class CredentialInUse(Exception):
    """The credential, or client secret, was used so recently that it must not be ended.

    `last_used_at` is None if it only got a client secret so recently that nobody may have used it.
    """

    def __init__(self, last_used_at: datetime | None) -> None:
        super().__init__(last_used_at and format_time(last_used_at))
        self.last_used_at = last_used_at


class LastUseUnknown(Exception):
    """Another process may have uses that it has not recorded. A later attempt may find them."""


class HistoryLost(Exception):
    """The caller has read events that a failover or a restore has lost.

    If the database `has_history`, nothing more is lost after the end of that history. Otherwise the
    position is from a database that is gone.
    """

    def __init__(self, *, has_history: bool) -> None:
        super().__init__()
        self.has_history = has_history


class RequestInProgress(Exception):
    """A request with the same idempotency key is in progress. A later attempt gets its response."""


class ResponseErased(Exception):
    """The same request was carried out before, and its response is no longer stored."""


class IdempotencyKeyReused(Exception):
    """The idempotency key belongs to a different request."""
