"""A limit that several hosts share through a real Redis."""

import subprocess

import pytest

from app.credentials.generator import generate_client_secret
from tests.helpers import basic, require
from tests.running_server import HANG_SECONDS, free_port, wait_until

CLIENT_ID = "lv_ci_" + "a" * 20


@pytest.fixture
def redis(tmp_path):
    require("redis-server", install="apt-get install redis-server")
    port = str(free_port())
    process = subprocess.Popen(
        ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    ping = ["redis-cli", "-p", port, "ping"]
    wait_until(lambda: b"PONG" in subprocess.run(ping, capture_output=True, check=False).stdout)
    yield f"redis://127.0.0.1:{port}/0", process
    process.terminate()
    process.wait(HANG_SECONDS)


@pytest.fixture
def host(app_with):
    """Return a function that starts a host with this storage and returns its client."""

    def host(storage):
        changes = {"verify_failure_limit": 3, "ratelimit_storage_url": storage}
        return app_with(**changes).test_client()

    return host


def fail(client):
    headers = basic(CLIENT_ID, generate_client_secret())
    return client.get("/verify", headers=headers).status_code


def test_hosts_that_share_a_redis_count_together(redis, host):
    storage, _ = redis
    first, second = host(storage), host(storage)
    assert [fail(first), fail(second), fail(first)] == [401] * 3
    assert [fail(first), fail(second)] == [429] * 2


def test_a_host_that_loses_its_redis_keeps_serving_without_counting(redis, host):
    storage, process = redis
    client = host(storage)
    assert fail(client) == 401
    process.terminate()
    process.wait(HANG_SECONDS)
    assert [fail(client) for _ in range(5)] == [401] * 5


def test_a_host_whose_redis_never_existed_serves_without_counting(host):
    client = host(f"redis://127.0.0.1:{free_port()}/0")
    assert [fail(client) for _ in range(5)] == [401] * 5
