"""The commands. Each is one of the contract's verbs, on the same domain as the API."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

import click

from app.api.schemas.credentials import (
    CredentialSchema,
    DetailedCredentialSchema,
    IssuedCredentialSchema,
)
from app.api.schemas.events import UnitEventSchema
from app.cli import parameters
from app.cli.follow import follow_events
from app.cli.output import print_events, print_record, print_table
from app.cli.reapply import read_trail, summary
from app.credentials.errors import (
    AmbiguousHint,
    ClientSecretNotFound,
    CredentialInUse,
    CredentialLimitReached,
    CredentialNotFound,
    InvalidExpiry,
    LastSecret,
    SecretLimitReached,
)
from app.credentials.model import (
    Caller,
    CredentialFilter,
    EventFilter,
    Item,
    Page,
    Place,
)
from app.credentials.reapplying import Reapplication
from app.credentials.service import CredentialService
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.migrations import MigrationFailed, migrate
from app.database.pool import Database
from app.identifiers import new_request_id
from app.places import Workload
from app.services import make_credential_service
from app.settings import CredentialSettings, SettingsError, database_url_from_environment

_CONNECT_SECONDS = 3.0


class _InvalidSettings(click.ClickException):
    exit_code = 2  # as click's own for a usage error


class _NotFound(click.ClickException):
    exit_code = 3


class _Unavailable(click.ClickException):
    exit_code = 4


_FAILURES: Mapping[type[Exception], tuple[type[click.ClickException], str]] = {
    CredentialNotFound: (_NotFound, "The unit has no such credential."),
    ClientSecretNotFound: (_NotFound, "The credential has no such client secret."),
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
    DatabaseFault: (click.ClickException, "The database rejected a statement ({error})."),
    DatabaseUnavailable: (_Unavailable, "The database is unavailable ({error})."),
}


@click.group(
    epilog="Exit status: 0 done, 1 failed, 2 usage error, or a missing or invalid setting, "
    "3 the unit has no such credential, 4 the database is unavailable."
)
def main() -> None:
    """Operate the LeadVibe Credentials service."""
    logging.getLogger().addHandler(logging.NullHandler())  # commands report their own failures


@main.command("migrate")
def migrate_command() -> None:
    """Bring the database to the schema that this version needs.

    Several hosts may run it at once.
    """
    try:
        applied = migrate(database_url_from_environment())
    except SettingsError as error:
        raise _InvalidSettings(str(error)) from None
    except MigrationFailed as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("The database is up to date.")


@main.command("list")
@parameters.credential_filter
@parameters.query
def list_command(*, unit: str, as_json: bool, **conditions: Any) -> None:
    """List the unit's credentials, newest first. Each must meet every condition."""
    caller = _caller(unit)
    only = CredentialFilter(**conditions)
    with _service() as service:
        credentials = _all_pages(lambda place: service.list(caller, only=only, after=place))
    print_table(CredentialSchema(many=True), credentials, as_json=as_json)


@main.command("show")
@parameters.secret_id
@parameters.query
def show_command(*, secret_id: str, unit: str, as_json: bool) -> None:
    """Show a credential with its live client secrets."""
    with _service() as service:
        credential = service.get(_caller(unit), secret_id)
    print_record(DetailedCredentialSchema(), credential, as_json=as_json)


@main.command("whois")
@parameters.client_id
@parameters.as_json
def whois_command(*, client_id: str, as_json: bool) -> None:
    """Show the credential of a client ID, in any unit."""
    with _service() as service:
        credential = service.whois(client_id)
    print_record(DetailedCredentialSchema(), credential, as_json=as_json)


@main.command("issue")
@parameters.name
@parameters.expires_at
@parameters.change
@parameters.as_json
def issue_command(
    *, name: str, expires_at: datetime | None, unit: str, actor: str, as_json: bool
) -> None:
    """Issue a credential, and print its client secret once."""
    with _service() as service:
        issued = service.issue(_caller(unit, actor), name=name, expires_at=expires_at)
    print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("update")
@parameters.secret_id
@parameters.new_name
@parameters.consent
@parameters.change
def update_command(
    *,
    secret_id: str,
    name: str | None,
    trust_upstream_consent: bool | None,
    unit: str,
    actor: str,
) -> None:
    """Change a credential's name or consent flag."""
    if name is None and trust_upstream_consent is None:
        raise click.UsageError("Say what to change: a name or the consent flag.")
    with _service() as service:
        service.update(
            _caller(unit, actor),
            secret_id,
            name=name,
            trust_upstream_consent=trust_upstream_consent,
        )
    click.echo(f"updated {secret_id}")


@main.command("rotate")
@parameters.secret_id
@parameters.overlap_seconds
@parameters.expires_at
@parameters.change
@parameters.as_json
def rotate_command(  # noqa: PLR0913  each is an option
    *,
    secret_id: str,
    overlap_seconds: int,
    expires_at: datetime | None,
    unit: str,
    actor: str,
    as_json: bool,
) -> None:
    """Make a new client secret, and print it once."""
    with _service() as service:
        issued = service.rotate(
            _caller(unit, actor),
            secret_id,
            overlap_seconds=overlap_seconds,
            expires_at=expires_at,
        )
    print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("end-secret")
@parameters.secret_id
@parameters.hint
@parameters.change
def end_secret_command(*, secret_id: str, hint: str, unit: str, actor: str) -> None:
    """End one of two live client secrets immediately. HINT is its last four characters."""
    with _service() as service:
        service.end_secret(_caller(unit, actor), secret_id, hint)
    click.echo(f"ended {hint} of {secret_id}")


@main.command("disable")
@parameters.one_or_all
@parameters.change
def disable_command(*, secret_id: str | None, all_of_unit: bool, unit: str, actor: str) -> None:
    """Refuse a credential, or all of the unit, until enabled again."""
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    caller = _caller(unit, actor)
    with _service() as service:
        if secret_id is not None:
            service.update(caller, secret_id, enabled=False)
            click.echo(f"disabled {secret_id}")
        else:
            _print_count("disabled", service.disable_all(caller))


@main.command("enable")
@parameters.one_or_all
@parameters.change
def enable_command(*, secret_id: str | None, all_of_unit: bool, unit: str, actor: str) -> None:
    """Accept a disabled credential again, or all that `disable --all` disabled."""
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    caller = _caller(unit, actor)
    with _service() as service:
        if secret_id is not None:
            service.update(caller, secret_id, enabled=True)
            click.echo(f"enabled {secret_id}")
        else:
            _print_count("enabled", service.enable_all(caller))


@main.command("revoke")
@parameters.one_or_all
@parameters.unused_for
@parameters.change
def revoke_command(
    *, secret_id: str | None, all_of_unit: bool, unused_for: int | None, unit: str, actor: str
) -> None:
    """End a credential, or all of the unit, and their client secrets immediately."""
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    if all_of_unit and unused_for is not None:
        raise click.UsageError("--unused-for is for a single credential.")
    caller = _caller(unit, actor)
    with _service() as service:
        if secret_id is not None:
            service.revoke(caller, secret_id, unused_for=unused_for)
            click.echo(f"revoked {secret_id}")
        else:
            _print_count("revoked", service.revoke_all(caller))


@main.command("events")
@parameters.event_filter
@parameters.follow
@parameters.query
def events_command(*, follow: bool, unit: str, as_json: bool, **conditions: Any) -> None:
    """Show the unit's audit trail, newest first, or that of one credential.

    A trail outlives its credential. Each event must meet every condition.
    """
    caller = _caller(unit)
    only = EventFilter(**conditions)
    with _service() as service:
        if follow:
            print_events(follow_events(service, caller, only=only), as_json=as_json)
            return
        events = _all_pages(lambda place: service.unit_events(caller, only=only, after=place))
        if only.secret_id is not None and not events:
            service.events(caller, only.secret_id, limit=1)  # is there such a credential at all?
    print_table(UnitEventSchema(many=True), events, as_json=as_json)


@main.command("reapply-revocations")
@parameters.trail
@parameters.actor
def reapply_revocations_command(*, trail: TextIO, actor: str) -> None:
    """After a restore, end again what ended after the backup.

    TRAIL is a file of events as 'events --follow --json' prints them, of any units and oldest
    first; without it, standard input. Events that the restored trail has are skipped, so the
    whole trail may be given, and more than once.
    """
    events = read_trail(trail)
    with _service() as service:
        reapplication = Reapplication(
            service.database,
            service.workload.management.seconds,
            lambda unit_id: _caller(unit_id, actor),
        )
        click.echo(summary(reapplication.apply(events)))


def _require_one_or_all(secret_id: str | None, *, all_of_unit: bool) -> None:
    if (secret_id is not None) == all_of_unit:
        raise click.UsageError("Name one credential, or give --all.")


def _print_count(done: str, count: int) -> None:
    if not count:
        raise _NotFound(f"The unit has no credential that could be {done}.")
    click.echo(f"{done} {count}")


@contextmanager
def _service() -> Iterator[CredentialService]:
    """Lend the service. If something fails, end the command with its exit status."""
    try:
        settings = CredentialSettings.from_environment()
    except SettingsError as error:
        raise _InvalidSettings(str(error)) from None
    database = Database(settings.database_url, connections=1)
    workload = Workload.for_verifiers(1)
    try:
        database.open(wait_seconds=_CONNECT_SECONDS)
        yield make_credential_service(settings, database, workload)
    except tuple(_FAILURES) as error:
        kind, message = _FAILURES[type(error)]
        raise kind(message.format(error=error)) from None
    finally:
        database.close()


def _all_pages(read_page: Callable[[Place | None], Page[Item, Place]]) -> list[Item]:
    items: list[Item] = []
    place: Place | None = None
    while True:
        page = read_page(place)
        items += page.items
        place = page.next
        if place is None:
            return items


def _caller(unit_id: str, actor: str | None = None) -> Caller:
    actor = actor or parameters.default_actor()
    return Caller(
        actor=actor, unit_id=unit_id, request_id=new_request_id(), via="cli", address=None
    )
