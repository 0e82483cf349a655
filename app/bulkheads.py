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
# Half of all places are for one unit. So 64 callers of a unit, at two processes, wait their turn: a
# caller who waits costs nothing, one who is refused and calls again does.
_MANAGEMENT_MAX_WAITING = 62

# With one more run of bcrypt and the database, five seconds are over.
MANAGEMENT_SECONDS = 4.8
_MANAGEMENT_MAX_WAIT_SECONDS = 4.0
_MANAGEMENT_STUCK_SECONDS = 1.5

_VERIFICATION_MAX_WAIT_SECONDS = 0.05
_BACKGROUND_MAX_WAIT_SECONDS = 4.0

_COMPARISON_MAX_WAITING = 3
_REMEMBERED_FAILURES = 4096

_PUBLIC_SLOTS = 1
_PUBLIC_MAX_WAITING = 3

_MIN_WAIT_SECONDS = 0.005

_UNLIMITED = 1_000_000  # more callers than there are threads


class BulkheadFull(Exception):
    """The bulkhead of this kind of work has no free slot. A later attempt may succeed."""


class Bulkhead:
    """A context manager that `slots` callers can hold at once, while `max_waiting` others wait.

    A caller waits for at most `max_wait` seconds. If no slot has been taken or released for
    `stuck_after` seconds (by default as many), the work is stuck: new callers wait 5 ms, in case
    the process was only short of CPU, and are then refused. So a busy moment costs a short wait,
    and stuck work takes no threads from other kinds.

    Callers who take a `place` share the bulkhead: nobody gets more than half of the slots, nor more
    than half of the places of all who work or wait. They take turns.

    `entered`, `waited` and `refused` count callers since the start.
    """

    def __init__(
        self, slots: int, *, max_wait: float, max_waiting: int, stuck_after: float | None = None
    ) -> None:
        self.slots = slots
        self.entered = self.waited = self.refused = 0
        self._max_wait = max_wait
        self._stuck_after = max_wait if stuck_after is None else stuck_after
        self._all = _Share(slots, slots + max_waiting)
        # Only of those who are here now, so that their number is limited. The next turn is that of
        # the first one.
        self._shares: OrderedDict[str | None, _Share] = OrderedDict()
        self._changed_at = monotonic()  # when a slot was last taken or released
        self._lock = Lock()

    def __enter__(self) -> None:
        """Take a slot. Raises BulkheadFull."""
        self.enter(None)
        self.take(None)

    def __exit__(self, *_: object) -> None:
        self.release(None)
        self.leave(None)

    def place(self, sharer: str) -> Place:
        """Return a place for a caller of one of those who share the bulkhead."""
        return Place(self, sharer)

    @property
    def waiting(self) -> int:
        """How many callers are here without a slot."""
        return self._all.callers - self._all.working

    @property
    def in_use(self) -> int:
        """How many slots are taken now."""
        return self._all.working

    def enter(self, sharer: str | None) -> None:
        """Come in, without a slot. Raises BulkheadFull."""
        with self._lock:
            share = self._shares.get(sharer)
            if share is None:
                share = self._shares[sharer] = self._new_share(sharer)
            if self._all.is_full or share.is_full:
                self.refused += 1
                self._forget_if_gone(sharer)
                raise BulkheadFull
            self._all.callers += 1
            share.callers += 1

    def take(self, sharer: str | None) -> None:
        """Take a slot for a caller who is here. Raises BulkheadFull if the caller had to leave."""
        with self._lock:
            share = self._shares[sharer]
            if self._all.may_work and share.may_work:
                self._give_slot(share)
                return
            self.waited += 1
            turn = Lock()
            turn.acquire()
            share.queue.append(turn)
        self._wait(turn, sharer)

    def release(self, sharer: str | None) -> None:
        """Give the slot to the next waiting caller whose share allows it, or leave it free."""
        with self._lock:
            self._changed_at = monotonic()
            self._all.working -= 1
            self._shares[sharer].working -= 1
            for name, share in self._shares.items():
                if share.queue and share.may_work:
                    self._shares.move_to_end(name)
                    self._give_slot(share)
                    share.queue.popleft().release()
                    return

    def leave(self, sharer: str | None) -> None:
        """Go away, without a slot."""
        with self._lock:
            self._leave(sharer)

    def _new_share(self, sharer: str | None) -> _Share:
        slots, callers = self._all.max_working, self._all.max_callers
        if sharer is None:
            return _Share(slots, callers)
        return _Share(max(1, slots // 2), max(1, callers // 2))

    def _give_slot(self, share: _Share) -> None:
        self._all.working += 1
        share.working += 1
        self.entered += 1
        self._changed_at = monotonic()

    def _wait(self, turn: Lock, sharer: str | None) -> None:
        joined_at = monotonic()
        while not turn.acquire(timeout=max(_MIN_WAIT_SECONDS, self._rest(joined_at))):
            with self._lock:
                queue = self._shares[sharer].queue
                if turn not in queue:
                    return
                if self._rest(joined_at) <= 0:
                    queue.remove(turn)
                    self._leave(sharer)
                    self.refused += 1
                    raise BulkheadFull

    def _rest(self, joined_at: float) -> float:
        """Return for how long a caller still waits who joined the queue then."""
        give_up_at = min(joined_at + self._max_wait, self._changed_at + self._stuck_after)
        return give_up_at - monotonic()

    def _leave(self, sharer: str | None) -> None:
        self._all.callers -= 1
        self._shares[sharer].callers -= 1
        self._forget_if_gone(sharer)

    def _forget_if_gone(self, sharer: str | None) -> None:
        if self._shares[sharer].callers == 0:
            del self._shares[sharer]


@dataclass(slots=True)
class _Share:
    """How many callers may work and be here at once, and how many do; and who waits for a slot."""

    max_working: int
    max_callers: int
    working: int = 0
    callers: int = 0
    queue: deque[Lock] = field(default_factory=deque)

    @property
    def may_work(self) -> bool:
        return self.working < self.max_working

    @property
    def is_full(self) -> bool:
        return self.callers >= self.max_callers


class Place:
    """A context manager: a caller's place in a bulkhead that is shared. Raises BulkheadFull.

    The caller holds no slot before `take_slot`.
    """

    def __init__(self, bulkhead: Bulkhead, sharer: str) -> None:
        self._bulkhead = bulkhead
        self._sharer = sharer
        self._is_held = self._has_slot = False

    def __enter__(self) -> Self:
        self._bulkhead.enter(self._sharer)
        self._is_held = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_slot:
            self._bulkhead.release(self._sharer)
        if self._is_held:
            self._bulkhead.leave(self._sharer)

    def take_slot(self) -> None:
        """Wait for a slot. Raises BulkheadFull."""
        self._is_held = False  # if the bulkhead refuses
        self._bulkhead.take(self._sharer)
        self._is_held = self._has_slot = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Give the slot to others meanwhile, and then take one again; not after an exception."""
        self._bulkhead.release(self._sharer)
        self._has_slot = False
        yield
        self.take_slot()


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
    authentication: Bulkhead
    management: WorkClass
    hashing: Bulkhead
    comparison: Turns
    key_fetch: Bulkhead
    background: WorkClass
    counting: WorkClass
    public: WorkClass  # what anybody may ask for without a token
    verification_threads: int
    management_threads: int
    probe_threads: int
    scrape_threads: int
    public_threads: int
    max_waiting_public: int
    slow_threads: int  # clients that send a request in pieces
    max_waiting_slow: int
    other_threads: int  # the docs page, and the rest
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
            # two threads at most look at tokens, whoever sends them. One may wait for keys.
            authentication=Bulkhead(
                2,
                max_wait=_MANAGEMENT_MAX_WAIT_SECONDS,
                max_waiting=_UNLIMITED,
                stuck_after=_MANAGEMENT_STUCK_SECONDS,
            ),
            management=WorkClass(
                Bulkhead(
                    _MANAGEMENT_SLOTS,
                    max_wait=_MANAGEMENT_MAX_WAIT_SECONDS,
                    max_waiting=_MANAGEMENT_MAX_WAITING,
                    stuck_after=_MANAGEMENT_STUCK_SECONDS,
                ),
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
            public=WorkClass(
                Bulkhead(_PUBLIC_SLOTS, max_wait=0.5, max_waiting=_PUBLIC_MAX_WAITING), seconds=2.5
            ),
            verification_threads=verifiers + 1 + _COMPARISON_MAX_WAITING + 1,
            management_threads=_MANAGEMENT_SLOTS + _MANAGEMENT_MAX_WAITING + 1,
            probe_threads=2,
            scrape_threads=1,
            public_threads=_PUBLIC_SLOTS + _PUBLIC_MAX_WAITING,
            # a caller who waits costs nothing, one who is refused and calls again does
            max_waiting_public=60,
            # each may hold a thread for five seconds, so that is how long the last one waits
            slow_threads=4,
            max_waiting_slow=4,
            other_threads=4,
            connections=verifiers + _MANAGEMENT_SLOTS + 2 + _PUBLIC_SLOTS,
        )
