"""Debian's nginx with the configuration of deploy/nginx, TLS and two instances of the service."""

import re
import signal
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urljoin

import pytest

from drills.nginx import nginx
from tests.certificate import HOST, make_certificate
from tests.conftest import environment
from tests.helpers import require
from tests.nginx import running_nginx
from tests.running_server import HANG_SECONDS, ROOT, Server, ask, free_port, running_server

pytestmark = pytest.mark.long


class Client:
    """Calls nginx as HOST, and trusts its certificate only."""

    def __init__(self, port, directory):
        self.port = port
        self.tls = ssl.create_default_context(cafile=str(directory / "fullchain.pem"))

    def request(self, method, path, body=None, **headers):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=HANG_SECONDS)
        connection = HTTPSConnection(HOST, self.port, context=self.tls)
        connection.sock = self.tls.wrap_socket(plain, server_hostname=HOST)
        return ask(connection, method, path, body, **headers)


@contextmanager
def nginx_of_deploy(directory, ports):
    def adapted(name):
        text = re.sub(
            r"(?<=listen )(80|443)\b|(?<=server 127\.0\.0\.1:)(8001|8002)\b",
            lambda port: f"{'127.0.0.1:' if port[1] else ''}{ports[int(port[0])]}",
            (ROOT / "deploy" / "nginx" / name).read_text(),
        )
        text = text.replace("/etc/nginx/tls", str(directory))
        return text.replace("/etc/nginx/security.txt", f"{directory}/security.txt")

    (directory / "upstream.conf").write_text(adapted("upstream.conf"))
    with running_nginx(adapted("nginx.conf"), directory):
        yield


@pytest.fixture
def instances(settings, rows):
    variables = environment(settings, trusted_proxies=1)
    with running_server(variables) as first, running_server(variables) as second:
        yield first, second


@pytest.fixture
def client(instances, tmp_path):
    make_certificate(tmp_path)
    port = free_port()
    plain = free_port()
    ports = {80: plain, 443: port, 8001: instances[0].port, 8002: instances[1].port}
    with nginx_of_deploy(tmp_path, ports):
        client = Client(port, tmp_path)
        client.plain_port = plain
        yield client


@pytest.fixture
def token(issuer):
    return {"Authorization": f"Bearer {issuer.sign()}"}


def test_people_manage_and_read_over_tls(client, token, tmp_path):
    issued = client.request(
        "POST", "/secrets", b'{"name": "x"}', Content_Type="application/json", **token
    )
    assert issued.status == 200
    secret_id = issued.json()["secret_id"]
    for path in ("/secrets?limit=5", f"/secrets/{secret_id}", f"/secrets/{secret_id}/events"):
        answer = client.request("GET", path, **token)
        assert answer.status == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    for path in (
        "/docs",
        "/docs/errors",
        "/docs.md",
        "/llms-full.txt",
        "/llms.txt",
        "/openapi.json",
    ):
        assert client.request("GET", path).status == 200
    assert urljoin("/", client.request("GET", "/").headers["location"]) == "/docs"
    assert client.request("GET", "/secrets").status == 401
    assert client.request("POST", "/secrets", b"x" * 20_000, **token).status == 413

    logged = (tmp_path / "access.log").read_text()
    assert issued.headers["x-request-id"] in logged
    assert token["Authorization"].removeprefix("Bearer ") not in logged


def test_endpoints_that_are_not_for_people_are_not_found(client, instances):
    paths = [
        "/verify", "/verify/", "//verify", "/./verify", "/docs/../verify", "/%76erify", "/VERIFY",
        "/secrets/../verify", "/metrics", "/healthz", "/readyz", "/secretsx", "/docs.mdx",
    ]  # fmt: skip
    assert [client.request("GET", path).status for path in paths] == [404] * len(paths)
    for instance in instances:
        routes = {line.get("route") for line in instance.log()}
        assert not {"/verify", "/metrics", "/readyz"} & routes


def test_security_txt_is_served_if_it_exists(client, tmp_path):
    path = "/.well-known/security.txt"
    assert client.request("GET", path).status == 404
    (tmp_path / "security.txt").write_text("Contact: mailto:security@example.com\n")
    answer = client.request("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    assert answer.body.startswith(b"Contact: ")


def test_both_instances_serve_and_see_the_address_of_the_client(client, instances, token):
    for _ in range(4):
        answer = client.request("GET", "/secrets", X_Forwarded_For="203.0.113.7", **token)
        assert answer.status == 200
    for instance in instances:
        lines = [line for line in instance.log() if line.get("route") == "/secrets"]
        assert {line["address"] for line in lines} == {"127.0.0.1"}


def test_no_request_fails_when_an_instance_stops(client, instances, token):
    first, _ = instances
    statuses = []
    for number in range(60):
        if number == 20:
            first.process.send_signal(signal.SIGTERM)
            first.process.wait(HANG_SECONDS)
        body = b'{"name": "x"}'
        headers = {"Content_Type": "application/json"} | token
        method, sent = ("POST", body) if number % 10 == 0 else ("GET", None)
        statuses.append(client.request(method, "/secrets", sent, **headers).status)
    assert set(statuses) == {200}


def test_plain_http_leads_to_https(client):
    connection = HTTPConnection("127.0.0.1", client.plain_port, timeout=HANG_SECONDS)
    connection.request("GET", "/docs?x=1", headers={"Host": HOST})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOST}/docs?x=1")
    connection.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_tls_older_than_1_2_is_refused(client):
    client.tls.set_ciphers("DEFAULT@SECLEVEL=0")  # or OpenSSL itself would refuse
    client.tls.minimum_version = ssl.TLSVersion.TLSv1
    client.tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        client.request("GET", "/docs")


class Dying:
    """An instance that reads each request and closes the connection instead of answering."""

    def __init__(self, received):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=[received])
        self._thread.start()

    def _serve(self, received):
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    received.append(connection.recv(65536).split(b" ")[0].decode())

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def dying():
    """Two instances that die, and the methods of the requests that they have received."""
    received = []
    both = Dying(received), Dying(received)
    yield *both, received
    for each in both:
        each.stop()


@contextmanager
def people(directory, first, second):
    """Run nginx with deploy/nginx, and yield a function that sends a request through it."""
    make_certificate(directory)
    port = free_port()
    ports = {80: free_port(), 443: port, 8001: first, 8002: second}
    with nginx_of_deploy(directory, ports):
        yield Client(port, directory).request


@contextmanager
def receivers(directory, first, second):
    """Run nginx with deploy/cluster, and yield a function that sends a request through it."""
    require("nginx", install="apt-get install nginx-light")
    with nginx(directory, [first, second]) as running:
        yield Server(running.port, None, None).request


@pytest.mark.parametrize(
    ("method", "times"), [("GET", 2), ("POST", 1), ("PUT", 1), ("PATCH", 1), ("DELETE", 1)]
)
@pytest.mark.parametrize("through", [people, receivers])
def test_a_change_is_never_sent_twice(tmp_path, dying, through, method, times):
    first, second, received = dying
    with through(tmp_path, first.port, second.port) as request:
        assert request(method, "/secrets", b"{}").status in (502, 503)
    assert received == [method] * times


@pytest.mark.parametrize("through", [people, receivers])
def test_a_change_goes_to_the_other_instance_if_one_is_unreachable(tmp_path, settings, through):
    with (
        running_server(environment(settings)) as instance,
        through(tmp_path, free_port(), instance.port) as request,
    ):
        methods = [method for method in ("POST", "PUT", "PATCH", "DELETE") for _ in range(3)]
        # without a token; 405 where /secrets does not support the method
        statuses = {request(method, "/secrets", b"{}").status for method in methods}
    assert statuses == {401, 405}
