"""Connections that clients keep open, cut or neglect, with both workers."""

import json
import os
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import BadStatusLine, HTTPConnection, HTTPResponse
from time import monotonic

import psutil
import pytest

from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic, caller
from tests.running_server import HANG_SECONDS, running_server, wait_until

CHUNKED, JSON = "Transfer-Encoding: chunked", "Content-Type: application/json"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def fast(settings, rows):
    with running_server(environment(settings, worker_class="fastpath")) as server:
        yield server


def connect(server):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=HANG_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect_without_reading(server):
    """Open a connection whose client has room for few responses."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    return connection


def receive(client):
    """Return the next answer, or None if the connection has ended."""
    answer = HTTPResponse(client)
    try:
        answer.begin()
    except (OSError, BadStatusLine):
        return None
    answer.read()
    return answer


def verification(credential, **headers):
    lines = (basic(credential.client_id, credential.client_secret) | headers).items()
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"GET /verify HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()


def is_held(server, clients):
    """Tell whether the server has closed none of the connections, even if half of one is closed."""
    held = {
        each.raddr.port
        for worker in psutil.Process(server.process.pid).children()
        for each in worker.net_connections("tcp")
        if each.raddr
    }
    return held >= {client.getsockname()[1] for client in clients}


def test_one_connection_serves_every_kind_of_work_in_turn(server, service, issuer):
    issued = service.issue(caller(), name="x")
    bearer = {"Authorization": f"Bearer {issuer.sign()}"}
    connection = HTTPConnection("127.0.0.1", server.port, timeout=HANG_SECONDS)
    for _ in range(5):
        for path, headers in [
            ("/verify", basic(issued.client_id, issued.client_secret)),
            ("/secrets", bearer),
            ("/healthz", {}),
            ("/readyz", {}),
            ("/verify", basic(issued.client_id, issued.client_secret)),
            ("/verify?query", basic(issued.client_id, issued.client_secret)),
        ]:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, path
    connection.close()


def test_clients_that_do_not_close_delay_nobody(server):
    """With gunicorn's own worker, each would hold the main thread for two seconds."""

    def are_there_when_another_is_served():
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(5)]
            for client in clients:
                client.sendall(HEALTHZ.replace(b"Host", b"Connection: close\r\nHost"))
                assert receive(client).status == 200
            assert server.request("GET", "/healthz").status == 200
            return is_held(server, clients)

    wait_until(are_there_when_another_is_served)


def test_half_sent_requests_hold_no_thread(fast, service):
    issued = service.issue(caller(), name="x")
    body = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(20):
            for half in (
                *(HEALTHZ[:-2], verification(issued)[:-2], b"GET /sec", b"G", b"\r\n"),
                *(body % path for path in (b"healthz", b"verify", b"secrets")),
            ):
                stack.enter_context(connect(fast)).sendall(half)
        for path, headers in [
            ("/healthz", {}),
            ("/verify", basic(issued.client_id, issued.client_secret)),
        ]:
            assert fast.request("GET", path, **headers).status == 200


def test_half_sent_heads_are_closed_after_five_seconds(fast, service):
    """It tries a new connection, one that did other work before, and one on the fast path."""
    message = verification(service.issue(caller(), name="x"))
    with ExitStack() as stack:
        started = monotonic()
        clients = [stack.enter_context(connect(fast)) for _ in range(3)]
        for client, earlier in zip(clients, (None, HEALTHZ, message), strict=True):
            if earlier:
                client.sendall(earlier)
                assert receive(client).status == 200
            client.sendall(message[:30])
        assert all(client.recv(1000) == b"" for client in clients)
        assert monotonic() - started >= 5


def chunked(path, *lines):
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", CHUNKED, JSON, *lines))
    return head.encode() + b"\r\n\r\n"


def test_a_body_that_stops_is_answered_after_five_seconds_and_logged(server, issuer):
    length = b"Content-Length: 40\r\n\r\n"
    requests = {
        "chunked": ("/secrets", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        "nothing": ("/secrets", length),
        "begun": ("/secrets", length + b"{"),
        "long": ("/secrets", b"Content-Length: 12000\r\n\r\n{"),
        "expected": ("/secrets", b"Expect: 100-continue\r\n" + length),
        "probe": ("/healthz", length),
        "page": ("/docs", length + b"{"),
    }
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connect(server)) for name in requests}
        for name, (path, rest) in requests.items():
            method = "POST" if path == "/secrets" else "GET"
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: stops-{name}\r\n"
                f"Authorization: Bearer {issuer.sign()}\r\n"
            )
            clients[name].sendall(head.encode() + rest)
        for client in clients.values():
            answers = stack.enter_context(client.makefile("rb")).read()
            answer = answers.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nConnection: close\r\n" in answer
            assert b"\r\nContent-Type: application/problem+json\r\n" in answer
            assert answer.count(b"HTTP/1.1 ") == 1
    for name in requests:
        (line,) = [each for each in server.log() if each.get("request_id") == f"stops-{name}"]
        assert (line["message"], line["status"]) == ("request", 400)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 77\r\n\r\n",
        b"Content-Length: 77\r\n\r\n{",
        b"content-length: 12000\r\n\r\n{",
        b"Connection: keep-alive\r\nContent-Length: 1\r\n\r\n",
        b"Content-Length: 5\r\n\r\nwhole",
    ],
)
@pytest.mark.parametrize(
    "start", [b"GET /verify", b"POST /verify", b"POST /verify?x", b"POST /verify/ingest"]
)
def test_a_verification_does_not_wait_for_its_body(server, service, start, rest):
    message = verification(service.issue(caller(), name="x")).replace(b"GET /verify", start)
    with connect(server) as client:
        client.sendall(message[:-2] + rest)  # and nothing else, so only the answer can end this
        client.settimeout(HANG_SECONDS)
        answer = receive(client)
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        assert receive(client) is None


def test_requests_that_stop_delay_nobody(server, service, issuer):
    """Each holds a thread, until it is cut off."""
    long = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
    half = b"GET %s HTTP/1.1\r\nHost: x\r\n"
    pair = service.issue(caller(), name="x")

    def are_there_when_others_are_served():
        with ExitStack() as stack:
            clients = []
            for path in (b"/nope", b"/verify", b"/secrets", b"/healthz") * 5:
                for head in (chunked(path.decode()), long % path, half % path):
                    clients.append(stack.enter_context(connect(server)))
                    clients[-1].sendall(head)
            for method, path, headers, body in [
                ("GET", "/healthz", {}, None),
                ("GET", "/metrics", {}, None),
                ("GET", "/secrets", {"Authorization": f"Bearer {issuer.sign()}"}, None),
                ("GET", "/verify", basic(pair.client_id, pair.client_secret), None),
                ("POST", "/verify", basic(pair.client_id, pair.client_secret), b"x"),
            ]:
                assert server.request(method, path, body, **headers).status == 200
            return is_held(server, clients)

    wait_until(are_there_when_others_are_served)


@pytest.mark.long
def test_a_body_that_drips_is_cut_off(server, issuer):
    with connect(server) as client:
        client.sendall(chunked("/secrets", f"Authorization: Bearer {issuer.sign()}"))

        def is_answered_after_another_drop():
            client.sendall(b"1\r\n{\r\n")
            return select.select([client], [], [], 0)[0]

        wait_until(is_answered_after_another_drop)
        assert receive(client).status == 400


@pytest.mark.parametrize(("path", "expected"), [("/secrets", 401), ("/nope", 404)])
def test_the_body_of_a_stranger_is_not_waited_for(server, path, expected):
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(server))
            client.sendall(chunked(path) + b"5\r\n{")
            answer = receive(client)
            assert (answer.status, answer.getheader("Connection")) == (expected, "close")
            assert receive(client) is None


def test_slow_bodies_beyond_a_short_queue_are_refused_at_once(server, issuer, issued):
    """The clients send nothing more. Those who hold a thread or wait for one are cut off later."""
    path = f"/secrets/{issued.secret_id}"
    token = f"Authorization: Bearer {issuer.sign()}"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(60)]
        for client in clients:
            client.sendall(chunked("/docs").replace(b"POST", b"GET", 1) + b"5\r\n{")
        refused, _, _ = select.select(clients, [], [], HANG_SECONDS)
        answer = receive(refused[0])
        assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
        with connect(server) as manager:
            change = chunked(path, token).replace(b"POST", b"PUT", 1)
            manager.sendall(change + b'20\r\n{"trust_upstream_consent":false}\r\n0\r\n\r\n')
            assert receive(manager).status == 204
        for other in ("/docs", "/metrics", "/healthz"):
            assert server.request("GET", other).status == 200
        assert {receive(client).status for client in clients if client is not refused[0]} == {
            400, 503
        }  # fmt: skip


def test_a_unit_with_slow_bodies_keeps_places_for_others(server, issuer):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(80)]
        greedy = f"Authorization: Bearer {issuer.sign(unit_id='unit_greedy')}"
        for client in clients:
            client.sendall(chunked("/secrets", greedy) + b"5\r\n{")
        refused, _, _ = select.select(clients, [], [], HANG_SECONDS)
        assert receive(refused[0]).status == 503
        with connect(server) as client:
            client.sendall(chunked("/secrets", f"Authorization: Bearer {issuer.sign()}"))
            client.sendall(b'c\r\n{"name":"x"}\r\n0\r\n\r\n')
            assert receive(client).status == 200


def test_slow_readers_of_pages_do_not_delay_probes(server):

    def are_there_when_a_probe_is_served():
        with ExitStack() as stack:
            clients = [stack.enter_context(connect_without_reading(server)) for _ in range(8)]
            for client in clients:
                client.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
            assert server.request("GET", "/healthz").status == 200
            return is_held(server, clients)

    wait_until(are_there_when_a_probe_is_served)


def test_an_idle_connection_is_closed_after_two_seconds(server, service):
    message = verification(service.issue(caller(), name="x"))
    with connect(server) as client:
        started = monotonic()
        client.sendall(message)
        assert receive(client).status == 200
        assert client.recv(1000) == b""
        assert monotonic() - started >= 2


def test_a_client_that_reads_no_answers_is_cut_off_and_delays_nobody(fast, service):
    issued = service.issue(caller(), name="x")
    message = verification(issued)

    def flood():
        with connect_without_reading(fast) as client, suppress(OSError):
            client.settimeout(5)  # nobody receives any more
            while True:
                client.sendall(message)

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
    for each in floods:
        each.start()
    headers = basic(issued.client_id, issued.client_secret)
    for _ in range(20):
        assert fast.request("GET", "/verify", **headers).status in (200, 503)  # a flood is a load
    for each in floods:
        each.join(10 * HANG_SECONDS)  # the kernel accepts hundreds of responses for each
        assert not each.is_alive()
    assert fast.request("GET", "/verify", **headers).status == 200


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_a_stop_under_load_cuts_no_request_and_loses_no_line(settings, service, worker_class):
    """There are more callers than threads. Each answer has one log line, and the reverse."""
    issued = service.issue(caller(), name="x")
    answered = []

    def send_until_closed(connection, number):
        for turn in range(100_000):
            request_id = f"caller-{number}-{turn}"
            try:
                connection.sendall(verification(issued, **{"X-Request-Id": request_id}))
            except OSError:
                return
            answer = receive(connection)
            if answer is None:
                return
            assert answer.status in (200, 503)  # where the machine is too busy
            assert answer.headers["X-Request-Id"] == request_id
            answered.append(request_id)
            if answer.will_close:
                return

    with ExitStack() as stack:
        server = stack.enter_context(
            running_server(environment(settings, worker_class=worker_class))
        )
        connections = [stack.enter_context(connect(server)) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            callers = [
                pool.submit(send_until_closed, connection, number)
                for number, connection in enumerate(connections)
            ]
            wait_until(lambda: len(answered) > 300)
            server.process.terminate()
            for each in callers:
                each.result(HANG_SECONDS)
        server.process.wait(HANG_SECONDS)
        logged = [line["request_id"] for line in server.log() if line["message"] == "request"]
    assert sorted(set(logged) & set(answered)) == sorted(answered)
    assert sum(each.startswith("caller-") for each in logged) == len(answered)


def test_a_log_that_nobody_reads_holds_answers_back_but_not_the_worker(settings, service, rows):
    """No answer comes before its line. Everything goes on as soon as somebody reads."""
    issued = service.issue(caller(), name="x")
    reader, writer = os.pipe()

    def send_all(number):
        with connect(server) as connection:
            for turn in range(60):
                request_id = f"caller-{number}-{turn}"
                connection.sendall(verification(issued, **{"X-Request-Id": request_id}))
                assert receive(connection).status == 200
                yield request_id

    with ThreadPoolExecutor(9) as pool, ExitStack() as stack:
        server = stack.enter_context(
            running_server(
                environment(settings, worker_class="fastpath", web_concurrency=1), stdout=writer
            )
        )
        # the worker's own connection has run its SELECT once
        selects = (
            "SELECT FROM pg_stat_activity WHERE query LIKE '%%epoch FROM expires_at%%' "
            "AND state = 'idle' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        wait_until(lambda: rows(selects))
        callers = [pool.submit(list, send_all(number)) for number in range(8)]
        try:
            wait_until(lambda: not select.select([], [writer], [], 0)[1])
            with connect(server) as idle:
                assert idle.recv(1) == b""  # the worker has closed it, as always
            assert not all(each.done() for each in callers)
        finally:
            log = pool.submit(lambda: b"".join(iter(lambda: os.read(reader, 65536), b"")))
        answered = [request_id for each in callers for request_id in each.result()]
        stack.close()
        os.close(writer)
    os.close(reader)
    lines = [json.loads(line) for line in log.result().splitlines()]
    asked = [line["request_id"] for line in lines if line["message"] == "request"]
    assert sorted(each for each in asked if each.startswith("caller-")) == sorted(answered)
