"""What commands take: their arguments and options."""

import getpass
import os
from collections.abc import Callable
from typing import Any

import click

from app.credentials.errors import InvalidName
from app.credentials.model import parse_name
from app.credentials.service import DEFAULT_OVERLAP_SECONDS, MAX_OVERLAP_SECONDS
from app.identifiers import is_identifier

Command = Callable[..., None]


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
            self.fail("Must be 1-255 characters, without control characters", param, ctx)
        return value


def default_actor() -> str:
    """Return `cli:<user name>`, which the audit trail records unless told otherwise."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have only a number
        return f"cli:uid-{os.getuid()}"


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_unit = click.option("--unit", type=_Identifier(), required=True, help="The Organizational Unit.")
_actor = click.option(
    "--actor",
    type=_Identifier(),
    default=default_actor,
    show_default="cli:<your user name>",
    help="Who did it, according to the audit trail.",
)

name = click.argument("name", type=_Name())
secret_id = click.argument("secret_id", type=_Identifier())
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API does.")
overlap_seconds = click.option(
    "--overlap-seconds",
    type=click.IntRange(0, MAX_OVERLAP_SECONDS),
    default=DEFAULT_OVERLAP_SECONDS,
    show_default=True,
    help="How many seconds the previous client secret keeps working.",
)
query = _options(_unit, as_json)
change = _options(_unit, _actor)
