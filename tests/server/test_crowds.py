"""More connections than a worker can have: nobody takes them from senders, and no worker ends."""

import socket
import subprocess
from contextlib import ExitStack

import psutil
import pytest

from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic, caller
from tests.running_server import HANG_SECONDS, running_server, wait_until

FILES = 256
CROWD = 600  # more than a process may have files, twice

pytestmark = pytest.mark.parametrize("worker_class", WORKER_CLASSES)


@pytest.fixture
def server(settings, worker_class):
    variables = environment(settings, worker_class=worker_class, web_concurrency=1)
    with running_server(variables, max_files=FILES) as server:
        yield server


@pytest.fixture
def crowd(server):
    """Return a function that opens connections, and sends the bytes on each."""
    with ExitStack() as stack:

        def crowd(number, sent=b""):
            clients = []
            for _ in range(number):
                client = socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS)
                clients.append(stack.enter_context(client))
                client.sendall(sent)
            return clients

        yield crowd


def workers_of(server):
    """Return the processes of the workers."""
    return {each.pid for each in psutil.Process(server.process.pid).children()}


def ask_on(client, pair):
    """Send a verification on the connection, and return the status of its answer."""
    lines = [f"{name}: {value}" for name, value in pair.items()]
    client.sendall("\r\n".join(["GET /verify HTTP/1.1", "Host: x", *lines, "", ""]).encode())
    with client.makefile("rb") as answer:
        status = int(answer.readline().split()[1])
        length = 0
        while (line := answer.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer.read(length)
    return status


@pytest.mark.parametrize("sent", [b"", b"GET /ver", b"GET /verify HTTP/1.1\r\nHost: x\r\n"])
def test_a_crowd_that_sends_no_request_takes_nothing_from_senders(
    server, service, crowd, worker_class, sent
):
    issued = service.issue(caller(), name="x")
    pair = basic(issued.client_id, issued.client_secret)
    workers = workers_of(server)
    (sender,) = crowd(1)
    assert ask_on(sender, pair) == 200
    crowd(CROWD, sent if worker_class == "fastpath" else b"")
    assert ask_on(sender, pair) == 200
    assert server.request("GET", "/verify", **pair).status == 200
    assert workers_of(server) == workers


def test_those_who_have_waited_longest_make_room(server, crowd, worker_class):
    clients = crowd(CROWD)
    assert server.request("GET", "/healthz").status == 200
    assert [each.recv(1) for each in clients[: CROWD // 2]] == [b""] * (CROWD // 2)


def test_idle_connections_make_room_for_others(server, service, crowd, worker_class):
    issued = service.issue(caller(), name="x")
    pair = basic(issued.client_id, issued.client_secret)
    workers = workers_of(server)
    for _ in range(CROWD):
        (client,) = crowd(1)
        assert ask_on(client, pair) == 200
    assert workers_of(server) == workers


def test_a_worker_without_a_file_pauses_and_goes_on(server, service, crowd, worker_class):
    issued = service.issue(caller(), name="x")
    pair = basic(issued.client_id, issued.client_secret)
    (worker,) = workers_of(server)
    (sender,) = crowd(1)
    assert ask_on(sender, pair) == 200
    open_files = psutil.Process(worker).num_fds()
    limit = ["prlimit", f"--pid={worker}"]
    subprocess.run([*limit, f"--nofile={open_files}:{FILES}"], check=True)
    crowd(3)
    wait_until(lambda: "accepts no connections for a moment" in server.output.read_text())
    assert ask_on(sender, pair) == 200
    subprocess.run([*limit, f"--nofile={FILES}"], check=True)
    assert server.request("GET", "/verify", **pair).status == 200
    assert workers_of(server) == {worker}


@pytest.mark.parametrize("seconds", [0, 1])
def test_an_idle_connection_is_closed_after_the_seconds_of_the_setting(
    settings, service, rows, worker_class, seconds
):
    issued = service.issue(caller(), name="x")
    pair = basic(issued.client_id, issued.client_secret)
    variables = environment(settings, worker_class=worker_class, keep_alive_seconds=seconds)
    with (
        running_server(variables) as server,
        socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as client,
    ):
        assert ask_on(client, pair) == 200
        assert client.recv(1) == b""
