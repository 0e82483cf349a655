"""How commands fail: messages and exit statuses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from app.api.http.problems import Problem, problem_of_domain_error
from app.bulkheads import BulkheadFull
from app.credentials.errors import (
    ClientSecretNotFound,
    CredentialNotFound,
    InvalidExpiry,
    LastUseUnknown,
    MalformedPair,
    VerificationRefused,
)
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.migrations import MigrationFailed
from app.settings import SettingsError

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
    LastUseUnknown: Unavailable,
    BulkheadFull: Unavailable,
}

# What the API's sentences call by another name than the command line.
_OPTIONS = {
    "Idempotency-Key": "--idempotency-key",
    "expires_at": "--expires-at",
    "overlap_seconds": "--overlap-seconds",
    "unused_for": "--unused-for",
}


@contextmanager
def reported(*, no_such: str = "") -> Iterator[None]:
    """Turn failures into messages. `no_such` is the message for a missing credential."""
    try:
        yield
    except SettingsError as error:
        # click itself writes `Error: ` before the first line
        raise _InvalidSettings("\nError: ".join(str(error).splitlines())) from None
    except CredentialNotFound:
        raise NotFound(no_such) from None
    except MalformedPair:
        raise _InvalidPair(
            "The client secret is malformed. It may be mistyped or incomplete."
        ) from None
    except VerificationRefused:
        raise _InvalidPair(
            "The pair is not valid: unknown, wrong, expired, disabled or revoked."
        ) from None
    except DatabaseUnavailable as error:
        raise Unavailable(f"The database is unavailable: {error.reason}.") from None
    except DatabaseFault as error:
        raise click.ClickException(f"The database rejected a statement ({error}).") from None
    except MigrationFailed as error:
        raise click.ClickException(f"The database cannot be migrated: {error}") from None
    except Exception as error:
        problem = problem_of_domain_error(error)
        if problem is None:
            raise
        kind = _KINDS.get(type(error), click.ClickException)
        raise kind(_sentence(problem)) from None


def _sentence(problem: Problem) -> str:
    """Return the problem's detail in the words of the command line, with its further members."""
    text = problem.detail
    for member, option in _OPTIONS.items():
        text = text.replace(member, option)
    more = "".join(f" ({name} {value})" for name, value in problem.extensions.items())
    return f"{text}{more}."
