import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import pytest

from app.places import NoPlace, Places, Workload
from tests.server import wait_until


def seconds_until_refused(places):
    started = monotonic()
    with pytest.raises(NoPlace), places.take():
        pass
    return monotonic() - started


def test_as_many_callers_as_places_are_served_at_once():
    places = Places(2, patience=0, waiting=0)
    with places.take(), places.take(), pytest.raises(NoPlace), places.take():
        pass
    with places.take():
        pass


def test_a_place_is_given_back_after_an_error():
    places = Places(1, patience=0, waiting=0)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), places.take():
            raise ValueError("x")


def test_a_caller_waits_for_a_place():
    places = Places(1, patience=5, waiting=1)
    taken = places.take()
    taken.__enter__()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: places.take().__enter__())
        wait_until(lambda: places.waiting == 1, 2)
        assert not waiting.done()
        taken.__exit__(None, None, None)
        waiting.result(1)


def test_nobody_waits_longer_than_the_patience():
    places = Places(1, patience=0.2, waiting=9)
    with places.take():
        assert 0.1 < seconds_until_refused(places) < 1


def test_nobody_waits_for_work_that_is_stuck():
    places = Places(1, patience=0.2, waiting=9)
    with places.take():
        seconds_until_refused(places)
        assert seconds_until_refused(places) < 0.2


def test_the_number_of_waiting_callers_is_limited():
    places = Places(1, patience=5, waiting=1)
    with ExitStack() as stack:
        stack.enter_context(places.take())
        waiting = threading.Thread(target=lambda: places.take().__enter__())
        waiting.start()
        wait_until(lambda: places.waiting == 1, 2)
        assert seconds_until_refused(places) < 1
    waiting.join(1)
    assert not waiting.is_alive()


def test_many_callers_are_all_served_while_the_queue_moves():
    places = Places(2, patience=5, waiting=100)

    def work():
        with places.take():
            pass

    with ThreadPoolExecutor(16) as pool:
        with places.take(), places.take():
            callers = [pool.submit(work) for _ in range(100)]
            wait_until(lambda: places.waiting == 16, 2)
        assert [caller.result(5) for caller in callers] == [None] * 100


@pytest.mark.parametrize("verifiers", [1, 2, 4, 16])
def test_a_process_has_a_thread_and_a_connection_for_every_place(verifiers):
    workload = Workload.for_verifiers(verifiers)
    with ExitStack() as stack:
        for _ in range(verifiers):
            stack.enter_context(workload.verification.places.take())
        with pytest.raises(NoPlace), workload.verification.places.take():
            pass
    assert workload.verification_threads == verifiers + 1
    assert workload.connections == verifiers + 3


@pytest.mark.parametrize(
    ("kind", "count", "patience"),
    [("verification", 4, 0.05), ("management", 2, 0.5), ("hashing", 1, 1), ("key_fetch", 1, 0),
     ("background", 1, 4)],
)  # fmt: skip
def test_each_kind_of_work_has_its_places_and_its_patience(kind, count, patience):
    """As docs/operations.md says."""
    work = getattr(Workload.for_verifiers(4), kind)
    places = getattr(work, "places", work)

    def seconds_while_all_are_taken():
        started = monotonic()
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(places.take())
            seconds_until_refused(places)
            return monotonic() - started

    # a busy machine can make a wait longer, but never shorter
    waits = (seconds_while_all_are_taken() for _ in range(3))
    assert any(patience <= seconds < 1.3 * patience + 0.1 for seconds in waits)


def test_each_kind_of_work_has_its_threads_and_its_time_for_the_database():
    """As docs/operations.md says."""
    workload = Workload.for_verifiers(4)
    assert workload.verification_threads == 5
    assert workload.management_threads == 17
    assert (workload.probe_threads, workload.other_threads) == (2, 4)
    kinds = (workload.verification, workload.management, workload.background)
    assert [each.seconds for each in kinds] == [0.8, 2.5, 3.0]
