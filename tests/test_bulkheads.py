import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import pytest

from app.bulkheads import Bulkhead, BulkheadFull, Bulkheads
from tests.running_server import wait_until


def seconds_until_refused(bulkhead):
    started = monotonic()
    with pytest.raises(BulkheadFull), bulkhead:
        pass
    return monotonic() - started


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
    bulkhead = Bulkhead(1, max_wait=5, max_waiting=1)
    with ThreadPoolExecutor(1) as pool:
        with bulkhead:
            waiting = pool.submit(bulkhead.__enter__)
            wait_until(lambda: bulkhead.waiting == 1, 2)
            assert not waiting.done()
        waiting.result(1)


def test_nobody_waits_longer_than_the_patience():
    bulkhead = Bulkhead(1, max_wait=0.2, max_waiting=9)
    with bulkhead:
        assert 0.1 < seconds_until_refused(bulkhead) < 1


def test_nobody_waits_for_work_that_is_stuck():
    bulkhead = Bulkhead(1, max_wait=0.2, max_waiting=9)
    with bulkhead:
        seconds_until_refused(bulkhead)
        assert seconds_until_refused(bulkhead) < 0.2


def test_the_number_of_waiting_callers_is_limited():
    bulkhead = Bulkhead(1, max_wait=5, max_waiting=1)
    with ExitStack() as stack:
        stack.enter_context(bulkhead)
        waiting = threading.Thread(target=bulkhead.__enter__)
        waiting.start()
        wait_until(lambda: bulkhead.waiting == 1, 2)
        assert seconds_until_refused(bulkhead) < 1
    waiting.join(1)
    assert not waiting.is_alive()


def test_many_callers_are_all_served_while_the_queue_moves():
    bulkhead = Bulkhead(2, max_wait=5, max_waiting=100)

    def work():
        with bulkhead:
            pass

    with ThreadPoolExecutor(16) as pool:
        with bulkhead, bulkhead:
            callers = [pool.submit(work) for _ in range(100)]
            wait_until(lambda: bulkhead.waiting == 16, 2)
        assert [caller.result(5) for caller in callers] == [None] * 100


@pytest.mark.parametrize("verifiers", [1, 2, 4, 16])
def test_a_process_has_a_thread_and_a_connection_for_every_place(verifiers):
    bulkheads = Bulkheads.for_verifiers(verifiers)
    with ExitStack() as stack:
        for _ in range(verifiers):
            stack.enter_context(bulkheads.verification.bulkhead)
        with pytest.raises(BulkheadFull), bulkheads.verification.bulkhead:
            pass
    assert bulkheads.verification_threads == verifiers + 1
    assert bulkheads.connections == verifiers + 4


@pytest.mark.parametrize(
    ("kind", "count", "patience"),
    [("verification", 4, 0.05), ("management", 2, 0.5), ("hashing", 1, 1), ("key_fetch", 1, 0),
     ("background", 1, 4), ("counting", 1, 0)],
)  # fmt: skip
def test_each_kind_of_work_has_its_places_and_its_patience(kind, count, patience):
    """As docs/operations.md says."""
    work = getattr(Bulkheads.for_verifiers(4), kind)
    bulkhead = getattr(work, "bulkhead", work)

    def seconds_while_all_are_taken():
        started = monotonic()
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(bulkhead)
            seconds_until_refused(bulkhead)
            return monotonic() - started

    # a busy machine can make a wait longer, but never shorter
    waits = (seconds_while_all_are_taken() for _ in range(3))
    assert any(patience <= seconds < 1.3 * patience + 0.1 for seconds in waits)


def test_each_kind_of_work_has_its_threads_and_its_time_for_the_database():
    """As docs/operations.md says."""
    bulkheads = Bulkheads.for_verifiers(4)
    assert bulkheads.verification_threads == 5
    assert bulkheads.management_threads == 17
    assert (bulkheads.probe_threads, bulkheads.other_threads) == (2, 4)
    kinds = (
        bulkheads.verification,
        bulkheads.management,
        bulkheads.background,
        bulkheads.counting,
    )
    assert [each.seconds for each in kinds] == [0.8, 2.5, 3.0, 3.0]
