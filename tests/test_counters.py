from concurrent.futures import ThreadPoolExecutor

from app.counters import Counter, Histogram


def test_a_tally_counts_each_key():
    counter = Counter()
    counter.add("a")
    counter.add("b", 3)
    counter.add("a")
    assert counter.counts() == {"a": 2, "b": 3}


def test_a_duration_falls_into_the_first_bucket_that_reaches_it():
    durations = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        durations.add("a", seconds)
    (snapshot,) = durations.snapshots().values()
    assert snapshot.buckets == (2, 1, 1)
    assert snapshot.seconds == 2.65


def test_counts_that_were_read_do_not_change_afterwards():
    counter, durations = Counter(), Histogram((1.0,))
    counter.add("a")
    durations.add("a", 0.5)
    counts, snapshots = counter.counts(), durations.snapshots()
    counter.add("a")
    durations.add("a", 0.5)
    assert counts == {"a": 1}
    assert snapshots["a"].buckets == (1, 0)
    assert durations.snapshots()["a"].since(snapshots["a"]).buckets == (1, 0)
    assert durations.snapshots()["a"].since(snapshots["a"]).seconds == 0.5


def test_no_thread_loses_the_count_of_another():
    counter, durations = Counter(), Histogram((1.0,))

    def add():
        for _ in range(20_000):
            counter.add("a")
            durations.add("a", 0.5)

    with ThreadPoolExecutor(4) as pool:
        for added in [pool.submit(add) for _ in range(4)]:
            added.result()
    assert counter.counts() == {"a": 80_000}
    assert durations.snapshots()["a"].buckets == (80_000, 0)
