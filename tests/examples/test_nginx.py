"""The real nginx with examples/nginx/nginx.conf, between senders and event ingestion.

The service is the real one, except where a test needs to see what nginx asks it, or needs an
answer that the service does not give on demand.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.credentials.generator import generate_client_secret
from app.times import parse_time
from tests.conftest import environment
from tests.helpers import basic, caller, time_in
from tests.server import ROOT, Answer, free_port, running_server, wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None and "CI" not in os.environ,
    reason="nginx is not installed (apt-get install nginx-light)",
)

VERIFIED = {
    "X-LeadVibe-Secret-Id": "sec_1",
    "X-LeadVibe-Unit-Id": "unit_demo",
    "X-LeadVibe-Client-Id": "lv_ci_1",
    "X-LeadVibe-Trust-Upstream-Consent": "true",
    "X-LeadVibe-Secret-Expires-At": "none",
}


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Backend:
    """An HTTP server that keeps the requests that reach it and gives one answer to all."""

    def __init__(self):
        self.received = []
        self.answer = Answer(202, {}, b"")
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                backend.received.append(Received(self.command, self.path, headers, body))
                self.send_response(backend.answer.status)
                for name, value in backend.answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(backend.answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(backend.answer.body)

            do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815  http.server asks for them

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def ingestion():
    ingestion = Backend()
    yield ingestion
    ingestion.stop()


@pytest.fixture
def verify():
    """A stand-in for the service, which accepts every sender unless told otherwise."""
    verify = Backend()
    verify.answer = Answer(200, VERIFIED, b"{}")
    yield verify
    verify.stop()


@contextmanager
def running_nginx(directory, replacements):
    """Run nginx on the example with the replacements, and with its files in the directory."""
    configuration = (ROOT / "examples" / "nginx" / "nginx.conf").read_text()
    for stated, actual in replacements.items():
        assert stated in configuration
        configuration = configuration.replace(stated, actual)
    (directory / "nginx.conf").write_text(
        f"daemon off;\npid {directory}/nginx.pid;\n"
        # root's nginx would else work as nobody, who may not write here
        + ("user root;\n" if os.geteuid() == 0 else "")
        + configuration.replace(
            "http {",
            "http {\n"
            + "".join(
                f"{name}_temp_path {directory}/{name};\n"
                for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        )
    )
    process = subprocess.Popen(
        ["nginx", "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until((directory / "nginx.pid").exists, 10)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@dataclass
class Sender:
    """Sends events through nginx."""

    port: int

    def __call__(
        self,
        client_id="",
        client_secret="",
        *,
        method="POST",
        path="/events",
        body=b'{"event": 1}',
        headers=None,
    ):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            headers = basic(client_id, client_secret) | (headers or {})
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, response.read())
        finally:
            connection.close()


@pytest.fixture
def send_through(tmp_path, ingestion):
    """Return a function that starts nginx in front of the service at a port."""
    with ExitStack() as stack:

        def send_through(service_port, **replacements):
            port = free_port()
            ports = {8080: port, 8000: service_port, 9000: ingestion.port}
            replacements = {
                **{f"127.0.0.1:{stated}": f"127.0.0.1:{ports[stated]}" for stated in ports},
                "/var/log/nginx": str(tmp_path),
                **replacements,
            }
            stack.enter_context(running_nginx(tmp_path, replacements))
            return Sender(port)

        yield send_through


@pytest.fixture
def send(send_through, server):
    return send_through(server.port)


@pytest.fixture
def send_past(send_through, verify):
    """Send events past the stand-in."""
    return send_through(verify.port)


@pytest.fixture
def issued(service):
    return service.issue(caller(), name="x")


def test_a_valid_pair_reaches_ingestion_with_the_unit_and_the_consent_flag(send, issued, ingestion):
    assert send(issued.client_id, issued.client_secret).status == 202
    (event,) = ingestion.received
    assert event.headers["x-leadvibe-secret-id"] == issued.secret_id
    assert event.headers["x-leadvibe-unit-id"] == "unit_demo"
    assert event.headers["x-leadvibe-client-id"] == issued.client_id
    assert event.headers["x-leadvibe-trust-upstream-consent"] == "false"
    assert "authorization" not in event.headers


def test_every_header_of_the_verification_reaches_ingestion(send_past, ingestion):
    send_past()
    (event,) = ingestion.received
    assert {name: event.headers[name.lower()] for name in VERIFIED} == VERIFIED


def test_the_sender_learns_when_its_client_secret_expires(send, service):
    issued = service.issue(caller(), name="x", expires_at=parse_time(time_in(days=3)))
    expires_at = send(issued.client_id, issued.client_secret).headers[
        "x-leadvibe-secret-expires-at"
    ]
    assert parse_time(expires_at) > datetime.now(UTC) + timedelta(days=2)
    assert "x-leadvibe-secret-expires-at" not in send("x", "y").headers


def test_forged_headers_never_reach_ingestion(send, issued, ingestion):
    names = [*VERIFIED, *map(str.upper, VERIFIED), *(name.replace("-", "_") for name in VERIFIED)]
    forged = dict.fromkeys(names, "forged")
    assert send(issued.client_id, issued.client_secret, headers=forged).status == 202
    (event,) = ingestion.received
    assert event.headers["x-leadvibe-unit-id"] == "unit_demo"
    assert event.headers["x-leadvibe-trust-upstream-consent"] == "false"
    assert "forged" not in event.headers.values()


def test_the_event_passes_unchanged(send, issued, ingestion):
    headers = {"Content-Type": "application/x-lead", "Content-Encoding": "x-lead"}
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    for method in methods:
        sent = {"method": method, "path": "/a%20b?x=1", "body": b"\x00\xff", "headers": headers}
        assert send(issued.client_id, issued.client_secret, **sent).status == 202
    assert [event.method for event in ingestion.received] == methods
    for event in ingestion.received:
        assert (event.path, event.body) == ("/a%20b?x=1", b"\x00\xff")
        assert {name: event.headers[name.lower()] for name in headers} == headers


def test_an_event_larger_than_the_limit_of_the_service_passes(send, issued, ingestion):
    event = b"x" * 100_000
    assert send(issued.client_id, issued.client_secret, body=event).status == 202
    assert ingestion.received[0].body == event


def test_a_chunked_event_passes(send, issued, ingestion):
    answer = send(issued.client_id, issued.client_secret, body=iter([b"one ", b"two"]))
    assert answer.status == 202
    assert ingestion.received[0].body == b"one two"


def test_every_answer_of_ingestion_passes_unchanged(send, issued, ingestion):
    headers = {"Retry-After": "37", "WWW-Authenticate": "Bearer", "Content-Type": "text/x-lead"}
    for status in (200, 302, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504):
        ingestion.answer = Answer(status, headers, b"ingestion's own")
        answer = send(issued.client_id, issued.client_secret)
        assert (answer.status, answer.body) == (status, b"ingestion's own")
        assert {name: answer.headers[name.lower()] for name in headers} == headers


def test_an_invalid_pair_is_401_and_does_not_reach_ingestion(send, issued, ingestion):
    answers = [send(issued.client_id, generate_client_secret()), send("x", "y"), send()]
    assert [answer.status for answer in answers] == [401, 401, 401]
    expected = 'Basic realm="LeadVibe", charset="UTF-8"'
    assert [answer.headers["www-authenticate"] for answer in answers] == [expected] * 3
    assert ingestion.received == []


def test_too_many_refusals_are_429_with_retry_after(
    send_through, settings, issued, ingestion, tmp_path
):
    with running_server(environment(settings, verify_failure_limit=2)) as server:
        send = send_through(server.port)
        answers = [send(issued.client_id, generate_client_secret()) for _ in range(4)]
        assert send(issued.client_id, issued.client_secret).status == 202
    assert [answer.status for answer in answers] == [401, 401, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert len(ingestion.received) == 1
    assert (tmp_path / "error.log").read_text() == ""


def test_without_a_database_an_event_is_503_with_retry_after(
    send_through, settings, issued, ingestion
):
    closed = f"postgresql://postgres@127.0.0.1:{free_port()}/credentials"
    with running_server(environment(settings, database_url=closed)) as server:
        pair = basic(issued.client_id, issued.client_secret)
        itself = server.request("GET", "/verify", **pair)
        answer = send_through(server.port)(issued.client_id, issued.client_secret)
    assert itself.status == answer.status == 503
    assert answer.headers["retry-after"] == itself.headers["retry-after"]
    assert ingestion.received == []


def test_retry_after_is_what_the_service_gave(send_past, verify, ingestion):
    for status in (429, 503):
        verify.answer = Answer(status, {"Retry-After": "37"}, b"{}")
        answer = send_past()
        assert (answer.status, answer.headers["retry-after"]) == (status, "37")
    assert ingestion.received == []


def test_any_other_answer_of_the_service_is_503(send_past, verify, ingestion):
    for status in (302, 400, 403, 404, 431, 500, 502):
        verify.answer = Answer(status, {}, b"{}")
        answer = send_past()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ingestion.received == []


def test_the_answer_of_the_second_server_counts_when_the_first_is_down(send_through, verify):
    verify.answer = Answer(429, {"Retry-After": "37"}, b"{}")
    only = f"server 127.0.0.1:{verify.port};"
    send = send_through(verify.port, **{only: f"server 127.0.0.1:{free_port()}; {only}"})
    answer = send()
    assert (answer.status, answer.headers["retry-after"]) == (429, "37")


def test_without_the_service_an_event_is_503_with_retry_after(send_through, ingestion):
    answer = send_through(free_port())()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ingestion.received == []


def test_with_a_service_that_hangs_an_event_is_503_with_retry_after(send_through, ingestion):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        shorter = {"proxy_read_timeout 6s": "proxy_read_timeout 200ms"}
        answer = send_through(hanging.getsockname()[1], **shorter)()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ingestion.received == []


ODD_HEADERS = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Ssl": "off",
    "X-Forwarded-For": "203.0.113.7",
    "X-Request-Id": "the sender's",
    "X-HTTP-Method-Override": "DELETE",
    "Connection": "Upgrade, Authorization",
    "Content-Encoding": "gzip",
    "Cookie": "activeOu=unit_other",
    "Expect": "100-continue",
    "If-None-Match": "*",
    "Range": "bytes=0-0",
    "Script-Name": "/x",
    "Upgrade": "h2c",
    "X-Long": "x" * 8000,
} | {f"X-Odd-{number}": "x" for number in range(120)}


@pytest.fixture
def _many_headers(monkeypatch):
    """Let Python's own HTTP server take more than a hundred headers."""
    monkeypatch.setattr("http.client._MAXHEADERS", 1000)


@pytest.mark.usefixtures("_many_headers")
def test_of_the_headers_only_authorization_reaches_the_service(send_past, verify, ingestion):
    send_past("lv_ci_1", "lv_cs_1", method="PUT", headers=ODD_HEADERS)
    (question,), (event,) = verify.received, ingestion.received
    assert (question.method, question.path, question.body) == ("GET", "/verify", b"")
    assert question.headers == {
        "host": "credentials",
        "authorization": basic("lv_ci_1", "lv_cs_1")["Authorization"],
        "x-request-id": event.headers["x-request-id"],
        "x-forwarded-for": "127.0.0.1",
    }
    assert re.fullmatch("[0-9a-f]{32}", event.headers["x-request-id"])
    assert event.headers["x-odd-119"] == "x"


@pytest.mark.usefixtures("_many_headers")
def test_odd_headers_do_not_change_the_verdict(send, issued):
    assert send(issued.client_id, issued.client_secret, headers=ODD_HEADERS).status == 202
    assert send(issued.client_id, generate_client_secret(), headers=ODD_HEADERS).status == 401


def test_what_nginx_rejects_is_400_and_asks_nobody(send_past, verify, ingestion):
    assert send_past(headers={"Host": "a b"}).status == 400
    assert send_past(headers={"X-Long": "x" * 9000}).status == 400
    assert verify.received == ingestion.received == []


def test_a_malformed_authorization_is_401(send, ingestion):
    for value in ("", "x", "Basic", "Basic ", "Basic =", "Basic \x01", "Basic \xff", "Bearer x"):
        assert send(headers={"Authorization": value}).status == 401
    assert ingestion.received == []


def test_a_long_authorization_is_401_up_to_what_nginx_takes(send):
    statuses = [
        send(headers={"Authorization": "Basic " + "x" * length}).status
        for length in (1000, 4000, 4004, *range(8160, 8180))
    ]
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) == {401, 400}


def test_the_scheme_may_be_written_in_any_case(send, issued):
    value = basic(issued.client_id, issued.client_secret)["Authorization"]
    for scheme in ("basic", "BASIC"):
        headers = {"Authorization": value.replace("Basic", scheme)}
        assert send(headers=headers).status == 202


def test_no_client_secret_is_logged(send_through, server, issued, ingestion, tmp_path):
    pair = issued.client_id, issued.client_secret
    send = send_through(server.port)
    assert send(*pair).status == 202
    assert send(*pair, headers={"X-Long": "x" * 9000}).status == 400
    assert send(*reversed(pair)).status == 401
    ingestion.stop()
    assert send(*pair).status == 502
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    wait_until(lambda: len(access.read_text().splitlines()) == 4, 10)
    logged = access.read_text() + errors.read_text()
    assert issued.client_id in logged
    assert issued.client_secret not in logged
    assert basic(*pair)["Authorization"].removeprefix("Basic ") not in logged
