"""Run nginx in front of instances of the service, with the configuration of deploy/cluster."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from drills.service import CannotRun, await_start, running, wait_until
from tests.running_server import free_port

_FILE = Path(__file__).parents[1] / "deploy" / "cluster" / "nginx.conf"
_DRAIN_SECONDS = 30


@dataclass
class Nginx:
    """A running nginx. `port` leads to the instances."""

    port: int
    _file: Path
    _process: psutil.Process

    def lead_to(self, ports: list[int]) -> None:
        """Change the instances, and wait until all requests to the previous ones have ended."""
        workers = self._process.children()
        self._file.write_text(_configuration(self.port, ports, self._file.parent))
        self._process.send_signal(signal.SIGHUP)

        def are_gone() -> bool:
            return not any(each.is_running() for each in workers)

        if wait_until(are_gone, _DRAIN_SECONDS) == float("inf"):
            raise CannotRun("nginx's previous workers did not end")


@contextmanager
def nginx(directory: Path, ports: list[int], *, user: str | None = None) -> Iterator[Nginx]:
    """Run nginx, with its files in the directory, which must belong to the user."""
    port = free_port()
    file = directory / "nginx.conf"
    file.write_text(_configuration(port, ports, directory))
    output = directory / "nginx.log"
    command: list[Path | str] = [
        "/usr/sbin/nginx",
        "-e",
        str(directory / "error.log"),
        "-c",
        str(file),
    ]
    with running(command, output, cwd=directory, env={}, user=user) as process:
        await_start(process, output, (directory / "nginx.pid").exists)
        yield Nginx(port, file, psutil.Process(process.pid))


def _configuration(port: int, ports: list[int], directory: Path) -> str:
    stated = "        server 10.0.0.21:8000;\n        server 10.0.0.22:8000;\n"
    actual = "".join(f"        server 127.0.0.1:{each};\n" for each in ports)
    temporary = "".join(
        f"    {name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = _FILE.read_text()
    for old, new in {
        stated: actual,
        "listen 127.0.0.1:8080": f"listen 127.0.0.1:{port}",
        "http {\n": f"http {{\n{temporary}",
        "worker_processes auto;": f"worker_processes 1;\ndaemon off;\npid {directory}/nginx.pid;",
    }.items():
        if old not in text:
            raise CannotRun(f"{_FILE} has no {old!r}")
        text = text.replace(old, new)
    return text
