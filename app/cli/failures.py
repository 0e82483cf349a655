"""How commands fail: messages and exit statuses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from app.bulkheads import BulkheadFull
from app.credentials.errors import (
    ClientSecretNotFound,
    CredentialNotFound,
    InvalidExpiry,
    InvalidRestriction,
    LastUseUnknown,
    ScopeMissing,
    VerificationRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.api.http.problems import Problem
    from app.credentials.errors import Refusal

EXIT_STATUSES = (
    "Exit status: 0 done, 1 failed (or the token is refused), 2 usage error, or a missing or "
    "invalid setting, 3 the unit has no such credential, 4 the database or the issuer's keys are "
    "unavailable, 5 the client ID and client secret are not a valid pair."
)


class NotFound(click.ClickException):
    """There is no such credential or client secret."""

    exit_code = 3


class Unavailable(click.ClickException):
    """The database or the issuer's keys are unavailable. A later attempt may succeed."""

    exit_code = 4


class _InvalidSettings(click.ClickException):
    exit_code = 2  # the same as click's usage errors


class _InvalidPair(click.ClickException):
    exit_code = 5


# Errors whose exit status is not 1.
_KINDS: Mapping[type[Exception], type[click.ClickException]] = {
    ClientSecretNotFound: NotFound,
    InvalidExpiry: click.UsageError,
    InvalidRestriction: click.UsageError,
    ScopeMissing: _InvalidPair,
    LastUseUnknown: Unavailable,
    BulkheadFull: Unavailable,
}

_NOT_VALID = "The pair is not valid: unknown, wrong, expired, disabled or revoked."
_REFUSALS: Mapping[Refusal, str] = {
    "malformed": "The client secret is malformed. It may be mistyped or incomplete.",
    "address": "The pair is valid, but must not be used from that address (--address).",
}

# What the API's sentences call by another name than the command line.
_OPTIONS = {
    "Idempotency-Key": "--idempotency-key",
    "expires_at": "--expires-at",
    "overlap_seconds": "--overlap-seconds",
    "unused_for": "--unused-for",
    "/verify/{scope}": "--scope",
}


@contextmanager
def reported(*, no_such: str = "") -> Iterator[None]:
    """Turn failures into messages. `no_such` is the message for a missing credential."""
    try:
        yield
    except Exception as error:
        failure = _failure_of(error, no_such)
        if failure is None:
            raise
        raise failure from None


def _failure_of(error: Exception, no_such: str) -> click.ClickException | None:  # noqa: PLR0911  one for each kind
    """Return what the command fails with, or None if the error is click's own or unexpected."""
    from app.api.http.problems import problem_of_domain_error
    from app.database.errors import DatabaseFault, DatabaseUnavailable
    from app.database.migrations import MigrationFailed
    from app.settings import SettingsError

    match error:
        case SettingsError():
            # click itself writes `Error: ` before the first line
            return _InvalidSettings("\nError: ".join(str(error).splitlines()))
        case CredentialNotFound():
            return NotFound(no_such)
        case VerificationRefused() if not isinstance(error, ScopeMissing):
            return _InvalidPair(_REFUSALS.get(error.reason, _NOT_VALID))
        case DatabaseUnavailable():
            return Unavailable(f"The database is unavailable: {error.reason}.")
        case DatabaseFault():
            return click.ClickException(f"The database rejected a statement ({error}).")
        case MigrationFailed():
            return click.ClickException(f"The database cannot be migrated: {error}")
    problem = problem_of_domain_error(error)
    if problem is None:
        return None
    return _KINDS.get(type(error), click.ClickException)(_sentence(problem))


def _sentence(problem: Problem) -> str:
    """Return the problem's detail in the words of the command line, with its further members.

    Of its errors, only those in lists say more than the detail.
    """
    text = problem.detail
    for member, option in _OPTIONS.items():
        text = text.replace(member, option)
    more = "".join(f" ({name} {value})" for name, value in problem.extensions.items())
    for each in problem.errors:
        if each.pointer.count("/") > 1:
            more += f" ({each.pointer[1:]}: {each.detail})"
    return f"{text}{more}."
