"""Read a copy of the trail, from `credentials events --follow --json` or from a SIEM."""

import json
from collections.abc import Iterable
from typing import Any, cast

import click

from app.credentials.model import EVENT_NAMES, EventName
from app.credentials.reapplying import PastEvent, Reapplied
from app.times import parse_time


def read_trail(lines: Iterable[str]) -> list[PastEvent]:
    """Return the events, one for each line. Raises click.ClickException for an invalid line."""
    return [_event(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def summary(done: Reapplied) -> str:
    """Return in one line what was applied again, and how many credentials are missing."""
    text = (
        f"revoked {done.revoked}, disabled {done.disabled}, "
        f"ended {done.secrets_ended} client secrets, distrusted {done.distrusted}"
    )
    if done.missing:
        text += f"; {done.missing} credentials of the trail are not in this database"
    return text


def _event(number: int, line: str) -> PastEvent:
    try:
        return _parsed(json.loads(line))
    except (KeyError, TypeError, ValueError):
        raise click.ClickException(
            f"Line {number} is not an event. Each line must be a JSON object, as "
            "'credentials events --follow --json' prints them."
        ) from None


def _parsed(record: Any) -> PastEvent:
    """Return the event. Unknown members are ignored. Raises KeyError, TypeError or ValueError."""
    texts = {name: record[name] for name in ("secret_id", "event", "actor", "at", "request_id")}
    detail = record["detail"]
    if not all(isinstance(each, str) for each in texts.values()) or not isinstance(detail, dict):
        raise TypeError
    if texts["event"] not in EVENT_NAMES:
        raise ValueError
    return PastEvent(
        secret_id=texts["secret_id"],
        event=cast("EventName", texts["event"]),
        actor=texts["actor"],
        at=parse_time(texts["at"]),
        request_id=texts["request_id"],
        detail=detail,
    )
