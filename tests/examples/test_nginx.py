"""The real nginx with examples/nginx/nginx.conf, in front of a stand-in for event ingestion."""

import os
import shutil
import signal
import subprocess
import threading
from base64 import b64encode
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.credentials.generator import generate_client_secret
from tests.helpers import caller
from tests.server import ROOT, Answer, free_port, wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None and "CI" not in os.environ,
    reason="nginx is not installed (apt-get install nginx-light)",
)


class Ingestion:
    """Keeps the events that reach it."""

    def __init__(self):
        self.events = []
        ingestion = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                ingestion.events.append((headers, body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

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
    ingestion = Ingestion()
    yield ingestion
    ingestion.stop()


@contextmanager
def running_nginx(directory, ports):
    """Run nginx on the example as it stands, but for its ports and where it keeps its files."""
    configuration = (ROOT / "examples" / "nginx" / "nginx.conf").read_text()
    for stated, actual in ports.items():
        assert f"127.0.0.1:{stated}" in configuration
        configuration = configuration.replace(f"127.0.0.1:{stated}", f"127.0.0.1:{actual}")
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
            )
            + f"access_log {directory}/access.log;\n",
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


@pytest.fixture
def send(tmp_path, server, ingestion):
    """Return a function that sends an event through nginx."""
    port = free_port()

    def send(client_id="", client_secret="", body=b'{"event": 1}', **headers):
        pair = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", port, timeout=15)
        try:
            connection.request("POST", "/events", body, {"Authorization": f"Basic {pair}"} | named)
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, response.read())
        finally:
            connection.close()

    with running_nginx(tmp_path, {8080: port, 8000: server.port, 9000: ingestion.port}):
        yield send


@pytest.fixture
def issued(service):
    return service.issue(caller(), name="x")


def test_a_good_pair_reaches_ingestion_with_the_unit_and_the_consent_flag(
    send, issued, ingestion, service
):
    assert send(issued.client_id, issued.client_secret).status == 202
    ((headers, body),) = ingestion.events
    assert body == b'{"event": 1}'
    assert headers["x-leadvibe-secret-id"] == issued.secret_id
    assert headers["x-leadvibe-unit-id"] == "unit_demo"
    assert headers["x-leadvibe-client-id"] == issued.client_id
    assert headers["x-leadvibe-trust-upstream-consent"] == "false"
    assert "authorization" not in headers


def test_what_the_sender_says_under_these_names_is_dropped(send, issued, ingestion):
    forged = {
        "X_LeadVibe_Unit_Id": "unit_other",
        "X_LeadVibe_Secret_Id": "sec_x",
        "X_LeadVibe_Client_Id": "lv_ci_x",
        "X_LeadVibe_Trust_Upstream_Consent": "true",
    }
    assert send(issued.client_id, issued.client_secret, **forged).status == 202
    ((headers, _),) = ingestion.events
    assert headers["x-leadvibe-unit-id"] == "unit_demo"
    assert headers["x-leadvibe-trust-upstream-consent"] == "false"
    assert "unit_other" not in str(headers)


def test_a_bad_pair_is_401_and_does_not_reach_ingestion(send, issued, ingestion):
    answers = [send(issued.client_id, generate_client_secret()), send("x", "y"), send()]
    assert [answer.status for answer in answers] == [401, 401, 401]
    assert answers[0].headers["www-authenticate"].startswith("Basic realm=")
    assert ingestion.events == []


def test_an_event_larger_than_our_own_limit_passes(send, issued, ingestion):
    event = b"x" * 100_000
    assert send(issued.client_id, issued.client_secret, body=event).status == 202
    assert ingestion.events[0][1] == event


def test_with_the_service_down_an_event_is_5xx_and_never_through(tmp_path, ingestion, issued, rows):
    port = free_port()
    pair = b64encode(f"{issued.client_id}:{issued.client_secret}".encode()).decode()
    with running_nginx(tmp_path, {8080: port, 8000: free_port(), 9000: ingestion.port}):
        connection = HTTPConnection("127.0.0.1", port, timeout=15)
        connection.request("POST", "/events", b"{}", {"Authorization": f"Basic {pair}"})
        assert connection.getresponse().status >= 500
        connection.close()
    assert ingestion.events == []
