"""The service on a Unix socket: gunicorn's own, and those that systemd hands over."""

import json
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count

import pytest

from app.credentials.generator import generate_client_secret
from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic, caller, require
from tests.running_server import (
    HANG_SECONDS,
    ROOT,
    Server,
    answers,
    ask,
    clean_environment,
    read_answer,
    wait_until,
)

FAILURE_LIMIT = 3
ACTIVATE = "systemd-socket-activate"


class Connection(HTTPConnection):
    """A connection to a Unix socket, from one that may have a name too."""

    def __init__(self, address, name=None):
        super().__init__("localhost", timeout=HANG_SECONDS)
        self._address, self._name = address, name

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(HANG_SECONDS)
        if self._name is not None:
            self.sock.bind(self._name)
        self.sock.connect(self._address)


@dataclass
class UnixServer(Server):
    address: str = ""

    def request(self, method, path, body=None, *, name=None, **headers):
        return ask(Connection(self.address, name), method, path, body, **headers)

    def send(self, message):
        connection = Connection(self.address)
        connection.connect()
        with connection.sock as client:
            client.sendall(message)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))


def command(listener, path, variables):
    """Return the command that starts the service, its variables, and the socket's address."""
    gunicorn = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    if listener == "gunicorn's":
        return gunicorn, variables | {"GUNICORN_CMD_ARGS": f"--bind unix:{path}"}, path
    require(ACTIVATE, install="apt-get install systemd")
    address = path if listener == "systemd's" else f"\0{path}"
    listen = ["-l", address.replace("\0", "@")]
    passed_on = [part for name in variables for part in ("-E", name)]
    return [ACTIVATE, *listen, *passed_on, *gunicorn], variables, address


@contextmanager
def running(listener, directory, variables):
    program, variables, address = command(
        listener, str(directory / "s"), clean_environment() | variables
    )
    output = directory / "output"
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            program, cwd=ROOT, env=variables, stdout=stdout, stderr=subprocess.STDOUT
        )
    server = UnixServer(0, process, output, address)
    try:
        wait_until(lambda: answers(server, process))
        yield server
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


@pytest.fixture(scope="module", params=WORKER_CLASSES)
def worker_class(request):
    return request.param


@pytest.fixture(scope="module", params=["gunicorn's", "systemd's", "abstract"])
def _server(request, settings, worker_class, tmp_path_factory):
    variables = environment(settings, worker_class=worker_class, verify_failure_limit=FAILURE_LIMIT)
    with running(request.param, tmp_path_factory.mktemp("u"), variables) as server:
        yield server


@pytest.fixture(params=["unnamed", "path", "autobind", "abstract", "not UTF-8"])
def name(request, tmp_path):
    """The name of the client's socket, which most clients do not have."""
    return {
        "unnamed": None,
        "path": str(tmp_path / "c"),
        "autobind": "",
        "abstract": f"\0{tmp_path}".encode(),
        "not UTF-8": f"\0{tmp_path}".encode() + b"\xff:8080",
    }[request.param]


@pytest.fixture
def issued(service):
    return service.issue(caller(), name="x")


def line_of(server, request_id):
    """Return the line of the request in the log."""
    lines = [line for line in server.output.read_text().splitlines() if request_id in line]
    (line,) = map(json.loads, lines)
    return line


def names_from(name):
    """Yield the name for each connection: that of a path can be used only once."""
    for number in count():
        yield f"{name}{number}" if isinstance(name, str) and name else name


def test_every_door_is_open(server, issued, issuer, name):
    pair = basic(issued.client_id, issued.client_secret)
    token = {"Authorization": f"Bearer {issuer.sign()}"}
    doors = [
        ("GET", "/verify", None, pair),
        ("HEAD", "/verify", None, pair),
        ("POST", "/verify", None, pair),
        ("POST", "/verify", b"a body", pair),
        ("GET", "/verify?x=1", None, pair),
        ("GET", "/readyz", None, {}),
        ("GET", "/healthz", None, {}),
        ("GET", "/metrics", None, {}),
        ("GET", "/docs", None, {}),
        ("GET", "/openapi.json", None, {}),
        ("GET", "/secrets", None, token),
        ("GET", f"/secrets/{issued.secret_id}", None, token),
    ]
    statuses = {
        door[:3]: server.request(*door[:3], name=name, **door[3]).status
        for door, name in zip(doors, names_from(name), strict=False)
    }
    assert set(statuses.values()) == {200}, statuses


def test_the_trail_and_the_log_have_no_address(server, issuer, rows, name):
    answer = server.request(
        "POST",
        "/secrets",
        b'{"name": "x"}',
        name=name,
        Authorization=f"Bearer {issuer.sign()}",
        Content_Type="application/json",
    )
    assert answer.status == 200
    assert rows("SELECT address FROM credential_events") == [{"address": None}]
    assert not line_of(server, answer.headers["x-request-id"])["address"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_failures_are_limited_by_the_client_id_alone(server, issued, service, name, method):
    body = b"a body" if method == "POST" else None
    wrong = basic(issued.client_id, generate_client_secret())
    names = names_from(name)
    statuses = [
        server.request(method, "/verify", body, name=next(names), **wrong).status
        for _ in range(FAILURE_LIMIT)
    ]
    statuses.append(server.request(method, "/verify", body, **wrong).status)
    assert statuses == [401] * FAILURE_LIMIT + [429]
    right = basic(issued.client_id, issued.client_secret)
    assert server.request(method, "/verify", body, name=next(names), **right).status == 200
    other = basic(service.issue(caller(), name="y").client_id, generate_client_secret())
    assert server.request(method, "/verify", body, name=next(names), **other).status == 401


def test_connections_are_kept_and_requests_may_follow_one_another(server, issued):
    pair = basic(issued.client_id, issued.client_secret)
    connection = Connection(server.address)
    for path in ("/verify", "/readyz", "/verify", "/healthz", "/verify"):
        connection.request("GET", path, headers=pair)
        assert read_answer(connection.getresponse()).status == 200
    connection.close()


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /verify HTTP/1.1\r\n\r\n", 400),
        (b"GET /secrets HTTP/1.0\r\n\r\n", 401),
        (b"GET /verify HTTP/1.0\r\n\r\n", 401),
        (b"not HTTP\r\n\r\n", 400),
        (b"POST /secrets HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", 401),
        (b"GET /secrets HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 401),
    ],
)
def test_odd_requests_get_the_same_answers_as_over_tcp(server, rows, message, status):
    answer = server.send(message)
    assert re.match(rb"HTTP/1\.[01] (\d+) ", answer)[1] == b"%d" % status
    assert b"application/problem+json" in answer


def test_a_proxy_reports_the_address_of_the_client(settings, worker_class, issuer, rows, tmp_path):
    """nginx on the same machine uses the socket, so only X-Forwarded-For has the address."""
    variables = environment(settings, worker_class=worker_class, trusted_proxies=1)
    token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
    with running("gunicorn's", tmp_path, variables) as server:
        for forwarded in ({"X_Forwarded_For": "203.0.113.7"}, {}):
            answer = server.request("POST", "/secrets", b'{"name": "x"}', **token, **forwarded)
            assert answer.status == 200
            answer = server.request("GET", "/verify", **forwarded)
            address = line_of(server, answer.headers["x-request-id"])["address"]
            assert (address or None) == forwarded.get("X_Forwarded_For")
    trail = rows("SELECT address FROM credential_events ORDER BY event_id")
    assert [event["address"] for event in trail] == ["203.0.113.7", None]
