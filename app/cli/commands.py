"""The commands. Each is one of the contract's verbs, on the same domain as the API."""

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from app.api.schemas.credentials import CredentialSchema, IssuedCredentialSchema
from app.api.schemas.events import AuditEventSchema
from app.cli import parameters
from app.cli.output import print_record, print_table
from app.credentials.errors import CredentialLimitReached, CredentialNotFound
from app.credentials.model import Caller, Item, Page, Place
from app.credentials.service import CredentialService
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.migrations import MigrationFailed, migrate
from app.database.pool import Database
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
@parameters.query
def list_command(*, unit: str, as_json: bool) -> None:
    """List the unit's credentials, newest first."""
    caller = _caller(unit)
    with _service() as service:
        credentials = _all_pages(lambda place: service.list(caller, after=place))
    print_table(CredentialSchema(many=True), credentials, as_json=as_json)


@main.command("issue")
@parameters.name
@parameters.change
@parameters.as_json
def issue_command(*, name: str, unit: str, actor: str, as_json: bool) -> None:
    """Issue a credential, and print its client secret once."""
    with _service() as service:
        issued = service.issue(_caller(unit, actor), name=name)
    print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("rotate")
@parameters.secret_id
@parameters.overlap_seconds
@parameters.change
@parameters.as_json
def rotate_command(
    *, secret_id: str, overlap_seconds: int, unit: str, actor: str, as_json: bool
) -> None:
    """Make a new client secret, and print it once."""
    with _service() as service:
        issued = service.rotate(_caller(unit, actor), secret_id, overlap_seconds=overlap_seconds)
    print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("revoke")
@parameters.secret_id
@parameters.change
def revoke_command(*, secret_id: str, unit: str, actor: str) -> None:
    """End a credential and its client secrets immediately."""
    with _service() as service:
        service.revoke(_caller(unit, actor), secret_id)
    click.echo(f"revoked {secret_id}")


@main.command("events")
@parameters.secret_id
@parameters.query
def events_command(*, secret_id: str, unit: str, as_json: bool) -> None:
    """Show the audit trail of a credential, newest first, even after it was revoked."""
    caller = _caller(unit)
    with _service() as service:
        events = _all_pages(lambda place: service.events(caller, secret_id, before=place))
    print_table(AuditEventSchema(many=True), events, as_json=as_json)


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
    except CredentialNotFound:
        raise _NotFound("The unit has no such credential.") from None
    except DatabaseFault as error:
        raise click.ClickException(f"The database rejected a statement ({error}).") from None
    except CredentialLimitReached:
        raise click.ClickException("The unit has reached its limit of credentials.") from None
    except DatabaseUnavailable as error:
        raise _Unavailable(f"The database is unavailable ({error}).") from None
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
        actor=actor, unit_id=unit_id, request_id=str(uuid.uuid4()), via="cli", address=None
    )
