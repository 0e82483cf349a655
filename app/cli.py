"""`credentials`: what operators type."""

import getpass
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from marshmallow import Schema
from tabulate import tabulate

from app.api.schemas import AuditEventSchema, CredentialSchema, IssuedCredentialSchema
from app.credentials.errors import CredentialNotFound, InvalidName
from app.credentials.hashing import Hasher
from app.credentials.model import Origin, parse_name
from app.credentials.service import (
    DEFAULT_OVERLAP_SECONDS,
    MAX_OVERLAP_SECONDS,
    CredentialService,
)
from app.credentials.usage import UsageRecorder
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.migrations import MigrationFailed, migrate
from app.database.pool import Database
from app.identifiers import is_identifier
from app.settings import DomainSettings, SettingsError, database_url_from_environment

Command = Callable[..., None]


class _BadSettings(click.ClickException):
    exit_code = 2  # as click's own for a command called wrongly


class _NotFound(click.ClickException):
    exit_code = 3


class _Unavailable(click.ClickException):
    exit_code = 4


class _Name(click.ParamType[str]):
    name = "name"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        try:
            return parse_name(value)
        except InvalidName as error:
            self.fail(str(error), param, ctx)


class _Identifier(click.ParamType[str]):
    name = "identifier"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if not is_identifier(value):
            self.fail("Must be 1-255 characters, none of them a control character", param, ctx)
        return value


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_unit = click.option("--unit", type=_Identifier(), required=True, help="The Organizational Unit.")
_secret_id = click.argument("secret_id", type=_Identifier())
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API does.")
_actor = click.option(
    "--actor",
    type=_Identifier(),
    default=lambda: f"cli:{_user_name()}",
    show_default="cli:<your user name>",
    help="Who the audit trail says it was.",
)
_query = _options(_unit, _as_json)
_change = _options(_unit, _actor)


@click.group(
    epilog="Exit status: 0 done, 1 failed, 2 called wrongly or a setting is missing or bad, "
    "3 the unit has no such credential, 4 the database is unavailable."
)
def main() -> None:
    """Operate the LeadVibe Credentials service."""
    logging.getLogger().addHandler(logging.NullHandler())  # a command says itself what failed


@main.command("migrate")
def migrate_command() -> None:
    """Bring the database to the schema that this version needs.

    Safe when several hosts run it at once.
    """
    try:
        applied = migrate(database_url_from_environment())
    except SettingsError as error:
        raise _BadSettings(str(error)) from None
    except MigrationFailed as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("The database is up to date.")


@main.command("list")
@_query
def list_command(*, unit: str, as_json: bool) -> None:
    """List the unit's credentials, newest first."""
    with _service() as service:
        credentials = service.list(unit_id=unit).items
    _print_table(CredentialSchema(many=True), credentials, as_json=as_json)


@main.command("issue")
@click.argument("name", type=_Name())
@_change
@_as_json
def issue_command(*, name: str, unit: str, actor: str, as_json: bool) -> None:
    """Make a credential, and print its client secret this once."""
    with _service() as service:
        issued = service.issue(unit_id=unit, name=name, origin=_origin(actor))
    _print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("rotate")
@_secret_id
@click.option(
    "--overlap-seconds",
    type=click.IntRange(0, MAX_OVERLAP_SECONDS),
    default=DEFAULT_OVERLAP_SECONDS,
    show_default=True,
    help="How long the former client secret goes on working.",
)
@_change
@_as_json
def rotate_command(
    *, secret_id: str, overlap_seconds: int, unit: str, actor: str, as_json: bool
) -> None:
    """Hand out a new client secret, and print it this once."""
    with _service() as service:
        issued = service.rotate(
            unit_id=unit,
            secret_id=secret_id,
            overlap_seconds=overlap_seconds,
            origin=_origin(actor),
        )
    _print_record(IssuedCredentialSchema(), issued, as_json=as_json)


@main.command("revoke")
@_secret_id
@_change
def revoke_command(*, secret_id: str, unit: str, actor: str) -> None:
    """End a credential and its client secrets at once."""
    with _service() as service:
        service.revoke(unit_id=unit, secret_id=secret_id, origin=_origin(actor))
    click.echo(f"revoked {secret_id}")


@main.command("events")
@_secret_id
@_query
def events_command(*, secret_id: str, unit: str, as_json: bool) -> None:
    """Show the audit trail of a credential, newest first; also after it was revoked."""
    with _service() as service:
        events = service.events(unit_id=unit, secret_id=secret_id).items
    _print_table(AuditEventSchema(many=True), events, as_json=as_json)


@contextmanager
def _service() -> Iterator[CredentialService]:
    """Lend the service, and end the command with its exit status when something fails."""
    try:
        settings = DomainSettings.from_environment()
    except SettingsError as error:
        raise _BadSettings(str(error)) from None
    database = Database(settings.database_url, connections=1)
    database.open()
    try:
        hasher = Hasher(settings.bcrypt_rounds, settings.digest_key)
        yield CredentialService(database, hasher, UsageRecorder(database))
    except CredentialNotFound:
        raise _NotFound("The unit has no such credential.") from None
    except DatabaseFault as error:
        raise click.ClickException(f"The database refused a statement ({error}).") from None
    except DatabaseUnavailable as error:
        raise _Unavailable(f"The database is unavailable ({error}).") from None
    finally:
        database.close()


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number alone
        return f"uid-{os.getuid()}"


def _origin(actor: str) -> Origin:
    return Origin(actor=actor, request_id=str(uuid.uuid4()))


def _print_table(schema: Schema, items: Sequence[Any], *, as_json: bool) -> None:
    rows = schema.dump(items)
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = [[_cell(value) for value in row.values()] for row in rows]
    click.echo(tabulate(table, headers=list(schema.fields), disable_numparse=True))


def _print_record(schema: Schema, item: Any, *, as_json: bool) -> None:
    record = schema.dump(item)
    if as_json:
        click.echo(json.dumps(record))
        return
    table = [[name, _cell(value)] for name, value in record.items()]
    click.echo(tabulate(table, tablefmt="plain", disable_numparse=True))


def _cell(value: Any) -> str:
    """Show a value as JSON does, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
