"""The output of commands: tables for people, JSON for scripts."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from marshmallow import Schema
from tabulate import tabulate

from app.api.schemas.credentials import DetailedCredentialSchema, IssuedCredentialSchema
from app.credentials.model import DetailedCredential, IssuedCredential, UnitEvent


def print_table(schema: Schema, items: Sequence[Any], *, as_json: bool, if_empty: str) -> None:
    """Print a line for each item, or a JSON array as the API returns it."""
    rows = schema.dump(items, many=True)
    if as_json:
        _print_json(rows)
        return
    if not rows:
        click.echo(if_empty, err=True)
        return
    _print_rows(rows)


def print_credential(credential: DetailedCredential, *, as_json: bool) -> None:
    """Print a credential, and below it a line for each of its live client secrets."""
    record = DetailedCredentialSchema().dump(credential)
    if as_json:
        _print_json(record)
        return
    secrets = record.pop("secrets")
    print_fields(record, as_json=False)
    click.echo()
    if secrets:
        _print_rows(secrets)
    else:
        click.echo("All its client secrets have expired.")


def print_record(schema: Schema, item: Any, *, as_json: bool) -> None:
    """Print a line for each field, or a JSON object as the API returns it."""
    print_fields(schema.dump(item), as_json=as_json)


def print_fields(record: dict[str, Any], *, as_json: bool) -> None:
    """Print a line for each field, or a JSON object."""
    if as_json:
        _print_json(record)
        return
    table = [[name, _cell(value)] for name, value in record.items()]
    click.echo(tabulate(table, tablefmt="plain", disable_numparse=True))


def print_done(text: str, *, as_json: bool, **record: Any) -> None:
    """Print what a command has done: a line, or a JSON object."""
    if as_json:
        _print_json(record)
    else:
        click.echo(text)


def print_issued(issued: IssuedCredential, *, as_json: bool, is_kept: bool) -> None:
    """Print the credential, with its client secret unless that is kept in a file."""
    schema = IssuedCredentialSchema(exclude=("client_secret",) if is_kept else ())
    print_record(schema, issued, as_json=as_json)


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
        try:
            os.write(descriptor, f"{issued.client_secret}\n".encode())
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
            click.echo(text)  # flushes
    except BrokenPipeError:
        # so that Python does not try to flush to the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    table = [[_cell(value) for value in row.values()] for row in rows]
    click.echo(tabulate(table, headers=list(rows[0]), disable_numparse=True))


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value))


def _cell(value: Any) -> str:
    """Return a value as JSON, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
