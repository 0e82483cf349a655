"""Read a copy of the trail, from `credentials events --follow --json` or from a SIEM."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import click

from app.credentials.model import EVENT_NAMES, MAX_OVERLAP_SECONDS, EventName
from app.credentials.reapply import Summary, TrailEvent
from app.identifiers import is_identifier
from app.times import parse_time

# An overlap after a later event would end beyond Python's last year.
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(seconds=MAX_OVERLAP_SECONDS)

_ORIGINAL = ("event", "actor", "at", "request_id")  # what identifies an event of a credential


def read_trail(lines: Iterable[bytes]) -> Iterator[TrailEvent]:
    """Yield the events, one for each line. Raises click.ClickException for an invalid line."""
    return (_event(number, line) for number, line in enumerate(lines, 1) if line.strip())


def summary(done: Summary) -> str:
    """Return in one line what was applied again, and how many credentials are missing."""
    text = (
        f"revoked {done.revoked}, disabled {done.disabled}, "
        f"ended {done.secrets_ended} client secrets, distrusted {done.distrusted}"
    )
    if done.missing:
        text += f"; {done.missing} credentials of the trail are not in this database"
    return text


def _event(number: int, line: bytes) -> TrailEvent:
    try:
        return _parsed(json.loads(line.decode()))
    except (KeyError, TypeError, ValueError, RecursionError):  # also UnicodeDecodeError
        raise click.ClickException(
            f"Line {number} is not an event. Each line must be a JSON object, as "
            "'credentials events --follow --json' prints them."
        ) from None


def _parsed(record: Any) -> TrailEvent:
    """Return the event. Unknown members are ignored. Raises KeyError, TypeError or ValueError."""
    texts = _texts(record, ("secret_id", *_ORIGINAL))
    detail = record["detail"]
    if not isinstance(detail, dict):
        raise TypeError
    at, overlap = parse_time(texts["at"]), detail.get("overlap_seconds", 0)
    if at > _LATEST or not (isinstance(overlap, int) and 0 <= overlap <= MAX_OVERLAP_SECONDS):
        raise ValueError
    if "reapplied" in detail:
        parse_time(_texts(detail["reapplied"], _ORIGINAL)["at"])
    if texts["event"] == "secret_ended" and "expires_at" in detail:
        parse_time(detail["expires_at"])
    return TrailEvent(
        secret_id=texts["secret_id"],
        event=cast("EventName", texts["event"]),
        actor=texts["actor"],
        at=at,
        request_id=texts["request_id"],
        detail=detail,
    )


def _texts(record: Any, names: Iterable[str]) -> dict[str, str]:
    """Return these members. Raises KeyError, TypeError or ValueError unless all are identifiers."""
    texts = {name: record[name] for name in names}
    if not all(isinstance(each, str) for each in texts.values()):
        raise TypeError
    if texts["event"] not in EVENT_NAMES or not all(map(is_identifier, texts.values())):
        raise ValueError
    return texts
