"""Places for work, so that no kind of work can starve another (ADR 10)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Self

_MANAGERS = 2
_WAITING_MANAGERS = 14

VERIFICATION_PATIENCE = 0.05
_BACKGROUND_PATIENCE = 4.0

_BLINK_SECONDS = 0.005

_ANY = 1_000_000  # waiters: as many as there are threads


class NoPlace(Exception):
    """No place is free for this kind of work. A later attempt may succeed."""


class Places:
    """So many places for one kind of work, and a waiting room: a bulkhead.

    If all places are taken, a caller waits for at most `patience` seconds, and `waiting` callers at
    most. If no place has been given back for that long, the work is stuck: nobody waits any more,
    but for a blink, in case it was the process that had no processor. So a busy moment costs a
    short wait, and work that is stuck takes no threads from other kinds.

    `taken`, `waited` and `refused` count callers since the beginning.
    """

    def __init__(self, count: int, *, patience: float, waiting: int) -> None:
        self.count = count
        self.taken = self.waited = self.refused = 0
        self._free = count
        self._patience = patience
        self._room = waiting
        self._queue: deque[Lock] = deque()
        self._moved_at = monotonic()
        self._lock = Lock()

    def take(self) -> Self:
        """Hold a place, in a `with` statement. Raises NoPlace."""
        return self

    def __enter__(self) -> None:
        with self._lock:
            turn = self._enter()
        if turn is not None:
            self._wait(turn)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._pass_on()

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return len(self._queue)

    @property
    def in_use(self) -> int:
        """How many places are taken now."""
        return self.count - self._free

    def _enter(self) -> Lock | None:
        """Take a free place, or join the queue and return what is released when it is our turn."""
        if self._free > 0:
            self._free -= 1
            self.taken += 1
            self._moved_at = monotonic()
            return None
        if len(self._queue) >= self._room:
            self.refused += 1
            raise NoPlace
        self.waited += 1
        turn = Lock()
        turn.acquire()
        self._queue.append(turn)
        return turn

    def _wait(self, turn: Lock) -> None:
        patience = max(_BLINK_SECONDS, self._moved_at + self._patience - monotonic())
        if turn.acquire(timeout=patience):
            return
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
                self.refused += 1
                raise NoPlace

    def _pass_on(self) -> None:
        """Hand the place to the caller who has waited longest, or leave it free."""
        self._moved_at = monotonic()
        if self._queue:
            self.taken += 1
            self._queue.popleft().release()
        else:
            self._free += 1


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work: its places, and for how many seconds it may use the database."""

    places: Places
    seconds: float


@dataclass(frozen=True, slots=True)
class Workload:
    """All kinds of work of a process, each with its own places, connections and deadlines."""

    verification: Work
    management: Work
    hashing: Places
    key_fetch: Places
    background: Work
    verification_threads: int
    management_threads: int
    other_threads: int  # probes and the docs page
    connections: int

    @classmethod
    def for_verifiers(cls, verifiers: int) -> Self:
        """Plan a process in which so many threads verify at once.

        Each kind has a thread for every place and every seat in its waiting room, and one more,
        which refuses callers at once when all others are stuck.
        """
        return cls(
            verification=Work(
                Places(verifiers, patience=VERIFICATION_PATIENCE, waiting=_ANY), seconds=0.8
            ),
            # with both waits, the hash and the database, a change is answered within five seconds
            management=Work(
                Places(_MANAGERS, patience=0.5, waiting=_WAITING_MANAGERS), seconds=2.5
            ),
            # one keeps a core busy; whoever waits for it has a management place
            hashing=Places(1, patience=1.0, waiting=_ANY),
            key_fetch=Places(1, patience=0, waiting=0),
            # long enough for whoever has the place: nothing that was remembered may be lost
            background=Work(Places(1, patience=_BACKGROUND_PATIENCE, waiting=_ANY), seconds=3.0),
            verification_threads=verifiers + 1,
            management_threads=_MANAGERS + _WAITING_MANAGERS + 1,
            other_threads=2,
            connections=verifiers + _MANAGERS + 1,
        )
