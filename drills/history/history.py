"""A history: what clients asked and saw, what was done to the servers, and what was stored.

All times are seconds of this machine's monotonic clock. A history is kept as JSON lines, one record
a line. It has no client secret: each is known by its fingerprint and its last four characters.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self, TextIO

# "ok" and "refused" are answers. "unknown": 503, a broken connection or a failed command, so a
# change may or may not have been made. "wrong": no answer that the contract allows.
Outcome = Literal["ok", "refused", "unknown", "wrong"]


def fingerprint(client_secret: str) -> str:
    """Return what stands for the client secret in a history."""
    return sha256(client_secret.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Operation:
    """One attempt of a client. `request_id` is unique; for a command it is its actor."""

    number: int
    client: str
    verb: str
    unit: str
    secret_id: str | None
    request_id: str
    asked: dict[str, Any]
    invoked: float
    returned: float
    outcome: Outcome
    status: int
    answer: dict[str, Any]
    port: int = 0  # of the instance; 0 for a command


@dataclass(frozen=True)
class Fault:
    """What the nemesis did, from its begin until the service was ready again."""

    kind: str
    began: float
    healed: float


@dataclass(frozen=True)
class Page:
    """A page of a unit's ascending trail, as a follower got it."""

    follower: str
    unit: str
    invoked: float
    returned: float
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Count:
    """How many credentials a unit had at a moment, read from the database."""

    unit: str
    at: float
    credentials: int


@dataclass(frozen=True)
class Event:
    """An event of the stored trail."""

    event_id: int
    transaction_id: int
    unit: str
    secret_id: str
    client_id: str
    name: str
    event: str
    actor: str
    via: str
    request_id: str
    at: float
    detail: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A credential as stored at the end. `hints` are those of its live client secrets."""

    secret_id: str
    unit: str
    client_id: str
    name: str
    trust: bool
    enabled: bool
    with_unit: bool
    hints: list[str]
    at: float


@dataclass(frozen=True)
class Settings:
    """How the history was made. `slack` is how far the clocks were apart, in seconds."""

    seed: int
    quota: int | None
    slack: float


Record = Settings | Operation | Fault | Page | Count | Event | Stored
_KINDS: dict[str, type[Record]] = {
    kind.__name__.lower(): kind for kind in (Settings, Operation, Fault, Page, Count, Event, Stored)
}


@dataclass
class History:
    """All records of one run, by kind."""

    settings: Settings = field(default_factory=lambda: Settings(0, None, 0.0))
    operations: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # in the order of their `event_id`
    stored: list[Stored] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        history = cls()
        for record in records:
            history.add(record)
        return history

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the JSON lines of a recorder."""
        with file.open() as lines:
            return cls.of(_parse(line) for line in lines)

    def add(self, record: Record) -> None:
        if isinstance(record, Settings):
            self.settings = record
        else:
            self._list_of(record).append(record)

    def records(self) -> list[Record]:
        """Return all records, as a recorder would write them."""
        return [
            self.settings, *self.operations, *self.faults, *self.pages, *self.counts, *self.events,
            *self.stored,
        ]  # fmt: skip

    def _list_of(self, record: Record) -> list[Any]:
        lists = {
            Operation: self.operations,
            Fault: self.faults,
            Page: self.pages,
            Count: self.counts,
            Event: self.events,
            Stored: self.stored,
        }
        return lists[type(record)]


class Recorder:
    """Writes records to a file, from any thread."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = file.open("w")
        self._lock = Lock()

    def add(self, record: Record) -> None:
        line = line_of(record)
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        self._file.close()


def line_of(record: Record) -> str:
    """Return the record as a line of JSON."""
    members = {"type": type(record).__name__.lower(), **asdict(record)}
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False) + "\n"


def _parse(line: str) -> Record:
    members = json.loads(line)
    return _KINDS[members.pop("type")](**members)
