"""Run the service as in production: behind gunicorn, on a free port."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).parent.parent
HANG_SECONDS = 120  # ends a test that hangs, on the slowest machine too


@dataclass
class Answer:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    port: int
    process: "subprocess.Popen[bytes]"
    output: Path

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request. Underscores in the names of headers stand for hyphens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        return ask(connection, method, path, body, **headers)

    def send(self, message: bytes, *, half_close: bool = True) -> bytes:
        """Send the bytes unchanged and return everything that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG_SECONDS) as connection:
            connection.sendall(message)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any = None, /, **headers: str
) -> Answer:
    """Send a request and close the connection. A header's underscores stand for hyphens."""
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        return read_answer(connection.getresponse())
    finally:
        connection.close()


def read_answer(response: HTTPResponse) -> Answer:
    """Read the whole response, and return it."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """Return the environment without the settings of the service."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    return {name: value for name, value in os.environ.items() if name in kept}


@contextmanager
def running_server(
    settings: dict[str, str],
    *,
    root: Path = ROOT,
    stdout: int | None = None,
    max_files: int | None = None,
) -> Iterator[Server]:
    """Run the service of the checkout at `root`, by default with its log in a file.

    `max_files` is how many files each of its processes may open.
    """
    limited = [] if max_files is None else ["prlimit", f"--nofile={max_files}"]
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "stdout"
        port = free_port()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*limited, sys.executable, "-m", "gunicorn", "wsgi:app"],
                cwd=root,
                env=clean_environment() | settings | {"PORT": str(port)},
                stdout=file if stdout is None else stdout,
                stderr=subprocess.STDOUT,
            )
        try:
            server = Server(port, process, output)
            wait_until(lambda: answers(server, process))
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(HANG_SECONDS)


def answers(server: Server, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise AssertionError(server.output.read_text())
    try:
        return server.request("GET", "/healthz").status == 200
    except OSError:
        return False


def wait_until(condition: Any) -> None:
    """Wait until the condition holds. It is an error only if that never happens."""
    deadline = monotonic() + HANG_SECONDS
    while not condition():
        assert monotonic() < deadline, "it never happened"
        sleep(0.05)
