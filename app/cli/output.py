"""What commands print: tables for people, JSON for scripts."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from marshmallow import Schema
from tabulate import tabulate

from app.api.schemas.events import UnitEventSchema
from app.credentials.model import UnitEvent


def print_table(schema: Schema, items: Sequence[Any], *, as_json: bool) -> None:
    """Print a line for each item, or a JSON array as the API returns it."""
    rows = schema.dump(items)
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = [[_cell(value) for value in row.values()] for row in rows]
    click.echo(tabulate(table, headers=list(schema.fields), disable_numparse=True))


def print_record(schema: Schema, item: Any, *, as_json: bool) -> None:
    """Print a line for each field, or a JSON object as the API returns it."""
    record = schema.dump(item)
    if as_json:
        click.echo(json.dumps(record))
        return
    table = [[name, _cell(value)] for name, value in record.items()]
    click.echo(tabulate(table, tablefmt="plain", disable_numparse=True))


def print_events(events: Iterable[UnitEvent], *, as_json: bool) -> None:
    """Print a line for each event as soon as it comes, until nobody reads any more."""
    schema = UnitEventSchema()
    try:
        for event in events:
            record = schema.dump(event)
            text = json.dumps(record) if as_json else "  ".join(map(_cell, record.values()))
            click.echo(text)  # flushes
    except BrokenPipeError:
        # so that Python does not try to flush what cannot be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cell(value: Any) -> str:
    """Show a value as JSON does, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
