"""What commands print: tables for people, JSON for scripts."""

import json
from collections.abc import Sequence
from typing import Any

import click
from marshmallow import Schema
from tabulate import tabulate


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


def _cell(value: Any) -> str:
    """Show a value as JSON does, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
