"""The output of commands: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from app.credentials.generator import hint_of, is_client_secret
from app.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from marshmallow import Schema

    from app.credentials.model import (
        DetailedCredential,
        EndedSecret,
        FoundSecret,
        IssuedCredential,
        UnitEvent,
    )


_LEAKED_FIELDS = (
    "hint", "status", "unit_id", "secret_id", "client_id", "name",
    "last_used_at", "last_used_from", "ended_at",
)  # fmt: skip
_LEAKED_STATUSES = {"not_live": "no live client secret", "malformed": "not a client secret"}


def allow_all_characters() -> None:
    """Print a character that standard output cannot encode as its number in hexadecimal.

    Python would raise an error: after the work, and before the client secret is printed.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_table(schema: Schema, items: Sequence[Any], *, as_json: bool, if_empty: str) -> None:
    """Print a line for each item, or a JSON array as the API returns it."""
    rows = schema.dump(items, many=True)
    if as_json:
        _print(json.dumps(rows))
        return
    if not rows:
        click.echo(if_empty, err=True)
        return
    _print(_table_of(rows))


def print_credentials(
    credentials: Sequence[DetailedCredential], *, as_json: bool, if_empty: str
) -> None:
    """Print a line for each credential with its state, or the JSON array of the detailed list."""
    from app.api.schemas.credentials import CredentialSchema, DetailedCredentialSchema

    if as_json or not credentials:
        print_table(DetailedCredentialSchema(), credentials, as_json=as_json, if_empty=if_empty)
        return
    rows = []
    for each in credentials:
        expiries = [secret.expires_at for secret in each.secrets if secret.expires_at]
        times = {
            "disabled_at": each.disabled_at,
            "last_used_at": each.last_used_at,
            "next_expiry": min(expiries, default=None),
        }
        state = {name: time and format_time(time) for name, time in times.items()}
        rows.append(CredentialSchema().dump(each) | state)
    _print(_table_of(rows))


def print_credential(credential: DetailedCredential, *, as_json: bool) -> None:
    """Print a credential, and below it a line for each of its live client secrets."""
    from app.api.schemas.credentials import DetailedCredentialSchema

    record = DetailedCredentialSchema().dump(credential)
    if as_json:
        _print(json.dumps(record))
        return
    secrets = record.pop("secrets")
    below = _table_of(secrets) if secrets else "All its client secrets have expired."
    _print(f"{_lines_of(record)}\n\n{below}")


def print_record(schema: Schema, item: Any, *, as_json: bool) -> None:
    """Print a line for each field, or a JSON object as the API returns it."""
    print_fields(schema.dump(item), as_json=as_json)


def print_fields(record: dict[str, Any], *, as_json: bool) -> None:
    """Print a line for each field, or a JSON object."""
    _print(json.dumps(record) if as_json else _lines_of(record))


def print_done(text: str, *, as_json: bool, **record: Any) -> None:
    """Print what a command has done: a line, or a JSON object."""
    _print(
        json.dumps(record) if as_json else text,
        if_lost=f"The command has done its work: {text}",
    )


def leaked_record(
    client_secret: str, found: FoundSecret | None, gone: EndedSecret | None, *, ended: set[int]
) -> dict[str, Any]:
    """Return what to print about a client secret that may have leaked, without the secret itself.

    Its status is `live`, `ended` (now or before), `not_live` or `malformed`.
    """
    is_valid = is_client_secret(client_secret)
    known = {
        name: getattr(each, name)
        for each in (found, gone)
        for name in _LEAKED_FIELDS
        if hasattr(each, name)
    }
    record: dict[str, Any] = dict.fromkeys(_LEAKED_FIELDS) | known
    for name in ("last_used_at", "ended_at"):
        if record[name] is not None:
            record[name] = format_time(record[name])
    if gone is not None or (found is not None and found.client_secret_id in ended):
        record["status"] = "ended"
    elif found is not None:
        record["status"] = "live"
    else:
        record["status"] = "not_live" if is_valid else "malformed"
    record["hint"] = hint_of(client_secret) if is_valid else None
    return record


def print_leaked(records: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print a line for each client secret, in the order in which they were given."""
    if as_json:
        _print(json.dumps(records))
        return
    for each in records:
        each["status"] = _LEAKED_STATUSES.get(each["status"], each["status"])
        if ended_at := each.pop("ended_at"):
            each["status"] = f"ended on {ended_at}"
    _print(_table_of([{name: value or "" for name, value in each.items()} for each in records]))


def print_issued(
    issued: IssuedCredential, *, as_json: bool, is_kept: bool, is_repeatable: bool, overlaps: bool
) -> None:
    """Print the credential, with its client secret unless that is kept in a file.

    If the output is lost, the message says how to get the client secret again (`is_repeatable`: by
    its Idempotency-Key), or another one (`overlaps`: a previous one is live too).
    """
    from app.api.schemas.credentials import IssuedCredentialSchema

    schema = IssuedCredentialSchema(exclude=("client_secret",) if is_kept else ())
    record = schema.dump(issued)
    secret_id, hint = issued.secret_id, hint_of(issued.client_secret)
    if is_kept:
        if_lost = f"The client secret of {secret_id} is in the file."
    elif is_repeatable:
        if_lost = f"Run the same command again: it prints the client secret {hint} of {secret_id}."
    elif overlaps:
        if_lost = (
            f"The client secret {hint} is lost. End it (`credentials end-secret {secret_id} "
            f"{hint}`), then rotate again."
        )
    else:
        if_lost = f"The client secret {hint} is lost. Rotate {secret_id} to get another one."
    _print(json.dumps(record) if as_json else _lines_of(record), if_lost=if_lost)


@contextmanager
def secret_file(path: Path | None) -> Iterator[Callable[[IssuedCredential], None]]:
    """Create a file for a client secret, and lend a function that writes to it.

    Only the user may read it. It is created before the client secret, so that none is lost because
    the file cannot be written. Without a path, the function does nothing.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{path} exists already, and is not overwritten.") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}.") from None

    def keep(issued: IssuedCredential) -> None:
        unwritten = f"{issued.client_secret}\n".encode()
        try:
            while unwritten:  # a disk may take only a part, and a network disk fails only at fsync
                unwritten = unwritten[os.write(descriptor, unwritten) :]
            os.fsync(descriptor)
        except OSError as error:
            raise click.ClickException(
                f"The client secret was not written: {error.strerror}. "
                f"Rotate {issued.secret_id} to get another one."
            ) from None

    try:
        yield keep
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def print_events(schema: Schema, events: Iterable[UnitEvent], *, as_json: bool) -> None:
    """Print a line for each event as soon as it comes, until the reader closes the pipe."""
    try:
        for event in events:
            record = schema.dump(event)
            text = json.dumps(record) if as_json else "  ".join(map(_cell, record.values()))
            _print(text)
    except BrokenPipeError:
        _discard_output()


def _print(text: str, *, if_lost: str = "") -> None:
    """Print the text, or end the command with 1. `if_lost` tells what the command has done.

    Without `if_lost`, a reader that closes the pipe ends the command quietly, as click does it.
    """
    try:
        click.echo(text)  # flushes
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not if_lost:
            raise
        _discard_output()
        raise click.ClickException(
            f"Standard output cannot be written: {error.strerror}. {if_lost}".rstrip()
        ) from None


def _discard_output() -> None:
    """Make standard output accept everything, so that Python's flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table_of(rows: Sequence[dict[str, Any]]) -> str:
    from tabulate import tabulate

    table = [[_cell(value) for value in row.values()] for row in rows]
    return tabulate(table, headers=list(rows[0]), disable_numparse=True)


def _lines_of(record: dict[str, Any]) -> str:
    from tabulate import tabulate

    table = [[name, _cell(value)] for name, value in record.items()]
    return tabulate(table, tablefmt="plain", disable_numparse=True)


def _cell(value: Any) -> str:
    """Return a value as JSON, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
