"""The stage: two instances of the service on one Postgres, the second through a proxy."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from drills.history.workload import Target
from drills.proxy import Proxy
from drills.service import Database, Service, Testbed, new_digest_key, wait_until
from tests.running_server import clean_environment, free_port

QUOTA = 10
_READY_SECONDS = 30.0
_COMMAND_SECONDS = 60.0


@dataclass
class Instance:
    """One host of the service, which can be killed and started again on the same port."""

    testbed: Testbed
    database: Database
    settings: dict[str, str]
    port: int
    url: str
    outputs: list[Path] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._service: Service = self._stack.enter_context(
            self.testbed.serve(self.database, url=self.url, PORT=str(self.port), **self.settings)
        )
        self.outputs.append(self._service.output)

    def kill(self) -> None:
        """Kill all its processes at once."""
        with suppress(psutil.NoSuchProcess):
            arbiter = psutil.Process(self._service.process.pid)
            for process in [arbiter, *arbiter.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._service.process.wait()
        self._stack.close()

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._service.process.pid).children()
        return []

    def close(self) -> None:
        self._stack.close()

    def is_ready(self) -> bool:
        with suppress(OSError):
            return self._service.request("GET", "/readyz").status == 200
        return False


@dataclass
class Stage:
    """Everything that runs, and how to reach it."""

    testbed: Testbed
    database: Database
    proxy: Proxy
    instances: list[Instance]
    target: Target

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return self.database.connect()

    def await_ready(self) -> None:
        """Wait until both instances are ready, but not for ever."""
        wait_until(lambda: all(each.is_ready() for each in self.instances), _READY_SECONDS)

    def end_lost_sessions(self) -> None:
        """End the sessions of lost hosts in Postgres, as its keepalives would after hours."""
        self.proxy.end_lost()

    def restart_postgres(self) -> None:
        """End Postgres without a checkpoint, and start it again."""
        postmaster = int((self.testbed.postgres.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        self.testbed.postgres.stop()
        self.testbed.postgres.start()

    def outputs(self) -> list[Path]:
        """Return the files with what the instances have logged."""
        return [output for each in self.instances for output in each.outputs]


@contextmanager
def running_stage(testbed: Testbed) -> Iterator[Stage]:
    """Run the two instances on a new database."""
    database = testbed.new_database()
    settings = {
        "DIGEST_KEY": new_digest_key(),
        "BCRYPT_ROUNDS": "10",
        "MAX_CREDENTIALS_PER_UNIT": str(QUOTA),
        "VERIFY_FAILURE_LIMIT": "0",
    }
    proxy = Proxy(testbed.postgres.socket_directory / ".s.PGSQL.5432")
    urls = [database.url(), database.url_on(proxy.port)]
    instances = [Instance(testbed, database, settings, free_port(), url) for url in urls]

    def command(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [testbed.root / ".venv" / "bin" / "credentials", *arguments],
            cwd=testbed.root,
            env=clean_environment() | settings | {"DATABASE_URL": database.url()},
            check=False,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
        )

    target = Target([each.port for each in instances], testbed.issuer, command, QUOTA)
    stage = Stage(testbed, database, proxy, instances, target)
    with ExitStack() as stack:
        stack.callback(proxy.close)
        stack.callback(proxy.end_lost)
        for instance in instances:
            instance.start()
            stack.callback(instance.close)
        stage.await_ready()
        yield stage
