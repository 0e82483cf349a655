"""The arguments and options of commands."""

import getpass
import os
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from app.addresses import canonical_address
from app.credentials.errors import InvalidName
from app.credentials.generator import is_client_id
from app.credentials.model import (
    DEFAULT_OVERLAP_SECONDS,
    EVENT_NAMES,
    MAX_OVERLAP_SECONDS,
    MAX_UNUSED_SECONDS,
    MIN_UNUSED_SECONDS,
    parse_name,
)
from app.identifiers import (
    IDEMPOTENCY_KEY_PATTERN,
    IDEMPOTENCY_KEY_RULE,
    IDENTIFIER_RULE,
    is_identifier,
)
from app.times import TIME_RULE, parse_time

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
            self.fail(f"Must be {IDENTIFIER_RULE}", param, ctx)
        return value


class _ClientId(click.ParamType[str]):
    name = "client id"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if not is_client_id(value):
            self.fail("Must be a client ID: lv_ci_ and 20 characters.", param, ctx)
        return value


class _IdempotencyKey(click.ParamType[str]):
    name = "key"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if not re.fullmatch(IDEMPOTENCY_KEY_PATTERN, value):
            self.fail(f"Must be {IDEMPOTENCY_KEY_RULE}", param, ctx)
        return value


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        try:
            return parse_time(value)
        except ValueError:
            self.fail(f"Must be {TIME_RULE}", param, ctx)


class _Address(click.ParamType[str]):
    name = "address"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        address = canonical_address(value)
        if address is None:
            self.fail("Must be an IP address", param, ctx)
        return address


def default_actor() -> str:
    """Return `cli:<user name>`, the actor in the audit trail unless --actor names another."""
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


_unit = click.option(
    "--unit",
    type=_Identifier(),
    required=True,
    envvar="LEADVIBE_UNIT",
    show_envvar=True,
    help="The Organizational Unit.",
)
_actor = click.option(
    "--actor",
    type=_Identifier(),
    default=default_actor,
    show_default="cli:<your user name>",
    help="The actor to record in the audit trail.",
)

name = click.argument("name", type=_Name())
secret_id = click.argument("secret_id", type=_Identifier())
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API does.")
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
end = click.option("--end", is_flag=True, help="End those that are live. Their credentials stay.")
output = click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the client secret to this new file, which only you may read, and do not print it.",
)
overlap_seconds = click.option(
    "--overlap-seconds",
    type=click.IntRange(0, MAX_OVERLAP_SECONDS),
    default=DEFAULT_OVERLAP_SECONDS,
    show_default=True,
    help="How many seconds the previous client secret keeps working.",
)
_unused_for = partial(
    click.option,
    "--unused-for",
    type=click.IntRange(MIN_UNUSED_SECONDS, MAX_UNUSED_SECONDS),
)
unused_for = _unused_for(
    help="Only if it has not been used, and got no client secret, for this many seconds."
)
secret_unused_for = _unused_for(
    help="Only if it has not been used for this many seconds, and is older."
)
rotation_unused_for = _unused_for(
    required=True, help="End what has not been used for this many seconds."
)
dry_run = click.option("--dry-run", is_flag=True, help="Print what would end, and end nothing.")
expires_at = click.option(
    "--expires-at",
    type=_Time(),
    help="When the new client secret expires. Default: never, or after MAX_SECRET_DAYS.",
)
idempotency_key = click.option(
    "--idempotency-key",
    type=_IdempotencyKey(),
    help="A key of your choice. If the output is lost, the same command with the same key prints "
    "it again, and changes nothing else.",
)
client_id = click.argument("client_id", type=_ClientId())
hint = click.argument("hint")
changes = _options(
    click.option("--name", type=_Name(), help="The new name."),
    click.option(
        "--trust-upstream-consent/--distrust-upstream-consent",
        default=None,
        help="Whether to trust the consent status sent along with events.",
    ),
)
restrictions = _options(
    click.option(
        "--scope",
        "scopes",
        multiple=True,
        help="What it may do: one of SCOPES. Repeat it for several.",
    ),
    click.option("--all-scopes", is_flag=True, help="It may do everything."),
    click.option(
        "--address",
        "addresses",
        multiple=True,
        help="Where it may be used from: an IP address or a network. Repeat it for several.",
    ),
    click.option("--any-address", is_flag=True, help="It may be used from everywhere."),
)
one_or_all = _options(
    click.argument("secret_id", type=_Identifier(), required=False),
    click.option("--all", "all_of_unit", is_flag=True, help="All credentials of the unit."),
)
credential_filter = _options(
    click.option("--client-id", type=_ClientId(), help="Only the one with this client ID."),
    click.option("--name", type=_Name(), help="Only those with this text in their name."),
    click.option(
        "--enabled/--disabled", default=None, help="Only enabled, or only disabled, credentials."
    ),
    click.option(
        "--expiring-before",
        type=_Time(),
        help="Only those that will have no live client secret by then.",
    ),
    click.option(
        "--unused-since",
        type=_Time(),
        help="Only those that were not used, and got no client secret, since then.",
    ),
    click.option(
        "--refused-since",
        type=_Time(),
        help="Only those of which a sender was last refused then or later.",
    ),
    click.option(
        "--unrestricted/--restricted", default=None, help="Only those without, or with, scopes."
    ),
)
question = _options(
    click.option("--scope", help="Ask for this scope, as /verify/SCOPE does."),
    click.option("--address", type=_Address(), help="Ask as if the sender had this address."),
)
event_filter = _options(
    click.argument("secret_id", type=_Identifier(), required=False),
    click.option("--event", type=click.Choice(EVENT_NAMES), help="Only events of this kind."),
    click.option("--only-actor", "actor", type=_Identifier(), help="Only what this actor did."),
    click.option("--since", type=_Time(), help="Only events from this time on."),
    click.option("--until", type=_Time(), help="Only events before this time."),
)
follow = click.option(
    "--follow", is_flag=True, help="Print events as they happen, oldest first, until stopped."
)
query = _options(_unit, as_json)
change = _options(_unit, _actor, as_json)
actor = _options(_actor)
trail = click.argument("trail", type=click.File("rb"), default="-")
backup_time = click.option(
    "--since",
    type=_Time(),
    show_default="a minute before the newest event of the restored trail",
    help="When the backup was made. Older events are ignored.",
)
