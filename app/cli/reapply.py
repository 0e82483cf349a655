"""Read a copy of the trail, from `credentials events --follow --json`, a SIEM or the API."""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import click

from app.credentials.model import EVENT_NAMES, MAX_OVERLAP_SECONDS, RESTRICTIONS, EventName
from app.credentials.reapply import Summary, TrailEvent
from app.credentials.restrictions import require_restriction
from app.identifiers import is_identifier
from app.times import parse_time

# An overlap after a later event would end beyond Python's last year.
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(seconds=MAX_OVERLAP_SECONDS)

_INVALID = (KeyError, TypeError, ValueError, RecursionError)  # also UnicodeDecodeError

_ORIGINAL = ("event", "actor", "at", "request_id")  # what identifies an event of a credential


@dataclass(slots=True)
class TrailReader:
    """Reads events, and counts what it leaves out: it must not stop at night for these.

    `unknown` are events of other kinds: a later version may have written them. `cut` is 1 if the
    last line has no end: its follower was killed, or the disk was full.
    """

    unknown: int = 0
    cut: int = 0

    def events(self, file: Iterable[bytes]) -> Iterator[TrailEvent]:
        """Yield the events, oldest first: one for each line, or those in JSON arrays.

        Raises click.ClickException for anything else.
        """
        numbered = enumerate((line.removeprefix(BOM_UTF8) for line in file), 1)
        lines = ((number, line) for number, line in numbered if line.strip())
        has_read = False
        for number, line in lines:
            if not has_read and line.lstrip().startswith(b"["):
                yield from self._in_arrays(b"".join([line, *(rest for _, rest in lines)]))
                return
            try:
                event = self._event(json.loads(line.decode()))
            except _INVALID:
                if has_read and not line.endswith(b"\n"):
                    self.cut = 1
                    return
                raise click.ClickException(
                    f"Line {number} is not an event. Each line must be a JSON object, as "
                    "'credentials events --follow --json' prints them."
                ) from None
            has_read = True
            if event is not None:
                yield event

    def report(self) -> Iterator[str]:
        """Yield a sentence about each kind of what was left out."""
        if self.unknown:
            events = "event" if self.unknown == 1 else "events"
            yield f"Left out {self.unknown} {events} of a kind that this version does not know."
        if self.cut:
            yield "Left out the last line, which is incomplete."

    def _in_arrays(self, content: bytes) -> Iterator[TrailEvent]:
        """Yield the events of the pages of `GET /secrets/events`, in either order."""
        try:
            events = [self._event(record) for record in _records(content.decode())]
        except _INVALID:
            raise click.ClickException(
                "The file is not a list of events, as `GET /secrets/events` answers it."
            ) from None
        known = [each for each in events if each is not None]
        is_ascending = bool(known) and known[0].at < known[-1].at
        return iter(known if is_ascending else known[::-1])  # the API's default is newest first

    def _event(self, record: Any) -> TrailEvent | None:
        """Return the event, or None if its kind is unknown. Raises one of _INVALID."""
        if isinstance(record["event"], str) and record["event"] not in EVENT_NAMES:
            self.unknown += 1
            return None
        return _parsed(record)


def summary(done: Summary) -> str:
    """Return in one line what was applied again, and how many credentials are missing."""
    text = (
        f"revoked {done.revoked}, disabled {done.disabled}, "
        f"ended {done.secrets_ended} client secrets, distrusted {done.distrusted}, "
        f"restricted {done.restricted}"
    )
    if done.missing:
        text += f"; {done.missing} credentials of the trail are not in this database"
    return text


def _records(text: str) -> Iterator[Any]:
    """Yield the members of one JSON array after the other."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        records, end = decoder.raw_decode(rest)
        if not isinstance(records, list):
            raise TypeError
        yield from records
        rest = rest[end:].lstrip()


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
    if texts["event"] == "updated":
        for member in detail.keys() & RESTRICTIONS:
            if (restriction := detail[member]["to"]) is not None:
                require_restriction(member, restriction)
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
