import gc
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from time import sleep

import pytest

from app.bulkheads import Bulkhead, BulkheadFull, Bulkheads, Turns
from tests.running_server import HANG_SECONDS, wait_until


@pytest.fixture
def clock(monkeypatch):
    """The clock of the bulkheads, which stands still until the test moves it."""

    class Clock:
        now = 1000.0
        read = 0

        def __call__(self):
            self.read += 1
            return self.now

    clock = Clock()
    monkeypatch.setattr("app.bulkheads.monotonic", clock)
    return clock


@pytest.fixture
def enter():
    """Return a function that enters a bulkhead in another thread."""
    with ThreadPoolExecutor(9) as pool:
        yield lambda bulkhead: pool.submit(bulkhead.__enter__)


def wait_for_a_look_at(clock, caller):
    """Wait until the caller, who queues, has looked at the clock twice more, or gave up."""
    read = clock.read
    wait_until(lambda: clock.read >= read + 2 or caller.done())


def is_refused(caller):
    return isinstance(caller.exception(HANG_SECONDS), BulkheadFull)


def test_as_many_callers_as_places_are_served_at_once():
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=0)
    with bulkhead, bulkhead, pytest.raises(BulkheadFull), bulkhead:
        pass
    with bulkhead:
        pass


def test_a_place_is_given_back_after_an_error():
    bulkhead = Bulkhead(1, max_wait=0, max_waiting=0)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), bulkhead:
            raise ValueError("x")


def test_a_caller_waits_for_a_place():
    bulkhead = Bulkhead(1, max_wait=HANG_SECONDS, max_waiting=1)
    with ThreadPoolExecutor(1) as pool:
        with bulkhead:
            waiting = pool.submit(bulkhead.__enter__)
            wait_until(lambda: bulkhead.waiting == 1)
            assert not waiting.done()
        waiting.result(HANG_SECONDS)


def test_nobody_waits_longer_than_the_longest_wait(clock, enter):
    """This holds even though others get their turn."""
    bulkhead = Bulkhead(1, max_wait=5, max_waiting=9)
    with bulkhead:
        first = enter(bulkhead)
        wait_until(lambda: bulkhead.waiting == 1)
        second = enter(bulkhead)
        wait_until(lambda: bulkhead.waiting == 2)
        clock.now += 4
    first.result(HANG_SECONDS)
    clock.now += 1
    assert is_refused(second)


def test_a_caller_waits_on_while_others_get_their_turn(clock, enter):
    bulkhead = Bulkhead(1, max_wait=5, max_waiting=9)
    with bulkhead:
        clock.now += 4.9
        first = enter(bulkhead)
        wait_until(lambda: bulkhead.waiting == 1)
        second = enter(bulkhead)
        wait_until(lambda: bulkhead.waiting == 2)
    first.result(HANG_SECONDS)
    clock.now += 4.9
    wait_for_a_look_at(clock, second)
    bulkhead.__exit__()
    second.result(HANG_SECONDS)


def test_nobody_waits_for_work_that_is_stuck(clock, enter):
    bulkhead = Bulkhead(1, max_wait=10 * HANG_SECONDS, max_waiting=9)
    with bulkhead:
        clock.now += 10 * HANG_SECONDS
        assert is_refused(enter(bulkhead))


def test_a_queue_that_moves_is_waited_for_longer_than_one_that_is_stuck(clock, enter):
    bulkhead = Bulkhead(1, max_wait=4, max_waiting=9, stuck_after=1.5)
    with bulkhead:
        callers = []
        for waiting in range(1, 6):
            callers.append(enter(bulkhead))
            wait_until(lambda waiting=waiting: bulkhead.waiting == waiting)
        clock.now += 1.4
    for served in callers[:2]:
        served.result(HANG_SECONDS)
        clock.now += 1.2
        wait_for_a_look_at(clock, callers[2])
        bulkhead.__exit__()
    callers[2].result(HANG_SECONDS)
    wait_for_a_look_at(clock, callers[3])
    assert not callers[3].done()  # after 3.8 s
    clock.now += 0.3
    assert is_refused(callers[3])
    assert is_refused(callers[4])
    late = enter(bulkhead)
    wait_for_a_look_at(clock, late)
    assert not late.done()
    clock.now += 1.3
    assert is_refused(late)


def test_the_number_of_waiting_callers_is_limited():
    bulkhead = Bulkhead(1, max_wait=HANG_SECONDS, max_waiting=1)
    with ExitStack() as stack:
        stack.enter_context(bulkhead)
        waiting = threading.Thread(target=bulkhead.__enter__)
        waiting.start()
        wait_until(lambda: bulkhead.waiting == 1)
        with pytest.raises(BulkheadFull), bulkhead:
            pass
    waiting.join(HANG_SECONDS)
    assert not waiting.is_alive()


def test_many_callers_are_all_served_while_the_queue_moves():
    bulkhead = Bulkhead(2, max_wait=HANG_SECONDS, max_waiting=100)

    def work():
        with bulkhead:
            pass

    with ThreadPoolExecutor(16) as pool:
        with bulkhead, bulkhead:
            callers = [pool.submit(work) for _ in range(100)]
            wait_until(lambda: bulkhead.waiting == 16)
        assert [caller.result(HANG_SECONDS) for caller in callers] == [None] * 100


@pytest.mark.parametrize("verifiers", [1, 2, 4, 16])
def test_a_process_has_a_thread_and_a_connection_for_every_place(verifiers):
    bulkheads = Bulkheads.for_verifiers(verifiers)
    with ExitStack() as stack:
        for _ in range(verifiers):
            stack.enter_context(bulkheads.verification.bulkhead)
        with pytest.raises(BulkheadFull), bulkheads.verification.bulkhead:
            pass
    assert bulkheads.verification_threads == verifiers + 5
    assert bulkheads.connections == verifiers + 5


@pytest.mark.parametrize(
    ("kind", "count", "longest_wait"),
    [
        ("verification", 4, 0.05),
        ("authentication", 2, 1.5),
        ("management", 2, 1.5),
        ("hashing", 1, 10),
        ("background", 1, 4),
        ("public", 1, 0.5),
    ],
)
def test_each_kind_of_work_has_its_places_and_its_longest_wait(
    kind, count, longest_wait, clock, enter
):
    """As docs/operations.md says."""
    work = getattr(Bulkheads.for_verifiers(4), kind)
    bulkhead = getattr(work, "bulkhead", work)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(bulkhead)
        clock.now += longest_wait - 0.001
        waiting = enter(bulkhead)
        wait_for_a_look_at(clock, waiting)
        assert not waiting.done()
        clock.now += 0.002
        assert is_refused(waiting)


def test_nobody_waits_for_the_place_of_key_fetches():
    bulkhead = Bulkheads.for_verifiers(4).key_fetch
    with bulkhead, pytest.raises(BulkheadFull), bulkhead:
        pass


def test_each_kind_of_work_has_its_threads_and_its_time_for_the_database():
    """As docs/operations.md says."""
    bulkheads = Bulkheads.for_verifiers(4)
    assert bulkheads.verification_threads == 9
    assert bulkheads.management_threads == 65
    assert (bulkheads.probe_threads, bulkheads.scrape_threads, bulkheads.other_threads) == (2, 1, 4)
    assert (bulkheads.slow_threads, bulkheads.max_waiting_slow) == (4, 4)
    kinds = (
        bulkheads.verification,
        bulkheads.management,
        bulkheads.background,
        bulkheads.counting,
    )
    assert [each.seconds for each in kinds] == [0.8, 2.5, 3.0, 3.0]


@pytest.fixture
def take():
    """Return a function that takes a turn in another thread, and appends its address to a list."""
    with ThreadPoolExecutor(9) as pool:

        def take(turns, address, subject="x", taken=None):
            def work():
                with turns.turn(address, subject):
                    (taken if taken is not None else []).append(address)

            refused, waiting = turns.refused, turns.waiting
            caller = pool.submit(work)
            wait_until(lambda: (turns.refused, turns.waiting) != (refused, waiting))
            return caller

        yield take


def long_turns(max_waiting=3):
    return Turns(max_wait=HANG_SECONDS, max_waiting=max_waiting)


def test_turns_are_for_those_whose_failure_is_longest_ago(take):
    turns, taken = long_turns(max_waiting=4), []
    for address in "ABA":
        turns.note_failure(address)
    with turns.turn("Z", "x"):
        callers = [take(turns, address, taken=taken) for address in "ABCD"]
    assert [each.exception(HANG_SECONDS) for each in callers] == [None] * 4
    assert taken == list("CDBA")
    assert (turns.entered, turns.waited, turns.refused, turns.in_use) == (5, 4, 0, 0)


def test_the_last_in_a_full_queue_is_refused(take):
    turns = long_turns()
    turns.note_failure("B")
    with turns.turn("Z", "x"):
        first, failed, last = (take(turns, address) for address in "ABC")
        owner = take(turns, "D")
        assert is_refused(failed)
        late = take(turns, "E")
        assert is_refused(late)
    assert [each.exception(HANG_SECONDS) for each in (first, last, owner)] == [None] * 3


def test_one_caller_from_an_address_waits_for_a_subject(take):
    turns = long_turns()
    with turns.turn("A", "x"):
        first = take(turns, "A")
        assert is_refused(take(turns, "A"))
        other = take(turns, "A", subject="y")
    assert first.exception(HANG_SECONDS) is other.exception(HANG_SECONDS) is None


def test_nobody_waits_for_a_turn_for_ever():
    turns = Turns(max_wait=0.01, max_waiting=3)
    with turns.turn("A", "x"), pytest.raises(BulkheadFull), turns.turn("B", "x"):
        pass
    with turns.turn("B", "x"):
        pass
    assert (turns.entered, turns.refused, turns.in_use) == (2, 1, 0)


def test_a_turn_ends_with_an_error():
    turns = long_turns()
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), turns.turn("A", "x"):
            raise ValueError("x")


@contextmanager
def slot(bulkhead, unit):
    with bulkhead.place(unit) as place:
        place.take_slot()
        yield place


def enter_slot(bulkhead, unit, stack):
    return stack.enter_context(slot(bulkhead, unit))


def test_a_unit_gets_half_of_the_slots():
    bulkhead = Bulkhead(2, max_wait=HANG_SECONDS, max_waiting=9)
    with ThreadPoolExecutor(1) as pool, ExitStack() as held, ExitStack() as stack:
        enter_slot(bulkhead, "a", held)
        second = pool.submit(enter_slot, bulkhead, "a", stack)
        wait_until(lambda: bulkhead.waiting == 1)
        assert bulkhead.in_use == 1
        with slot(bulkhead, "b"):
            assert bulkhead.in_use == 2
            assert not second.done()
        held.close()
        second.result(HANG_SECONDS)


def test_a_unit_gets_half_of_the_places_of_all_who_work_or_wait():
    bulkhead = Bulkhead(2, max_wait=HANG_SECONDS, max_waiting=6)
    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        with slot(bulkhead, "a"):
            callers = [pool.submit(use, bulkhead, "a") for _ in range(3)]
            wait_until(lambda: bulkhead.waiting == 3)
            with pytest.raises(BulkheadFull), slot(bulkhead, "a"):
                pass
            enter_slot(bulkhead, "b", stack)
        for caller in callers:
            caller.result(HANG_SECONDS)
        with slot(bulkhead, "a"):
            pass


def use(bulkhead, unit):
    with slot(bulkhead, unit):
        pass


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_unit_gets_at_least_one_slot(slots):
    bulkhead = Bulkhead(slots, max_wait=0, max_waiting=0)
    with slot(bulkhead, "a"), pytest.raises(BulkheadFull), slot(bulkhead, "a"):
        pass


def test_units_take_turns_however_many_callers_each_has():
    bulkhead = Bulkhead(2, max_wait=HANG_SECONDS, max_waiting=20)
    served = []

    def work(unit):
        with slot(bulkhead, unit):
            served.append(unit)

    with ThreadPoolExecutor(9) as pool, ExitStack() as one, ExitStack() as other:
        enter_slot(bulkhead, "x", other)
        enter_slot(bulkhead, "y", one)
        for unit in "aaaabbcd":
            waiting = bulkhead.waiting + 1
            pool.submit(work, unit)
            wait_until(lambda waiting=waiting: bulkhead.waiting == waiting)
        one.close()
        wait_until(lambda: len(served) == 8)
    assert served == ["a", "b", "c", "d", "a", "b", "a", "a"]


def test_a_slot_of_a_unit_is_given_back_after_an_error():
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=0)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), slot(bulkhead, "a"):
            raise ValueError("x")
    assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)


def test_a_caller_who_leaves_the_queue_gives_up_its_place(clock):
    bulkhead = Bulkhead(2, max_wait=5, max_waiting=2)
    with ThreadPoolExecutor(1) as pool, slot(bulkhead, "a"):
        for _ in range(2):
            waiting = pool.submit(use, bulkhead, "a")
            wait_until(lambda: bulkhead.waiting == 1)
            clock.now += 5
            assert is_refused(waiting)
            assert bulkhead.waiting == 0
            with slot(bulkhead, "b"):
                clock.now += 1  # so that the queue counts as moving


def test_a_caller_who_pauses_gives_its_slot_to_another_and_takes_one_again():
    bulkhead = Bulkhead(2, max_wait=HANG_SECONDS, max_waiting=9)
    with ThreadPoolExecutor(1) as pool, slot(bulkhead, "a") as place:
        with place.paused():
            assert (bulkhead.in_use, bulkhead.waiting) == (0, 1)
            pool.submit(use, bulkhead, "a").result(HANG_SECONDS)
        assert (bulkhead.in_use, bulkhead.waiting) == (1, 0)
    assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)


def test_callers_who_pause_keep_their_places():
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=2)
    with slot(bulkhead, "a") as one, one.paused(), slot(bulkhead, "a") as two, two.paused():
        with pytest.raises(BulkheadFull), slot(bulkhead, "a"):
            pass
        with slot(bulkhead, "b"):
            pass


def test_an_error_in_a_pause_takes_no_slot():
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=2)
    with slot(bulkhead, "a") as place, pytest.raises(ValueError, match="x"), place.paused():
        raise ValueError("x")
    assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)


def test_a_caller_who_gets_no_slot_after_a_pause_is_gone():
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=2)
    with ExitStack() as stack:
        with pytest.raises(BulkheadFull), slot(bulkhead, "a") as place, place.paused():
            enter_slot(bulkhead, "a", stack)
        assert (bulkhead.in_use, bulkhead.waiting) == (1, 0)
    assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)


def test_no_unit_exceeds_its_share_whatever_callers_do_at_once():
    """Eight units with six callers each use it in every way, in more threads than places."""
    bulkhead = Bulkhead(4, max_wait=0.001, max_waiting=12)
    working = Counter()
    exceeded = []
    lock = threading.Lock()

    def count(unit, change):
        with lock:
            working[unit] += change
            if working[unit] > 2 or working.total() > 4:
                exceeded.append(dict(working))

    def work(number):
        unit = f"unit_{number % 8}"
        for turn in range(200):
            with suppress(BulkheadFull, ValueError), slot(bulkhead, unit) as place:
                count(unit, 1)
                sleep(0)  # so that others run meanwhile
                count(unit, -1)
                if turn % 3 == 0:
                    with place.paused():
                        pass
                    count(unit, 1)
                    sleep(0)
                    count(unit, -1)
                if turn % 5 == 0:
                    raise ValueError

    with ThreadPoolExecutor(48) as pool:
        for done in [pool.submit(work, number) for number in range(48)]:
            done.result(HANG_SECONDS)
    assert exceeded == []
    assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)
    assert bulkhead.entered > 0
    with ExitStack() as stack:  # nothing is left over
        for unit in ("a", "a", "b", "b"):
            enter_slot(bulkhead, unit, stack)


def test_units_that_have_left_are_forgotten():
    class Unit(str):
        """A unit ID that can be watched."""

        __slots__ = ("__weakref__",)

    bulkhead = Bulkhead(2, max_wait=0, max_waiting=0)
    unit = Unit("a")
    forgotten = weakref.ref(unit)
    with slot(bulkhead, unit), pytest.raises(BulkheadFull), slot(bulkhead, unit):
        pass
    with (
        slot(bulkhead, "b"),
        slot(bulkhead, "c"),
        pytest.raises(BulkheadFull),
        slot(bulkhead, unit),
    ):
        pass
    del unit
    gc.collect()
    assert forgotten() is None
