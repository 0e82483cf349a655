"""Keep kinds of work apart with bulkheads, so that none can starve another (ADR 10)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Self

_MANAGEMENT_SLOTS = 2
_MANAGEMENT_MAX_WAITING = 14

_VERIFICATION_MAX_WAIT_SECONDS = 0.05
_BACKGROUND_MAX_WAIT_SECONDS = 4.0

_MIN_WAIT_SECONDS = 0.005

_UNLIMITED = 1_000_000  # more callers than there are threads


class BulkheadFull(Exception):
    """The bulkhead of this kind of work has no free slot. A later attempt may succeed."""


class Bulkhead:
    """A context manager that `slots` callers can hold at once, while `max_waiting` others queue.

    A caller waits for at most `max_wait` seconds, in which the queue must move. If no slot has been
    taken or released for that long, the work is stuck: new callers wait 5 ms, in case the process
    was only short of CPU, and are then refused. So a busy moment costs a short wait, and stuck work
    takes no threads from other kinds.

    `entered`, `waited` and `refused` count callers since the start.
    """

    def __init__(self, slots: int, *, max_wait: float, max_waiting: int) -> None:
        self.slots = slots
        self.entered = self.waited = self.refused = 0
        self._free = slots
        self._max_wait = max_wait
        self._max_waiting = max_waiting
        self._queue: deque[Lock] = deque()
        self._changed_at = monotonic()  # when a slot was last taken or released
        self._lock = Lock()

    def __enter__(self) -> None:
        """Take a slot. Raises BulkheadFull."""
        with self._lock:
            turn = self._enter()
        if turn is not None:
            self._wait(turn)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._release()

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return len(self._queue)

    @property
    def in_use(self) -> int:
        """How many slots are taken now."""
        return self.slots - self._free

    def _enter(self) -> Lock | None:
        """Take a free slot, or join the queue and return a lock that is released at our turn."""
        if self._free > 0:
            self._free -= 1
            self.entered += 1
            self._changed_at = monotonic()
            return None
        if len(self._queue) >= self._max_waiting:
            self.refused += 1
            raise BulkheadFull
        self.waited += 1
        turn = Lock()
        turn.acquire()
        self._queue.append(turn)
        return turn

    def _wait(self, turn: Lock) -> None:
        joined_at = monotonic()
        while not turn.acquire(timeout=max(_MIN_WAIT_SECONDS, self._rest(joined_at))):
            with self._lock:
                if turn not in self._queue:
                    return
                if self._rest(joined_at) <= 0:
                    self._queue.remove(turn)
                    self.refused += 1
                    raise BulkheadFull

    def _rest(self, joined_at: float) -> float:
        """Return for how long a caller still waits who joined the queue then."""
        return min(joined_at, self._changed_at) + self._max_wait - monotonic()

    def _release(self) -> None:
        """Hand the slot to the caller who has waited longest, or leave it free."""
        self._changed_at = monotonic()
        if self._queue:
            self.entered += 1
            self._queue.popleft().release()
        else:
            self._free += 1


@dataclass(frozen=True, slots=True)
class WorkClass:
    """A kind of work: its bulkhead, and for how many seconds it may use the database."""

    bulkhead: Bulkhead
    seconds: float


@dataclass(frozen=True, slots=True)
class Bulkheads:
    """All kinds of work of a process, each with its own slots, connections and deadlines."""

    verification: WorkClass
    management: WorkClass
    hashing: Bulkhead
    key_fetch: Bulkhead
    background: WorkClass
    counting: WorkClass
    verification_threads: int
    management_threads: int
    probe_threads: int
    other_threads: int  # the docs page, metrics, and clients that send a body in pieces
    connections: int

    @classmethod
    def for_verifiers(cls, verifiers: int) -> Self:
        """Plan a process in which at most `verifiers` threads verify at once.

        Management has a thread for every slot and every caller that may wait. Each kind has one
        thread more, which refuses callers at once when all others are stuck.
        """
        return cls(
            verification=WorkClass(
                Bulkhead(
                    verifiers, max_wait=_VERIFICATION_MAX_WAIT_SECONDS, max_waiting=_UNLIMITED
                ),
                seconds=0.8,
            ),
            # with two runs of bcrypt at 13 rounds, the wait and the database take five seconds
            management=WorkClass(
                Bulkhead(_MANAGEMENT_SLOTS, max_wait=1.5, max_waiting=_MANAGEMENT_MAX_WAITING),
                seconds=2.5,
            ),
            # one run keeps a core busy. Its callers hold a management slot, so only one can wait,
            # and a run always ends, however slow the processor is.
            hashing=Bulkhead(1, max_wait=10.0, max_waiting=_UNLIMITED),
            key_fetch=Bulkhead(1, max_wait=0, max_waiting=0),
            # longer than the work that holds the slot may take, so that no pending write is lost
            background=WorkClass(
                Bulkhead(1, max_wait=_BACKGROUND_MAX_WAIT_SECONDS, max_waiting=_UNLIMITED),
                seconds=3.0,
            ),
            # apart from the writer, because its statement may be slow
            counting=WorkClass(Bulkhead(1, max_wait=0, max_waiting=0), seconds=3.0),
            verification_threads=verifiers + 1,
            management_threads=_MANAGEMENT_SLOTS + _MANAGEMENT_MAX_WAITING + 1,
            probe_threads=2,
            other_threads=4,
            connections=verifiers + _MANAGEMENT_SLOTS + 2,
        )
