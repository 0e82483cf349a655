"""`make run`: run the service with everything that it needs, until a signal stops it."""

import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from app.database.errors import DatabaseUnavailable
from app.database.migrations import MigrationFailed, migrate
from app.dev.env import published
from app.dev.keys import (
    AUDIENCE,
    ISSUER,
    InvalidUnit,
    development_keys,
    development_token,
    unit_from_environment,
)
from app.dev.postgres import PostgresFailed, admit_server, embedded_postgres, postgres_uri
from app.settings import SECRET_FILES, Settings, SettingsError

ROOT = Path(__file__).parents[2]

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0  # a little longer than gunicorn waits for running requests
_PAUSE_SECONDS = 0.1

_BANNER = """
LeadVibe Credentials is ready, after {seconds:.1f} s.

  address  {address}
  docs     {address}/docs

Issue a credential:

  curl -X POST {address}/secrets \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"name": "CRM backend"}}'

Use the command line, from this directory in another terminal:

  eval "$(make env)"
  credentials list --unit {unit_id}

Ctrl-C stops it.
"""


class CannotRun(Exception):
    """The service cannot run here. The message says why, in one line."""


class StopSignal:
    """Remembers that Ctrl-C, SIGTERM or a closed terminal asked the service to stop.

    The signal interrupts nothing, so that everything that was started can be stopped in order.
    """

    received = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, *_: Any) -> None:
        self.received = True


def main() -> None:
    """Run the service, with its data in the directory given as the first argument."""
    stop = StopSignal()
    stop.listen()
    try:
        run(Path(sys.argv[1]).resolve(), stop)
    except (SettingsError, InvalidUnit) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except CannotRun as reason:
        if not stop.received:
            sys.exit(f"make run: {reason}")
    print("Stopped.")


def run(var: Path, stop: StopSignal) -> None:
    """Serve until the signal comes.

    Raises CannotRun, or SettingsError or InvalidUnit for an invalid variable.
    """
    unit_id = unit_from_environment()
    _complete_environment(var)
    settings = Settings.from_environment()
    _require_free_port(settings)
    with ExitStack() as stack:
        has_own_database = settings.database_url == postgres_uri(var / "postgres")
        if has_own_database:
            stack.enter_context(_postgres(var))
        with _step("Migrating the database"):
            _migrate(settings, has_own_database=has_own_database)
        print("Starting the service …", file=sys.stderr, flush=True)
        started = monotonic()
        server = stack.enter_context(_gunicorn())
        _await_ready(server, settings, stop)
        if not stop.received:
            stack.enter_context(published(var / "env"))
            print(_banner(settings, unit_id, monotonic() - started), flush=True)
        while not stop.received:
            _require_running(server)
            sleep(_PAUSE_SECONDS)


def _complete_environment(var: Path) -> None:
    """Set each missing variable to its value for development."""
    try:
        keys = development_keys(var / "keys")
    except OSError as error:
        raise CannotRun(f"{var} cannot be written: {error.strerror}") from None
    if "JWT_JWKS_URL" not in os.environ:
        os.environ.setdefault("JWT_PUBLIC_KEY_FILE", str(keys.public_key_file))
    os.environ.setdefault("JWT_ISSUER", ISSUER)
    os.environ.setdefault("JWT_AUDIENCE", AUDIENCE)
    if SECRET_FILES["DIGEST_KEY"] not in os.environ:
        os.environ.setdefault("DIGEST_KEY", keys.digest_key)
    if SECRET_FILES["DATABASE_URL"] not in os.environ:
        os.environ.setdefault("DATABASE_URL", postgres_uri(var / "postgres"))


@contextmanager
def _step(description: str) -> Iterator[None]:
    """Print what the block does, and after it how many seconds it took."""
    print(f"{description} …", end="", file=sys.stderr, flush=True)
    started = monotonic()
    outcome = ""
    try:
        yield
        outcome = f" {monotonic() - started:.1f} s"
    finally:
        print(outcome, file=sys.stderr)


@contextmanager
def _postgres(var: Path) -> Iterator[None]:
    data = var / "postgres"
    with (var / "lock").open("w") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(f"another make run uses the database in {var}") from None
        try:
            admit_server(data)  # may print lines, so before the step prints its own
            with _step("Starting Postgres" if data.exists() else f"Making a database in {data}"):
                stack.enter_context(embedded_postgres(data))
        except (OSError, PostgresFailed) as error:
            raise CannotRun(f"the embedded Postgres: {error}") from None
        yield


def _migrate(settings: Settings, *, has_own_database: bool) -> None:
    try:
        migrate(settings.database_url)
    except MigrationFailed as error:
        raise CannotRun(f"the database cannot be migrated: {error}") from None
    except DatabaseUnavailable as error:
        which = "the database" if has_own_database else "the database that DATABASE_URL names"
        raise CannotRun(f"{which} is unavailable: {error.reason}") from None


def _require_free_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise CannotRun(
                f"{settings.host}:{settings.port} cannot be served: {error.strerror}; "
                "choose another port: PORT=8001 make run"
            ) from None


@contextmanager
def _gunicorn() -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(ROOT), "app.dev.wsgi:app"]
    # in its own session, so that Ctrl-C reaches it only through this process
    server = subprocess.Popen(  # noqa: S603  our own arguments
        [*command, "--config", str(ROOT / "gunicorn.conf.py")], start_new_session=True
    )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await_ready(server: "subprocess.Popen[bytes]", settings: Settings, stop: StopSignal) -> None:
    deadline = monotonic() + _START_SECONDS
    direct = build_opener(ProxyHandler({}))  # a proxy from HTTP_PROXY cannot reach this machine
    while not stop.received:
        _require_running(server)
        try:
            direct.open(f"{_address(settings)}/readyz", timeout=1).close()
        except (URLError, OSError):
            if monotonic() > deadline:
                raise CannotRun("the service did not become ready") from None
            sleep(_PAUSE_SECONDS)
        else:
            return


def _require_running(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is not None:
        raise CannotRun(f"gunicorn ended with status {server.returncode}")


def _banner(settings: Settings, unit_id: str, seconds: float) -> str:
    token = development_token(settings, unit_id=unit_id) or "<a token of your issuer>"
    return _BANNER.format(
        address=_address(settings), seconds=seconds, token=token, unit_id=shlex.quote(unit_id)
    )


def _address(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{replace(settings, host=host).bind}"


if __name__ == "__main__":
    main()
