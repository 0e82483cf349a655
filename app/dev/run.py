"""`make run`: the service with everything it needs, until a signal stops it."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from app.database.migrations import MigrationFailed, migrate
from app.dev.keys import AUDIENCE, ISSUER, development_keys, development_token
from app.dev.postgres import embedded_postgres
from app.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]

_START_SECONDS = 30.0
_STOP_SECONDS = 35.0  # a little longer than gunicorn waits for running requests
_PAUSE_SECONDS = 0.1

_BANNER = """
LeadVibe Credentials is ready.

  address  {address}
  docs     {address}/docs

Issue a credential:

  curl -X POST {address}/secrets \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"name": "CRM backend"}}'

Ctrl-C stops it.
"""


class CannotRun(Exception):
    """The service cannot run here. The message says why, in one line."""


class StopSignal:
    """Remembers that Ctrl-C, SIGTERM or a closed terminal asked the service to stop.

    It interrupts nothing, so everything that was started is known and can be stopped.
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
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except CannotRun as reason:
        if not stop.received:
            sys.exit(f"make run: {reason}")
    print("Stopped.")


def run(var: Path, stop: StopSignal) -> None:
    """Serve until the signal comes. Raises CannotRun, or SettingsError for an invalid variable."""
    with ExitStack() as stack:
        _prepare_keys(var)
        if "DATABASE_URL" not in os.environ:
            os.environ["DATABASE_URL"] = stack.enter_context(_postgres(var))
        settings = Settings.from_environment()
        _require_free_port(settings)
        try:
            migrate(settings.database_url)
        except MigrationFailed as error:
            raise CannotRun(f"the database cannot be migrated: {error}") from None
        server = stack.enter_context(_gunicorn())
        _await_ready(server, settings, stop)
        if not stop.received:
            print(_banner(settings), flush=True)
        while not stop.received:
            _require_running(server)
            sleep(_PAUSE_SECONDS)


def _prepare_keys(var: Path) -> None:
    """Add development keys to the environment where a variable is missing."""
    try:
        keys = development_keys(var / "keys")
    except OSError as error:
        raise CannotRun(f"{var} cannot be written: {error.strerror}") from None
    if "JWT_JWKS_URL" not in os.environ:
        os.environ.setdefault("JWT_PUBLIC_KEY_FILE", str(keys.public_key_file))
    os.environ.setdefault("JWT_ISSUER", ISSUER)
    os.environ.setdefault("JWT_AUDIENCE", AUDIENCE)
    os.environ.setdefault("DIGEST_KEY", keys.digest_key)


@contextmanager
def _postgres(var: Path) -> Iterator[str]:
    if re.search(r"\s", str(var)):
        raise CannotRun(f"the embedded Postgres cannot use a path with white space: {var}")
    with (var / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(f"another make run uses the database in {var}") from None
        with ExitStack() as stack:
            try:
                uri = stack.enter_context(embedded_postgres(var / "postgres"))
            except (OSError, RuntimeError, subprocess.SubprocessError):
                log = var / "postgres" / "log"
                raise CannotRun(f"the embedded Postgres did not start, see {log}") from None
            yield uri


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
    while not stop.received:
        _require_running(server)
        try:
            urlopen(f"{_address(settings)}/readyz", timeout=1).close()  # noqa: S310  our own address
        except (URLError, OSError):
            if monotonic() > deadline:
                raise CannotRun("the service did not become ready") from None
            sleep(_PAUSE_SECONDS)
        else:
            return


def _require_running(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is not None:
        raise CannotRun(f"gunicorn ended with status {server.returncode}")


def _banner(settings: Settings) -> str:
    token = development_token(settings) or "<a token of your issuer>"
    return _BANNER.format(address=_address(settings), token=token)


def _address(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


if __name__ == "__main__":
    main()
