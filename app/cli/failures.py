"""How commands fail: messages and exit statuses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from app.credentials.errors import (
    AmbiguousHint,
    ClientSecretNotFound,
    CredentialInUse,
    CredentialLimitReached,
    CredentialNotFound,
    InvalidExpiry,
    LastSecret,
    MalformedPair,
    SecretLimitReached,
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


_FAILURES: Mapping[type[Exception], tuple[type[click.ClickException], str]] = {
    ClientSecretNotFound: (NotFound, "The credential has no such client secret."),
    InvalidExpiry: (click.UsageError, "Invalid value for '--expires-at': {error}"),
    CredentialLimitReached: (
        click.ClickException,
        "The unit has reached its limit of credentials.",
    ),
    SecretLimitReached: (
        click.ClickException,
        "Two client secrets are already live; end one first, or rotate with --overlap-seconds 0.",
    ),
    LastSecret: (
        click.ClickException,
        "This is the last live client secret; rotate, disable or revoke the credential instead.",
    ),
    AmbiguousHint: (
        click.ClickException,
        "Two live client secrets have this hint; rotate with --overlap-seconds 0 instead.",
    ),
    CredentialInUse: (
        click.ClickException,
        "The credential is in use; it was last used at {error}.",
    ),
    MalformedPair: (
        _InvalidPair,
        "The client secret is malformed. It may be mistyped or incomplete.",
    ),
    VerificationRefused: (
        _InvalidPair,
        "The pair is not valid: unknown, wrong, expired, disabled or revoked.",
    ),
    MigrationFailed: (click.ClickException, "The database cannot be migrated: {error}"),
    DatabaseFault: (click.ClickException, "The database rejected a statement ({error})."),
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
    except DatabaseUnavailable as error:
        raise Unavailable(f"The database is unavailable: {error.reason}.") from None
    except tuple(_FAILURES) as error:
        kind, message = _FAILURES[type(error)]
        raise kind(message.format(error=error)) from None
