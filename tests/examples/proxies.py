"""Run real proxies with the configurations of examples/, between a sender and ingestion."""

import os
import re
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests import nginx
from tests.helpers import basic
from tests.running_server import HANG_SECONDS, ROOT, Answer, free_port, read_answer, wait_until
from tests.tools import tool

EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Proxy:
    """A proxy with an example, and what it cannot do in contrast to the others."""

    name: str
    files: tuple[str, ...]  # the program is started with the first one
    # /verify is asked with the event's method, and knows no other methods than these
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    tells_the_sender_the_expiry: bool = True
    sets_retry_after_itself: bool = True
    keeps_retry_after_of_503: bool = True
    makes_request_ids: bool = True
    trusted_proxies: int = 1

    def command(self, directory: Path) -> list[str]:
        start = str(directory / Path(self.files[0]).name)
        match self.name:
            case "nginx":
                return nginx.command(directory)
            case "caddy":
                return [tool("caddy"), "run", "--config", start, "--adapter", "caddyfile"]
            case "traefik":
                return [tool("traefik"), f"--configFile={start}"]
            case _:
                return [tool("envoy"), "--disable-hot-restart", "--concurrency", "1", "-c", start]


NGINX = Proxy("nginx", ("nginx/nginx.conf",))
CADDY = Proxy("caddy", ("caddy/Caddyfile",))
TRAEFIK = Proxy(
    "traefik",
    ("traefik/traefik.yaml", "traefik/events.yaml"),
    tells_the_sender_the_expiry=False,
    sets_retry_after_itself=False,
    makes_request_ids=False,
    trusted_proxies=2,
)
ENVOY = Proxy(
    "envoy", ("envoy/envoy.yaml",), methods=("GET", "HEAD", "POST"), keeps_retry_after_of_503=False
)


@dataclass
class Received:
    method: str
    path: str
    lines: list[tuple[str, str]]  # as they came, spelling and repetitions included
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.lines}


class Backend:
    """An HTTP server that records the requests that reach it, and gives all the same answer."""

    def __init__(self):
        self.received = []
        self.answer = Answer(202, {}, b"")
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self._body()
                backend.received.append(
                    Received(self.command, self.path, list(self.headers.items()), body)
                )
                self.send_response(backend.answer.status)
                for name, value in backend.answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(backend.answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(backend.answer.body)

            do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815  http.server asks for them

            def _body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Sender:
    """Sends events through a proxy, from another address than the proxy's."""

    port: int
    address: str = "127.0.0.2"

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
        connection = HTTPConnection(
            "127.0.0.1", self.port, timeout=HANG_SECONDS, source_address=(self.address, 0)
        )
        try:
            headers = basic(client_id, client_secret) | (headers or {})
            connection.request(method, path, body, headers)
            return read_answer(connection.getresponse())
        finally:
            connection.close()

    def send_lines(self, *lines):
        """Send an event with these header lines, and return the status."""
        head = [
            b"POST /events HTTP/1.1", b"Host: events.example.com", b"Content-Length: 2",
            b"Connection: close", *lines,
        ]  # fmt: skip
        with socket.create_connection(
            ("127.0.0.1", self.port), timeout=HANG_SECONDS, source_address=(self.address, 0)
        ) as connection:
            connection.sendall(b"\r\n".join(head) + b"\r\n\r\n{}")
            return int(connection.makefile("rb").readline().split()[1])


@contextmanager
def running_proxy(proxy, directory, ports, replacements):
    """Run the proxy on a copy of its example, with other ports and with the replacements.

    `ports` maps the ports of the example to those of the test: 8080 is the proxy's, 8000 the
    service's and 9000 that of ingestion.
    """
    ports = {8081: free_port(), **ports}
    for each in proxy.files:
        configuration = (EXAMPLES / each).read_text()
        for stated, actual in replacements.items():
            assert stated in configuration
            configuration = configuration.replace(stated, actual)
        configuration = re.sub(
            rf"\b({'|'.join(map(str, ports))})\b",
            lambda port: str(ports[int(port[0])]),
            configuration,
        )
        if proxy is NGINX:
            configuration = nginx.in_directory(configuration, directory)
        (directory / Path(each).name).write_text(configuration)
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            proxy.command(directory),
            cwd=directory,
            # Caddy stores its last configuration and its certificates here
            env=os.environ | {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: routes(ports[8080], process, directory / "output"))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG_SECONDS)


def routes(port, process, output):
    """Tell whether the proxy answers. Traefik listens before it has its routes: 404."""
    if process.poll() is not None:
        raise AssertionError(output.read_text())
    try:
        return Sender(port)(method="GET", path="/").status != 404
    except OSError:
        return False
