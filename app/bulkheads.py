"""Keep kinds of work apart with bulkheads, so that none can starve another (ADR 10)."""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANAGEMENT_SLOTS = 2
_MANAGEMENT_MAX_WAITING = 14

_VERIFICATION_MAX_WAIT_SECONDS = 0.05
_BACKGROUND_MAX_WAIT_SECONDS = 4.0

_COMPARISON_MAX_WAITING = 3
_REMEMBERED_FAILURES = 4096

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


@dataclass(eq=False, slots=True)
class _Waiter:
    address: str
    subject: str
    is_refused: bool = False
    called: Lock = field(default_factory=Lock)  # released at its turn, or when it is refused


class Turns:
    """Lets one caller work at a time, while `max_waiting` others wait, each for `max_wait` seconds.

    The next turn is for a caller whose address has never failed, or failed longest ago. If too many
    wait, the one who would be last is refused. Of those from one address with the same subject, one
    may wait. So guessers delay others for the first failure of each of their addresses only.

    `entered`, `waited` and `refused` count callers since the start, as in a `Bulkhead`.
    """

    slots = 1

    def __init__(self, *, max_wait: float, max_waiting: int) -> None:
        self.entered = self.waited = self.refused = 0
        self.in_use = 0
        self._max_wait = max_wait
        self._max_waiting = max_waiting
        self._waiters: list[_Waiter] = []  # in the order of arrival
        self._failed_at: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return len(self._waiters)

    @contextmanager
    def turn(self, address: str, subject: str) -> Iterator[None]:
        """Wait for a turn. Raises BulkheadFull."""
        self._take(_Waiter(address, subject))
        try:
            yield
        finally:
            self._pass_on()

    def note_failure(self, address: str) -> None:
        """Let callers from this address wait behind those whose last failure is longer ago."""
        with self._lock:
            self._failed_at[address] = monotonic()
            self._failed_at.move_to_end(address)
            if len(self._failed_at) > _REMEMBERED_FAILURES:
                self._failed_at.popitem(last=False)

    def _take(self, waiter: _Waiter) -> None:
        with self._lock:
            if not self.in_use:
                self.in_use = 1
                self.entered += 1
                return
            self._queue(waiter)
        is_called = waiter.called.acquire(timeout=self._max_wait)
        with self._lock:
            if not is_called and waiter in self._waiters:
                self._refuse(waiter)
        if waiter.is_refused:
            raise BulkheadFull

    def _queue(self, waiter: _Waiter) -> None:
        waiter.called.acquire()
        self.waited += 1
        is_alone = all(
            (each.address, each.subject) != (waiter.address, waiter.subject)
            for each in self._waiters
        )
        self._waiters.append(waiter)
        if not is_alone:
            self._refuse(waiter)
        elif len(self._waiters) > self._max_waiting:
            self._refuse(max(reversed(self._waiters), key=self._last_failure))

    def _refuse(self, waiter: _Waiter) -> None:
        self._waiters.remove(waiter)
        self.refused += 1
        waiter.is_refused = True
        waiter.called.release()

    def _pass_on(self) -> None:
        """Give the turn to the next caller, or nobody."""
        with self._lock:
            if not self._waiters:
                self.in_use = 0
                return
            waiter = min(self._waiters, key=self._last_failure)
            self._waiters.remove(waiter)
            self.entered += 1
            waiter.called.release()

    def _last_failure(self, waiter: _Waiter) -> float:
        return self._failed_at.get(waiter.address, 0.0)


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
    comparison: Turns
    key_fetch: Bulkhead
    background: WorkClass
    counting: WorkClass
    verification_threads: int
    management_threads: int
    probe_threads: int
    scrape_threads: int
    other_threads: int  # the docs page, and clients that send a body in pieces
    connections: int

    @classmethod
    def for_verifiers(cls, verifiers: int) -> Self:
        """Plan a process in which at most `verifiers` threads verify at once.

        Management has a thread for every slot and every caller that may wait, and verification for
        every verifier and every comparison. Each kind has one thread more, which refuses callers at
        once when all others are stuck.
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
            # one run keeps a core busy. Its callers hold a management slot or a comparison's turn,
            # so only two can wait, and a run always ends, however slow the processor is
            hashing=Bulkhead(1, max_wait=10.0, max_waiting=_UNLIMITED),
            comparison=Turns(max_wait=1.5, max_waiting=_COMPARISON_MAX_WAITING),
            key_fetch=Bulkhead(1, max_wait=0, max_waiting=0),
            # longer than the work that holds the slot may take, so that no pending write is lost
            background=WorkClass(
                Bulkhead(1, max_wait=_BACKGROUND_MAX_WAIT_SECONDS, max_waiting=_UNLIMITED),
                seconds=3.0,
            ),
            # apart from the writer, because its statement may be slow
            counting=WorkClass(Bulkhead(1, max_wait=0, max_waiting=0), seconds=3.0),
            verification_threads=verifiers + 1 + _COMPARISON_MAX_WAITING + 1,
            management_threads=_MANAGEMENT_SLOTS + _MANAGEMENT_MAX_WAITING + 1,
            probe_threads=2,
            scrape_threads=1,
            other_threads=4,
            connections=verifiers + _MANAGEMENT_SLOTS + 2,
        )
