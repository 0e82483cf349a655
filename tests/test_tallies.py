from concurrent.futures import ThreadPoolExecutor

from app.tallies import Durations, Tally


def test_a_tally_counts_each_key():
    tally = Tally()
    tally.add("a")
    tally.add("b", 3)
    tally.add("a")
    assert tally.counts() == {"a": 2, "b": 3}


def test_a_duration_falls_into_the_first_bucket_that_reaches_it():
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        durations.add("a", seconds)
    (distribution,) = durations.distributions().values()
    assert distribution.buckets == (2, 1, 1)
    assert distribution.seconds == 2.65


def test_counts_that_were_read_do_not_change_afterwards():
    tally, durations = Tally(), Durations((1.0,))
    tally.add("a")
    durations.add("a", 0.5)
    counts, distributions = tally.counts(), durations.distributions()
    tally.add("a")
    durations.add("a", 0.5)
    assert counts == {"a": 1}
    assert distributions["a"].buckets == (1, 0)
    assert durations.distributions()["a"].since(distributions["a"]).buckets == (1, 0)
    assert durations.distributions()["a"].since(distributions["a"]).seconds == 0.5


def test_no_thread_loses_the_count_of_another():
    tally, durations = Tally(), Durations((1.0,))

    def add():
        for _ in range(20_000):
            tally.add("a")
            durations.add("a", 0.5)

    with ThreadPoolExecutor(4) as pool:
        for added in [pool.submit(add) for _ in range(4)]:
            added.result()
    assert tally.counts() == {"a": 80_000}
    assert durations.distributions()["a"].buckets == (80_000, 0)
