"""Start and stop the servers to measure, and read their CPU time and memory."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

import psutil

from tests.running_server import free_port

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "var" / "bench" / "logs"

_START_SECONDS = 30
_STOP_SECONDS = 40


@dataclass(frozen=True)
class Command:
    """How to start a server. It must listen on the port in the variable PORT."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path = ROOT


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    master: psutil.Process
    start_up_seconds: float

    def cpu_seconds(self) -> float:
        """Return the CPU time of the master and its workers, in user mode and in the kernel."""
        times = [process.cpu_times() for process in self._processes()]
        return sum(each.user + each.system for each in times)

    def memory_mib(self) -> float:
        """Return the resident memory of the largest worker, or of the server if it has none."""
        workers = self.master.children(recursive=True) or [self.master]
        return max(worker.memory_info().rss for worker in workers) / 2**20

    def _processes(self) -> list[psutil.Process]:
        return [self.master, *self.master.children(recursive=True)]


@contextmanager
def serving(command: Command) -> Iterator[Server]:
    """Run the server until the block ends. Exits with the end of its log if it does not start."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{command.name}.log"
    port = free_port()
    started = monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(
            [each.replace("$PORT", str(port)) for each in command.arguments],
            cwd=command.directory,
            env={"PATH": os.environ["PATH"], **command.environment, "PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        if not _answers(process, port):
            sys.exit(f"make bench: {command.name} did not start.\n{log.read_text()[-2000:]}")
        yield Server(command.name, port, psutil.Process(process.pid), monotonic() - started)
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


def _answers(process: subprocess.Popen, port: int) -> bool:
    """Wait for an answer of any status, and tell whether one came in time."""
    deadline = monotonic() + _START_SECONDS
    while monotonic() < deadline and process.poll() is None:
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/nothing")
            connection.getresponse().read()
            connection.close()
            return True
        sleep(0.01)
    return False
