"""Limits that a process counts by itself, or that several hosts count in a real Redis."""

import subprocess
import tracemalloc
from contextlib import ExitStack

import pytest

from app.credentials.generator import generate_client_secret
from app.rate_limits import MemoryCounters, RateLimit
from app.redis_counters import RedisCounters
from tests.conftest import client_of, start_redis
from tests.helpers import basic
from tests.hostile_redis import executed, hostile_redis
from tests.running_server import HANG_SECONDS, free_port, wait_until

CLIENT_ID = "lv_ci_" + "a" * 20


@pytest.fixture
def host(app_with):
    """Return a function that starts a host with this storage and returns its client."""

    def host(storage):
        changes = {"verify_failure_limit": 3, "ratelimit_storage_url": storage}
        return app_with(**changes).test_client()

    return host


@pytest.fixture
def counters_in():
    """Return a function that makes a host's counters. It waits for Redis however busy we are."""
    with ExitStack() as stack:

        def counters_in(storage, secret=b"s" * 32):
            counters = RedisCounters(storage, secret, answer_seconds=HANG_SECONDS)
            counters.open()
            stack.callback(counters.close)
            return counters

        yield counters_in


def verify(client, client_id, client_secret=None):
    headers = basic(client_id, client_secret or generate_client_secret())
    return client.get("/verify", headers=headers)


def fail(client):
    return verify(client, CLIENT_ID).status_code


def issue(member):
    return member.post("/secrets", json={"name": "x"})


def redis_cli(storage, *command):
    arguments = ["redis-cli", "-u", storage, *command]
    return subprocess.run(arguments, capture_output=True, check=True, text=True).stdout


def test_hosts_that_share_a_redis_count_together(redis, counters_in):
    storage, _ = redis
    first, second = (RateLimit("x", 3, counters_in(storage)) for _ in range(2))
    assert [each.count("a", "b") for each in (first, second, first)] == [None] * 3
    assert all(0 < each.count("a", "b") <= 60 for each in (first, second))
    assert first.check("a", "c") is None


def test_a_check_counts_nothing(redis, counters_in):
    limit = RateLimit("x", 1, counters_in(redis[0]))
    assert [limit.check("a") for _ in range(3)] == [None] * 3
    assert limit.count("a") is None
    assert limit.check("a") is not None


def test_a_host_that_loses_its_redis_keeps_serving_without_counting(redis, host):
    storage, process = redis
    client = host(storage)
    assert fail(client) == 401
    process.terminate()
    process.wait(HANG_SECONDS)
    assert [fail(client) for _ in range(5)] == [401] * 5


def test_the_end_of_an_outage_is_logged(redis, host, tmp_path, capfd):
    storage, process = redis
    client = host(storage)
    assert fail(client) == 401
    process.terminate()
    process.wait(HANG_SECONDS)
    assert fail(client) == 401
    lines = capfd.readouterr().out
    assert "not being counted: Redis is unreachable" in lines
    assert "being counted again" not in lines
    again = start_redis(int(storage.split(":")[2].partition("/")[0]), tmp_path)
    try:
        wait_until(lambda: fail(client) == 429)
        assert capfd.readouterr().out.count('"being counted again: ') == 1
    finally:
        again.terminate()
        again.wait(HANG_SECONDS)


def test_a_host_whose_redis_never_existed_serves_without_counting(host):
    client = host(f"redis://127.0.0.1:{free_port()}/0")
    assert [fail(client) for _ in range(5)] == [401] * 5


HOSTILE_ANSWERS = {
    "nothing": b"",
    "the end of the connection": None,
    "garbage": b"\x00\xff HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error": b"-ERR no\r\n",
    "out of memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "another server": b"-MOVED 1 127.0.0.1:1\r\n",
    "no values": executed(b"$-1\r\n", b"$-1\r\n"),
    "texts": executed(b"+one\r\n", b"+two\r\n"),
    "not a number": executed(b"$3\r\nnan\r\n", b"$3\r\ninf\r\n"),
    "a time that is not a number": executed(b":99\r\n", b"$3\r\nnan\r\n"),
    "a negative count": executed(b":-5\r\n", b":-5\r\n"),
    "a count of 20 digits": executed(b":" + b"9" * 20 + b"\r\n", b":" + b"9" * 20 + b"\r\n"),
    "a time of 400 digits": executed(b":99\r\n", b":" + b"9" * 400 + b"\r\n"),
    "a count of 5,000 digits": executed(b":" + b"9" * 5000 + b"\r\n", b":1\r\n"),
    "arrays in arrays": b"*1\r\n" * 20_000,
    "a length of 20 digits": b"$" + b"9" * 20 + b"\r\n",
    "a million answers": b":1\r\n" * 1_000_000,
}


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS)
def test_whatever_redis_answers_callers_are_served(app_with, issuer, issued, answer):
    with hostile_redis(HOSTILE_ANSWERS[answer]) as redis:
        app = app_with(verify_failure_limit=3, issue_limit=3, ratelimit_storage_url=redis.url)
        client, member = app.test_client(), client_of(app, issuer.sign())
        for call in (lambda: verify(client, CLIENT_ID), lambda: issue(member)):
            response = call()
            assert redis.questions > 0
            if response.status_code == 429:
                assert 0 < int(response.headers["Retry-After"]) <= 60
            else:
                assert response.status_code in (200, 401)
        assert verify(client, issued.client_id, issued.client_secret).status_code == 200


def test_a_redis_that_drips_holds_nobody(app_with, issued):
    with hostile_redis(b"+OK...", drips=True) as redis:
        client = app_with(verify_failure_limit=3, ratelimit_storage_url=redis.url).test_client()
        assert fail(client) == 401
        assert verify(client, issued.client_id, issued.client_secret).status_code == 200
        assert (redis.questions, redis.ended_drips) == (1, 0)


def test_counting_resumes_when_redis_is_well_again(host):
    with hostile_redis(b"+nonsense\r\n") as redis:
        client = host(redis.url)
        assert [fail(client) for _ in range(5)] == [401] * 5
        redis.answer = executed(b":4\r\n", b":60\r\n")
        wait_until(lambda: fail(client) == 429)


def test_redis_contains_no_addresses_and_no_client_ids(redis, counters_in):
    storage, _ = redis
    RateLimit("x", 3, counters_in(storage)).count("203.0.113.7", CLIENT_ID)
    (name,) = redis_cli(storage, "KEYS", "*").splitlines()
    assert "203.0.113.7" not in name
    assert CLIENT_ID not in name
    assert 0 < int(redis_cli(storage, "TTL", name)) <= 60


def test_another_digest_key_makes_other_names(redis, counters_in):
    """So nobody without the key can compute which two callers would share a counter."""
    storage, _ = redis
    for secret in (b"a" * 32, b"b" * 32):
        RateLimit("x", 3, counters_in(storage, secret)).count("203.0.113.7", CLIENT_ID)
    assert len(redis_cli(storage, "KEYS", "*").splitlines()) == 2


def test_memory_counts_every_key_by_itself():
    limit = RateLimit("x", 1, MemoryCounters())
    keys = [("203.0.113.1", f"lv_ci_{number}") for number in range(10_000)]
    assert [limit.count(*key) for key in keys] == [None] * len(keys)
    assert all(limit.count(*key) for key in keys)


def test_made_up_keys_take_a_limited_amount_of_memory():
    """They make way for each other before a counter in use does."""
    limit = RateLimit("x", 2, MemoryCounters())
    tracemalloc.start()
    try:
        for number in range(100_000):
            limit.count(f"203.0.113.1 {number}")
            limit.count("in use")
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 10_000_000
    assert limit.check("in use") is not None
    assert limit.check("203.0.113.1 0") is None
