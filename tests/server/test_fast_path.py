"""Verifications on many connections at once, whatever clients and the database do."""

import random
import signal
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPMessage, parse_headers
from typing import NamedTuple

import psycopg
import pytest

from app.credentials.generator import generate_client_id, generate_client_secret
from tests.conftest import environment
from tests.helpers import basic, caller, typo_of
from tests.running_server import HANG_SECONDS, running_server, wait_until

CLIENTS = 64
_DISTURBANCES = 10
_PIPELINED = [1, 1, 1, 2, 5]  # how many requests a client sends at once


@pytest.fixture
def start(settings, rows):
    """Return a context manager that runs the service on the fast path."""

    def start(**changes):
        return running_server(environment(settings, worker_class="fastpath", **changes))

    return start


@pytest.fixture
def fast(start):
    with start(verify_failure_limit=0) as server:
        yield server


@pytest.fixture
def observer(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@contextmanager
def locked(observer):
    """Let each verification wait for a lock, if it is not given up before."""
    with observer.transaction():
        observer.execute("LOCK TABLE client_secrets IN ACCESS EXCLUSIVE MODE")
        yield


class Answer(NamedTuple):
    status: int
    fields: HTTPMessage
    body: bytes


class Client:
    """A connection that may have several requests under way."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=HANG_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, text):
        self.socket.sendall(text)

    def receive(self):
        """Return the next answer."""
        status = int(self._reader.readline().split()[1])
        fields = parse_headers(self._reader)
        return Answer(status, fields, self._reader.read(int(fields["Content-Length"])))

    def has_ended(self):
        return self._reader.read(1) == b""

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self._reader.close()
        self.socket.close()


def message(client_id, client_secret, request_id="x"):
    headers = basic(client_id, client_secret) | {"X-Request-Id": request_id}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET /verify HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()


def pair_of(credential):
    return credential.client_id, credential.client_secret


class Asker:
    """Asks about pairs of all kinds, cut and pipelined at random, on a connection of its own."""

    def __init__(self, server, number, credentials):
        self._server = server
        self._number = number
        self._random = random.Random(number)  # noqa: S311  a test must be repeatable
        self._credentials = credentials
        self.statuses = Counter()
        self.expected = {}  # the client ID in the log line of each request

    def ask(self, requests):
        client = Client(self._server)
        while len(self.expected) < requests:
            batch = [self._question() for _ in range(self._random.choice(_PIPELINED))]
            self._send(client, b"".join(text for text, *_ in batch))
            for _, request_id, client_id, is_right in batch:
                answer = client.receive()
                assert answer.fields["X-Request-Id"] == request_id
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    assert is_right
                    assert f'"{client_id}"'.encode() in answer.body
                    assert answer.fields["X-LeadVibe-Client-Id"] == client_id
                elif answer.status == 401:
                    assert not is_right
                else:
                    assert answer.status == 503
            if self._random.random() < 0.02:
                self._leave(client)
                client = Client(self._server)
        client.close()

    def _question(self):
        one, other = self._random.sample(self._credentials, 2)
        pairs = [
            (one.client_id, one.client_secret, True),
            (one.client_id, one.client_secret, True),
            (one.client_id, other.client_secret, False),
            (one.client_id, generate_client_secret(), False),
            (generate_client_id(), one.client_secret, False),
            (typo_of(one.client_id), one.client_secret, False),
            ("malformed", one.client_secret, False),
        ]
        client_id, client_secret, is_right = self._random.choice(pairs)
        request_id = f"{self._number}-{len(self.expected)}"
        self.expected[request_id] = None if client_id == "malformed" else client_id
        return message(client_id, client_secret, request_id), request_id, client_id, is_right

    def _send(self, client, text):
        if self._random.random() < 0.2:
            cut = self._random.randrange(len(text))
            client.send(text[:cut])
            text = text[cut:]
        client.send(text)

    def _leave(self, client):
        """End the connection in one of several states, without waiting for an answer."""
        text = message(*pair_of(self._credentials[0]), "left")
        client.send(text[: self._random.choice([0, 1, 20, len(text) - 1, len(text)])])
        (client.reset if self._random.random() < 0.5 else client.close)()


def ask_all(server, service, requests, disturb=lambda: None):
    """Let all clients ask, and return how many answers had each status.

    `disturb` is called _DISTURBANCES times. Every answer belongs to its request, and has exactly
    one log line.
    """
    credentials = [service.issue(caller(), name=f"c{number}") for number in range(8)]
    askers = [Asker(server, number, credentials) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(each.ask, requests // CLIENTS) for each in askers]
        for number in range(_DISTURBANCES):
            wait_until(lambda so_far=number: asked_by(askers) >= so_far * requests / _DISTURBANCES)
            disturb()
        for each in asked:
            each.result()
    expected = {key: value for each in askers for key, value in each.expected.items()}
    lines = [line for line in server.log() if line["message"] == "request"]
    logged = [line for line in lines if line["request_id"] in expected]
    assert len(logged) == len(expected)
    assert {line["request_id"]: line["client_id"] for line in logged} == expected
    return sum((each.statuses for each in askers), Counter())


def asked_by(askers):
    return sum(len(each.expected) for each in askers)


@pytest.mark.parametrize("requests", [6_400, pytest.param(100_000, marks=pytest.mark.long)])
def test_every_answer_belongs_to_its_request_and_has_one_log_line(fast, service, requests):
    statuses = ask_all(fast, service, requests)
    assert statuses[200] > requests / 5
    assert statuses[401] > requests / 5
    assert not [line for line in fast.log() if line["level"] == "ERROR"]


def test_answers_belong_to_their_requests_while_connections_to_postgres_are_cut(
    fast, service, observer
):
    def cut():
        observer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'leadvibe-credentials'"
        )

    statuses = ask_all(fast, service, 6_400, cut)
    # at most those that were under way
    assert statuses[503] <= _DISTURBANCES * CLIENTS * max(_PIPELINED)
    assert not [line for line in fast.log() if line["level"] == "ERROR"]


def test_a_client_that_leaves_before_its_answer_disturbs_nobody(fast, service, rows, observer):
    credential = service.issue(caller(), name="x")
    with Client(fast) as waiting:
        with locked(observer):
            waiting.send(message(*pair_of(credential), "waits"))
            for number in range(32):
                client = Client(fast)
                client.send(message(*pair_of(credential), f"leaves-{number}"))
                (client.reset if number % 2 else client.close)()
            wait_for_the_lock(rows)
        assert waiting.receive().fields["X-Request-Id"] == "waits"
    wait_until(lambda: len(request_lines(fast)) >= 33)
    assert fast.request("GET", "/verify", **basic(*pair_of(credential))).status == 200


def wait_for_the_lock(rows):
    """Wait until a verification waits for the lock."""
    wait_until(lambda: rows("SELECT 1 FROM pg_locks WHERE NOT granted"))


def request_lines(server):
    return [each for each in server.log() if each.get("route") == "/verify"]


def test_requests_sent_before_the_answer_are_answered_in_order(fast, service, rows, observer):
    credential = service.issue(caller(), name="x")
    with Client(fast) as client:
        with locked(observer):
            client.send(message(*pair_of(credential), "first"))
            wait_for_the_lock(rows)
            client.send(message(*pair_of(credential), "second"))
            client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: third\r\n\r\n")
            client.socket.shutdown(socket.SHUT_WR)
        answers = [client.receive() for _ in range(3)]
        assert [each.fields["X-Request-Id"] for each in answers] == ["first", "second", "third"]
        assert answers[2].status == 200
        assert client.has_ended()


def test_while_a_table_is_locked_callers_get_503_and_afterwards_200(fast, service, observer):
    credential = service.issue(caller(), name="x")
    headers = basic(*pair_of(credential))
    with locked(observer), ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: fast.request("GET", "/verify", **headers), range(40)))
        assert fast.request("GET", "/healthz").status == 200
    assert {each.status for each in answers} == {503}
    wait_until(lambda: fast.request("GET", "/verify", **headers).status == 200)


@pytest.mark.parametrize("credentials", [50, pytest.param(1_250, marks=pytest.mark.long)])
def test_a_revocation_holds_at_once_in_every_process(start, service, credentials):
    with start(web_concurrency=2, verify_failure_limit=0) as server, ExitStack() as stack:
        connections = [
            stack.enter_context(
                closing(HTTPConnection("127.0.0.1", server.port, timeout=HANG_SECONDS))
            )
            for _ in range(8)
        ]

        def statuses(credential):
            headers = basic(*pair_of(credential))
            for each in connections:
                each.request("GET", "/verify", headers=headers)
            answers = [each.getresponse() for each in connections]
            return {answer.status for answer in answers if answer.read()}

        for number in range(credentials):
            credential = service.issue(caller(), name=f"r{number}")
            assert statuses(credential) == {200}
            service.revoke(caller(), credential.secret_id)
            assert statuses(credential) == {401}


def test_bcrypt_decides_on_the_fast_path_too(fast, service, rows):
    credential = service.issue(caller(), name="x")
    rows.execute("UPDATE client_secrets SET digest = NULL")
    wrong = basic(credential.client_id, generate_client_secret())
    assert fast.request("GET", "/verify", **wrong).status == 401
    assert fast.request("GET", "/verify", **basic(*pair_of(credential))).status == 200


def test_refusals_are_counted_on_the_fast_path_too(start, service):
    credential = service.issue(caller(), name="x")
    wrong = basic(credential.client_id, generate_client_secret())
    with start(verify_failure_limit=2) as server:
        answers = [server.request("GET", "/verify", **wrong).status for _ in range(3)]
        assert answers == [401, 401, 429]
        assert server.request("GET", "/verify", **basic(*pair_of(credential))).status == 200


def test_processes_that_share_a_redis_count_refusals_together(start, service, redis):
    """Threads count there; the loop goes on meanwhile, also while Redis does not respond."""
    storage, process = redis
    credential = service.issue(caller(), name="x")
    right, wrong = (
        basic(*pair_of(credential)),
        basic(credential.client_id, generate_client_secret()),
    )
    with start(web_concurrency=2, verify_failure_limit=20, ratelimit_storage_url=storage) as server:

        def statuses(headers, times):
            return [server.request("GET", "/verify", **headers).status for _ in range(times)]

        assert statuses(wrong, 20) == [401] * 20
        assert statuses(wrong, 10) == [429] * 10
        assert statuses(right, 10) == [200] * 10
        process.send_signal(signal.SIGSTOP)
        assert statuses(right, 10) == [200] * 10
        assert statuses(wrong, 4) == [401] * 4  # then nothing is limited
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: statuses(wrong, 1) == [429])


def test_the_client_address_comes_from_trusted_proxies(start):
    with start(trusted_proxies=1) as server:
        for forwarded, expected in [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.8", "203.0.113.8"),
            ('"', None),
        ]:
            answer = server.request("GET", "/verify", X_Forwarded_For=forwarded)
            request_id = answer.headers["x-request-id"]
            (line,) = [each for each in server.log() if each.get("request_id") == request_id]
            assert line["address"] == expected
