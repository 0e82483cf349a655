"""Limit each kind of work to its own places, so that none can starve another (ADR 10)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Self

_MANAGEMENT_PLACES = 2
_MANAGEMENT_WAITING = 14

VERIFICATION_PATIENCE = 0.05
_BACKGROUND_PATIENCE = 4.0

_BLINK_SECONDS = 0.005

_UNLIMITED = 1_000_000  # more callers than there are threads


class NoPlace(Exception):
    """No place is free for this kind of work. A later attempt may succeed."""


class Places:
    """A bulkhead: `count` places for one kind of work, and a queue for `waiting` callers.

    If all places are taken, a caller waits for at most `patience` seconds. If no place has been
    given back for that long, the work is stuck, and callers wait only for a blink, in case the
    process itself had no processor. So a busy moment costs a short wait, and stuck work takes no
    threads from other kinds.

    `taken`, `waited` and `refused` count callers since the start.
    """

    def __init__(self, count: int, *, patience: float, waiting: int) -> None:
        self.count = count
        self.taken = self.waited = self.refused = 0
        self._free = count
        self._patience = patience
        self._max_waiting = waiting
        self._queue: deque[Lock] = deque()
        self._changed_at = monotonic()  # when a place was last taken or given back
        self._lock = Lock()

    def take(self) -> Self:
        """Hold a place during a `with` statement. Raises NoPlace."""
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
        """Take a free place, or join the queue and return a lock that is released at our turn."""
        if self._free > 0:
            self._free -= 1
            self.taken += 1
            self._changed_at = monotonic()
            return None
        if len(self._queue) >= self._max_waiting:
            self.refused += 1
            raise NoPlace
        self.waited += 1
        turn = Lock()
        turn.acquire()
        self._queue.append(turn)
        return turn

    def _wait(self, turn: Lock) -> None:
        patience = max(_BLINK_SECONDS, self._changed_at + self._patience - monotonic())
        if turn.acquire(timeout=patience):
            return
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
                self.refused += 1
                raise NoPlace

    def _pass_on(self) -> None:
        """Hand the place to the caller who has waited longest, or leave it free."""
        self._changed_at = monotonic()
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
    probe_threads: int
    other_threads: int  # the docs page, metrics, and clients that send a body in pieces
    connections: int

    @classmethod
    def for_verifiers(cls, verifiers: int) -> Self:
        """Plan a process in which at most `verifiers` threads verify at once.

        Management has a thread for every place and every caller that may wait. Each kind has one
        thread more, which refuses callers at once when all others are stuck.
        """
        return cls(
            verification=Work(
                Places(verifiers, patience=VERIFICATION_PATIENCE, waiting=_UNLIMITED), seconds=0.8
            ),
            # both waits, bcrypt and the database together take less than five seconds
            management=Work(
                Places(_MANAGEMENT_PLACES, patience=0.5, waiting=_MANAGEMENT_WAITING), seconds=2.5
            ),
            # one run keeps a core busy; each caller that waits for it holds a management place
            hashing=Places(1, patience=1.0, waiting=_UNLIMITED),
            key_fetch=Places(1, patience=0, waiting=0),
            # longer than the work that holds the place may take, so that no pending write is lost
            background=Work(
                Places(1, patience=_BACKGROUND_PATIENCE, waiting=_UNLIMITED), seconds=3.0
            ),
            verification_threads=verifiers + 1,
            management_threads=_MANAGEMENT_PLACES + _MANAGEMENT_WAITING + 1,
            probe_threads=2,
            other_threads=4,
            connections=verifiers + _MANAGEMENT_PLACES + 1,
        )
