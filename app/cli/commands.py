"""The commands: the contract's verbs for operators, on the same domain as the API.

What a command works with is imported when it works: help and TAB completion need none of it.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from app.bulkheads import Bulkheads
from app.cli import parameters
from app.cli.failures import EXIT_STATUSES, Unavailable, reported
from app.cli.output import (
    allow_all_characters,
    leaked_record,
    print_credential,
    print_credentials,
    print_done,
    print_events,
    print_issued,
    print_leaked,
    print_record,
    print_table,
    secret_file,
)
from app.cli.terminal import confirm, read_secret, read_secrets, tell_person
from app.credentials.model import (
    Caller,
    CredentialChanges,
    CredentialFilter,
    EventFilter,
    Item,
    Page,
    Position,
)
from app.identifiers import new_request_id
from app.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from app.credentials.management import CredentialService
    from app.domain import Domain

_CONNECT_SECONDS = 3.0

_EVERYTHING = CredentialFilter()

_SAME_IN_EACH_EVENT = ("secret_id", "client_id", "name")  # in the trail of one credential


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_STATUSES)
@click.version_option(package_name="leadvibe-credentials", message="%(prog)s %(version)s")
def main() -> None:
    """Operate the LeadVibe Credentials service."""
    if sys.stdout is None:
        raise click.ClickException("Standard output is closed, so the command did nothing.")
    allow_all_characters()
    logging.getLogger().addHandler(logging.NullHandler())  # commands report their own failures


@main.command("migrate")
@parameters.as_json
def migrate_command(*, as_json: bool) -> None:
    """Bring the database to the schema that this version needs.

    Several hosts may run it at once.
    """
    from app.database.migrations import migrate
    from app.settings import database_url_from_environment

    with reported():
        applied = migrate(database_url_from_environment())
    lines = [*(f"applied {name}" for name in applied), "The database is up to date."]
    print_done("\n".join(lines), as_json=as_json, applied=applied)


@main.command("serve")
def serve_command() -> None:
    """Run the service, in any directory.

    It is gunicorn, configured by the settings of the service. GUNICORN_CMD_ARGS has further
    options of gunicorn. SIGTERM ends it, SIGHUP replaces its processes.
    """
    from app.server.serve import serve

    serve()


@main.command("list")
@parameters.credential_filter
@parameters.query
def list_command(*, unit: str, as_json: bool, **conditions: Any) -> None:
    """List the unit's credentials, newest first. Each must meet every condition."""
    caller = _caller(unit)
    only = CredentialFilter(**conditions)
    with _service() as service:
        credentials = _all_pages(
            lambda position: service.list_detailed(caller, only=only, after=position)
        )
    print_credentials(
        credentials,
        as_json=as_json,
        if_empty=f"The unit {unit} has no {'such ' if only != _EVERYTHING else ''}credentials.",
    )


@main.command("show")
@parameters.secret_id
@parameters.query
def show_command(*, secret_id: str, unit: str, as_json: bool) -> None:
    """Show a credential with its live client secrets."""
    with _service(_no_such(unit, secret_id)) as service:
        credential = service.get(_caller(unit), secret_id)
    print_credential(credential, as_json=as_json)


@main.command("whois")
@parameters.client_id
@parameters.as_json
def whois_command(*, client_id: str, as_json: bool) -> None:
    """Show the credential of a client ID, in any unit."""
    with _service(f"No unit has a credential with the client ID {client_id}.") as service:
        credential = service.whois(client_id)
    print_credential(credential, as_json=as_json)


@main.command("leaked")
@parameters.end
@parameters.yes
@parameters.actor
@parameters.as_json
def leaked_command(*, end: bool, yes: bool, actor: str, as_json: bool) -> None:
    """Find the credentials of leaked client secrets, in any unit.

    The client secrets come from standard input, one a line, or from a prompt. With --end, those
    that are live end immediately. Nothing printed contains one. Exit status 1 if a line is not a
    client secret.
    """
    from app.credentials.generator import is_client_secret

    lines = read_secrets("Client secret")
    client_secrets = list(dict.fromkeys(filter(is_client_secret, lines)))
    ended: set[int] = set()
    with _domain() as domain:
        found = domain.leaks.find(client_secrets)
        if end and found:
            confirm(lambda: _end_question(len(found)), yes=yes)
            ended = domain.leaks.end(found.values(), lambda unit_id: _caller(unit_id, actor))
        gone = domain.leaks.find_ended(client_secrets)
    print_leaked(
        [leaked_record(line, found.get(line), gone.get(line), ended=ended) for line in lines],
        as_json=as_json,
    )
    malformed = [str(n) for n, line in enumerate(lines, 1) if not is_client_secret(line)]
    if malformed:
        raise click.ClickException(
            f"Not a client secret: number {', '.join(malformed)} of {len(lines)}."
        )


@main.command("verify")
@parameters.client_id
@parameters.question
@parameters.as_json
def verify_command(
    *, client_id: str, scope: str | None, address: str | None, as_json: bool
) -> None:
    """Check a client ID and client secret, as the service does.

    The client secret comes from standard input, or from a prompt. The check does not count as a
    use.
    """
    from app.api.schemas.credentials import VerifiedCredentialSchema

    client_secret = read_secret("Client secret")
    with _domain() as domain:
        if scope is not None and scope not in domain.verifier.scopes:
            raise click.UsageError("--scope must be one of SCOPES.")
        verified = domain.verifier.verify(
            client_id=client_id, client_secret=client_secret, address=address, scope=scope
        )
    print_record(VerifiedCredentialSchema(), verified.credential, as_json=as_json)


@main.command("issue")
@parameters.name
@parameters.expires_at
@parameters.restrictions
@parameters.idempotency_key
@parameters.output
@parameters.change
def issue_command(
    *,
    name: str,
    expires_at: datetime | None,
    idempotency_key: str | None,
    output: Path | None,
    unit: str,
    actor: str,
    as_json: bool,
    **restrictions: Any,
) -> None:
    """Issue a credential, and show its client secret once."""
    given = _restrictions(**restrictions)
    with secret_file(output) as keep:
        with _service() as service:
            issued = service.issue(
                _caller(unit, actor),
                name=name,
                expires_at=expires_at,
                **given,
                idempotency_key=idempotency_key,
            )
        keep(issued)
    print_issued(
        issued,
        as_json=as_json,
        is_kept=output is not None,
        is_repeatable=idempotency_key is not None,
        overlaps=False,
    )


@main.command("update")
@parameters.secret_id
@parameters.changes
@parameters.restrictions
@parameters.change
def update_command(
    *,
    secret_id: str,
    name: str | None,
    trust_upstream_consent: bool | None,
    unit: str,
    actor: str,
    as_json: bool,
    **restrictions: Any,
) -> None:
    """Change fields of a credential."""
    changes = replace(
        CredentialChanges(name=name, trust_upstream_consent=trust_upstream_consent),
        **_restrictions(**restrictions),
    )
    if changes == CredentialChanges():
        raise click.UsageError("Say what to change.")
    with _service(_no_such(unit, secret_id)) as service:
        service.update(_caller(unit, actor), secret_id, changes)
    _print_done("updated", secret_id, as_json=as_json)


@main.command("rotate")
@parameters.secret_id
@parameters.overlap_seconds
@parameters.expires_at
@parameters.idempotency_key
@parameters.output
@parameters.change
def rotate_command(
    *,
    secret_id: str,
    overlap_seconds: int,
    expires_at: datetime | None,
    idempotency_key: str | None,
    output: Path | None,
    unit: str,
    actor: str,
    as_json: bool,
) -> None:
    """Make a new client secret, and show it once."""
    with secret_file(output) as keep:
        with _service(_no_such(unit, secret_id)) as service:
            issued = service.rotate(
                _caller(unit, actor),
                secret_id,
                overlap_seconds=overlap_seconds,
                expires_at=expires_at,
                idempotency_key=idempotency_key,
            )
        keep(issued)
    print_issued(
        issued,
        as_json=as_json,
        is_kept=output is not None,
        is_repeatable=idempotency_key is not None,
        overlaps=overlap_seconds > 0,
    )


@main.command("end-secret")
@parameters.secret_id
@parameters.hint
@parameters.secret_unused_for
@parameters.yes
@parameters.change
def end_secret_command(
    *,
    secret_id: str,
    hint: str,
    unused_for: int | None,
    yes: bool,
    unit: str,
    actor: str,
    as_json: bool,
) -> None:
    """End one of two live client secrets immediately. HINT is its last four characters."""
    question = f"End the client secret {hint} of {secret_id}? `/verify` will refuse it immediately."
    confirm(lambda: question, yes=yes)
    with _service(_no_such(unit, secret_id)) as service:
        service.end_secret(_caller(unit, actor), secret_id, hint, unused_for=unused_for)
    print_done(
        f"Ended the client secret {hint} of {secret_id}.",
        as_json=as_json,
        done="ended",
        secret_id=secret_id,
        hint=hint,
    )


@main.command("finish-rotations")
@parameters.rotation_unused_for
@parameters.dry_run
@parameters.change
def finish_rotations_command(
    *, unused_for: int, dry_run: bool, unit: str, actor: str, as_json: bool
) -> None:
    """End each client secret of the unit that a rotation has replaced and nobody uses any more.

    Its successor has been used, and it has not been used for --unused-for seconds. Prints each that
    has ended. It asks for no confirmation, so that cron can run it.
    """
    from app.cli.schemas import FinishedRotationSchema

    caller = _caller(unit, actor)
    with _service() as service:
        finished = service.finished_rotations(caller, unused_for=unused_for)
        if not dry_run:
            finished = [
                each
                for each in finished
                if service.finish_rotation(caller, each, unused_for=unused_for)
            ]
    print_table(
        FinishedRotationSchema(),
        finished,
        as_json=as_json,
        if_empty=f"The unit {unit} has no rotation to finish.",
    )


@main.command("disable")
@parameters.one_or_all
@parameters.yes
@parameters.change
def disable_command(
    *,
    secret_id: str | None,
    all_of_unit: bool,
    yes: bool,
    unit: str,
    actor: str,
    as_json: bool,
) -> None:
    """Make `/verify` refuse a credential, or all of the unit, until it is enabled again.

    Only --all asks for confirmation.
    """
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    caller = _caller(unit, actor)
    with _service(_no_such(unit, secret_id)) as service:
        if secret_id is not None:
            service.update(caller, secret_id, CredentialChanges(enabled=False))
            _print_done("disabled", secret_id, as_json=as_json)
        else:
            confirm(
                lambda: f"Disable {_how_many(service.count(caller, enabled=True))} of {unit}?",
                yes=yes,
            )
            _change_all(service, service.disable_all, "disabled", caller, as_json=as_json)


@main.command("enable")
@parameters.one_or_all
@parameters.change
def enable_command(
    *, secret_id: str | None, all_of_unit: bool, unit: str, actor: str, as_json: bool
) -> None:
    """Make `/verify` accept a disabled credential again, or all that `disable --all` disabled."""
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    caller = _caller(unit, actor)
    with _service(_no_such(unit, secret_id)) as service:
        if secret_id is not None:
            service.update(caller, secret_id, CredentialChanges(enabled=True))
            _print_done("enabled", secret_id, as_json=as_json)
        else:
            _change_all(service, service.enable_all, "enabled", caller, as_json=as_json)


@main.command("revoke")
@parameters.one_or_all
@parameters.unused_for
@parameters.yes
@parameters.change
def revoke_command(
    *,
    secret_id: str | None,
    all_of_unit: bool,
    unused_for: int | None,
    yes: bool,
    unit: str,
    actor: str,
    as_json: bool,
) -> None:
    """End a credential, or all of the unit, and their client secrets immediately."""
    _require_one_or_all(secret_id, all_of_unit=all_of_unit)
    if all_of_unit and unused_for is not None:
        raise click.UsageError("--unused-for is for a single credential.")
    caller = _caller(unit, actor)
    with _service(_no_such(unit, secret_id)) as service:
        if secret_id is not None:
            confirm(lambda: _revoke_question(service, caller, secret_id), yes=yes)
            service.revoke(caller, secret_id, unused_for=unused_for)
            _print_done("revoked", secret_id, as_json=as_json)
        else:
            confirm(
                lambda: (
                    f"Revoke {_how_many(service.count(caller))} of {unit}? This cannot be undone."
                ),
                yes=yes,
            )
            _change_all(service, service.revoke_all, "revoked", caller, as_json=as_json)


@main.command("events")
@parameters.event_filter
@parameters.follow
@parameters.query
def events_command(*, follow: bool, unit: str, as_json: bool, **conditions: Any) -> None:
    """Show the unit's audit trail, newest first, or that of one credential.

    A trail outlives its credential. Each event must meet every condition.
    """
    from app.api.schemas.events import UnitEventSchema
    from app.cli.follow import follow_events

    caller = _caller(unit)
    only = EventFilter(**conditions)
    is_table_of_one = only.secret_id is not None and not as_json
    schema = UnitEventSchema(exclude=_SAME_IN_EACH_EVENT if is_table_of_one else ())
    no_such = f"The unit {unit} has never had a credential {only.secret_id}."
    with _service(no_such) as service:
        if follow:
            print_events(schema, follow_events(service, caller, only=only), as_json=as_json)
            return
        events = _all_pages(lambda position: service.unit_events(caller, only=only, after=position))
        if only.secret_id is not None and not events:
            service.events(caller, only.secret_id, limit=1)  # fails if it never existed
    print_table(
        schema,
        events,
        as_json=as_json,
        if_empty=f"The unit {unit} has no such events.",
    )


@main.group("token")
def token_group() -> None:
    """Check bearer tokens."""


@token_group.command("check")
@parameters.as_json
def token_check_command(*, as_json: bool) -> None:
    """Show what the service reads in a token, or why it refuses it (exit status 1).

    The token comes from standard input, or from a prompt. All settings of the service must be set.
    """
    from app.cli.token_check import check_token
    from app.settings import Settings

    token = read_secret("Token")
    with reported():
        check_token(token, Settings.from_environment(), as_json=as_json)


@main.command("reapply-revocations")
@parameters.trail
@parameters.backup_time
@parameters.actor
@parameters.as_json
def reapply_revocations_command(
    *, trail: BinaryIO, since: datetime | None, actor: str, as_json: bool
) -> None:
    """After a restore, apply the revocations since the backup again.

    It also disables credentials, ends client secrets, withdraws trust in consent, and sets the last
    scopes and addresses. TRAIL is a file of events as 'events --follow --json' prints them, of any
    units and oldest first, or as GET /secrets/events answers them. By default it is standard input.
    An incomplete last line is left out, and events of unknown kinds. Events from before the backup,
    and those that the restored trail has, are skipped. So you may give the whole trail, and more
    than once. Run it before the service starts, or give --since: otherwise new events hide when the
    backup was made.
    """
    from app.cli.reapply import TrailReader, summary
    from app.credentials.reapply import Reapply

    with _service() as service:
        reapplication = Reapply(
            service.database,
            service.bulkheads.management.seconds,
            lambda unit_id: _caller(unit_id, actor),
        )
        since = since or reapplication.find_backup_time()
        if since is None:
            raise click.UsageError(
                "The restored trail is empty. Say with --since when the backup was made."
            )
        reader = TrailReader()
        reapplied = reapplication.apply(reader.events(trail), since=since)
    click.echo(f"Events before {format_time(since)} were ignored.", err=True)
    for sentence in reader.report():
        click.echo(sentence, err=True)
    print_done(summary(reapplied), as_json=as_json, done="reapplied", **asdict(reapplied))


def _restrictions(
    *, scopes: tuple[str, ...], all_scopes: bool, addresses: tuple[str, ...], any_address: bool
) -> dict[str, Any]:
    """Return the restrictions that the options set or remove."""
    if (scopes and all_scopes) or (addresses and any_address):
        raise click.UsageError("Name the scopes or --all-scopes, the addresses or --any-address.")
    given: dict[str, Any] = {}
    if scopes or all_scopes:
        given["scopes"] = list(scopes) or None
    if addresses or any_address:
        given["addresses"] = list(addresses) or None
    return given


def _require_one_or_all(secret_id: str | None, *, all_of_unit: bool) -> None:
    if (secret_id is not None) == all_of_unit:
        raise click.UsageError("Name one credential, or give --all.")


def _revoke_question(service: CredentialService, caller: Caller, secret_id: str) -> str:
    credential = service.get(caller, secret_id)
    used = "never used"
    if credential.last_used_at is not None:
        used = f"last used at {format_time(credential.last_used_at)}"
    return f"Revoke {credential.name} ({credential.client_id}, {used})? This cannot be undone."


def _end_question(count: int) -> str:
    which = "the one live client secret" if count == 1 else f"all {count} live client secrets"
    return f"End {which}? `/verify` will refuse what has ended immediately."


def _how_many(count: int) -> str:
    return "the one credential" if count == 1 else f"all {count} credentials"


def _no_such(unit: str, secret_id: str | None) -> str:
    return f"The unit {unit} has no credential {secret_id}."


def _print_done(done: str, secret_id: str, *, as_json: bool) -> None:
    print_done(f"{done.capitalize()} {secret_id}.", as_json=as_json, done=done, secret_id=secret_id)


def _change_all(
    service: CredentialService,
    change: Callable[[Caller], int],
    done: str,
    caller: Caller,
    *,
    as_json: bool,
) -> None:
    """Change all credentials of the unit, and print how many were changed."""
    from app.credentials.management import UNIT_CHANGE_SECONDS
    from app.database.errors import DatabaseTooSlow

    unit = caller.unit_id
    tell_person(
        lambda: (
            f"The unit {unit} has {service.count(caller)} credentials. They change all at once, at "
            f"the end: at the latest in {UNIT_CHANGE_SECONDS / 60:.0f} minutes, or not at all."
        )
    )
    try:
        count = change(caller)
    except DatabaseTooSlow:
        raise Unavailable(
            f"Nothing was {done}: to change all credentials of {unit} took the database longer "
            f"than {UNIT_CHANGE_SECONDS:.0f} s."
        ) from None
    credentials = "credential" if count == 1 else "credentials"
    print_done(
        f"{done.capitalize()} {count} {credentials} of {unit}.",
        as_json=as_json,
        done=done,
        count=count,
    )


@contextmanager
def _service(no_such: str = "") -> Iterator[CredentialService]:
    """Lend the service as `_domain` does. `no_such` is the message for a missing credential."""
    with _domain(no_such) as domain:
        yield domain.credentials


@contextmanager
def _domain(no_such: str = "") -> Iterator[Domain]:
    """Lend the domain. A failure ends the command with a message and an exit status.

    The background writer stays closed, so that a check by an operator does not count as a use.
    """
    from app.database.pool import Database
    from app.domain import Domain
    from app.settings import CredentialSettings

    with reported(no_such=no_such):
        settings = CredentialSettings.from_environment()
        database = Database(settings.database_url, connections=1)
        try:
            database.check()
            database.open(wait_seconds=_CONNECT_SECONDS)
            yield Domain.from_settings(settings, database, _bulkheads())
        finally:
            database.close()


def _bulkheads() -> Bulkheads:
    """Return bulkheads that outwait `statement_timeout`: an error then says that it was slow."""
    from app.database.pool import STATEMENT_SECONDS

    bulkheads = Bulkheads.for_verifiers(1)
    patient = replace(bulkheads.management, seconds=STATEMENT_SECONDS + 1.0)
    return replace(bulkheads, management=patient, public=patient)


def _all_pages(read_page: Callable[[Position | None], Page[Item, Position]]) -> list[Item]:
    items: list[Item] = []
    position: Position | None = None
    while True:
        page = read_page(position)
        items += page.items
        position = page.next
        if position is None:
            return items


def _caller(unit_id: str, actor: str | None = None) -> Caller:
    actor = actor or parameters.default_actor()
    return Caller(
        actor=actor, unit_id=unit_id, request_id=new_request_id(), via="cli", address=None
    )
