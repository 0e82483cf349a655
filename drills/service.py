"""Run what a drill needs: Postgres, the service behind gunicorn, PgBouncer. The drill ends them."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, LiteralString

import psutil
import psycopg
from psycopg import sql

from app.bulkheads import Bulkheads
from drills.load import Callers, Request
from tests.helpers import basic
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.postgres import Postgres, running_postgres
from tests.running_server import Answer, ask, clean_environment, free_port

PROCESSES = 2
THREADS = 4
# connections of a process: its pool's, and the pipeline's; one more while it probes Postgres
POOL = Bulkheads.for_verifiers(THREADS).connections + 1
ROLE = "service"
OUR_NAME = "drill"  # the application_name of the drill's own connections

_TEMPLATE = "template_service"
_START_SECONDS = 25
_STOP_SECONDS = 45
_VERIFY_PAUSE = 0.01
_PROBE_PAUSE = 0.05


class CannotRun(Exception):
    """A server did not start, or refused what a drill needs. The message has its output."""


def new_digest_key() -> str:
    """Return a value for DIGEST_KEY."""
    return b64encode(os.urandom(32)).decode()


def connect(uri: str, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect under the drills' own application name."""
    parameters = {"autocommit": True, "application_name": OUR_NAME} | parameters
    return psycopg.connect(uri, **parameters)


@dataclass(frozen=True)
class Database:
    """A migrated database of one drill. The service's role owns it."""

    name: str
    host: Path

    def url(self, *, user: str = ROLE) -> str:
        return f"postgresql://{user}@/{self.name}?host={self.host}"

    def url_on(self, port: int) -> str:
        """Return the service's URL through a proxy or a pooler on 127.0.0.1."""
        return f"postgresql://{ROLE}@127.0.0.1:{port}/{self.name}"

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect as a superuser, without the service."""
        return connect(self.url(user="postgres"), **parameters)

    def query(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    def backends(self) -> int:
        """Return how many connections the service has open to it."""
        return int(self.query(_BACKENDS, ROLE, OUR_NAME)[0][0])

    def cut(self) -> None:
        """Terminate all of the service's connections at once."""
        self.query(_TERMINATE, ROLE, OUR_NAME)

    def clone_credential(self, secret_id: str, *, copies: int, secrets: bool) -> list[str]:
        """Copy the credential under new identifiers. Return the `secret_id` of each copy.

        It reads the columns from the catalog, so a new column needs no change here.
        """
        new_ids = [f"sec_{number:020}" for number in range(copies)]
        with self.connect() as connection:
            connection.execute("CREATE TEMPORARY TABLE numbers (n bigint)")
            connection.execute(
                "INSERT INTO numbers SELECT generate_series(0, %s::bigint - 1)", [copies]
            )
            replaced = {
                "secret_id": "'sec_' || lpad(n::text, 20, '0')",
                "client_id": "'lv_ci_' || lpad(n::text, 20, '0')",
            }
            _copy_rows(connection, "credentials", secret_id, replaced)
            if secrets:
                _copy_rows(connection, "client_secrets", secret_id, replaced)
            connection.execute("ANALYZE")
        return new_ids

    def add_events(self, number: int, *, unit_id: str, secret_id: str) -> None:
        """Add that many events to the credential's trail."""
        with self.connect() as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(
                """
                INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id)
                SELECT %s, %s, 'updated', 'ada', 'drill' FROM generate_series(1, %s)
                """,
                [secret_id, unit_id, number],
            )
            connection.execute("VACUUM ANALYZE credential_events")


_BACKENDS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE usename = %s AND application_name <> %s AND datname = current_database()
"""
_TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = %s AND application_name <> %s AND datname = current_database()
"""


def _copy_rows(
    connection: psycopg.Connection[tuple[Any, ...]],
    table: str,
    secret_id: str,
    replaced: dict[str, LiteralString],
) -> None:
    columns = [
        name
        for (name,) in connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s "
            "AND table_schema = 'public' AND is_identity = 'NO' AND is_generated = 'NEVER'",
            [table],
        )
    ]
    statement = sql.SQL(
        "INSERT INTO {table} ({names}) SELECT {values} FROM {table}, numbers WHERE secret_id = {id}"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(
            sql.SQL(replaced[name]) if name in replaced else sql.Identifier(name)
            for name in columns
        ),
        id=sql.Literal(secret_id),
    )
    connection.execute(statement)


@dataclass(frozen=True)
class Issued:
    """A credential as its issuer was shown it, with a token of its unit."""

    secret_id: str
    client_id: str
    client_secret: str
    token: str  # of its unit

    @property
    def basic(self) -> dict[str, str]:
        return basic(self.client_id, self.client_secret)


@dataclass
class Client:
    """A client of the service at a port, with tokens of the issuer."""

    port: int
    issuer: Issuer

    def request(
        self, method: str, path: str, body: Any = None, *, timeout: float = 20, **headers: str
    ) -> Answer:
        """Send one request; the headers' underscores stand for hyphens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if body is None:
            return ask(connection, method, path, **headers)
        headers["Content_Type"] = "application/json"
        return ask(connection, method, path, json.dumps(body), **headers)

    def token(self, unit: str = "unit_drill") -> str:
        return self.issuer.sign(unit_id=unit)

    def issue(self, unit: str = "unit_drill") -> Issued:
        """Issue a credential."""
        token = self.token(unit)
        reply = self.request("POST", "/secrets", {"name": "drill"}, **bearer(token))
        if reply.status != 200:
            raise CannotRun(f"POST /secrets: {reply.status} {reply.body!r}")
        shown = reply.json()
        return Issued(shown["secret_id"], shown["client_id"], shown["client_secret"], token)

    def verify(self, issued: Issued, **headers: str) -> int:
        return self.request("GET", "/verify", **issued.basic, **headers).status


@dataclass
class Service(Client):
    """The service behind gunicorn, on its own port."""

    process: "subprocess.Popen[bytes]"
    output: Path
    database: Database

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def is_running(self) -> bool:
        return self.process.poll() is None


def bearer(token: str) -> dict[str, str]:
    """Return the Authorization header of the token."""
    return {"Authorization": f"Bearer {token}"}


def verifying(
    credentials: list[Issued], *, callers: int = 4, pause: float | None = None
) -> Callers:
    """Return callers that verify the credentials in turn, with a short pause to spare the CPU."""
    requests = [Request("GET", "/verify", each.basic) for each in credentials]
    return Callers([requests] * callers, _VERIFY_PAUSE if pause is None else pause)


def issuing(tokens: list[str], *, pause: float = 0.0) -> Callers:
    """Return one caller for each token, which issues as fast as it can."""
    body = json.dumps({"name": "drill"})
    return Callers([[Request("POST", "/secrets", bearer(t), body)] for t in tokens], pause)


def updating(credentials: list[Issued], *, pause: float = 0.0) -> Callers:
    """Return one caller for each credential, which switches its consent flag on and off."""
    bodies = [json.dumps({"trust_upstream_consent": value}) for value in (True, False)]
    return Callers(
        [
            [Request("PUT", f"/secrets/{c.secret_id}", bearer(c.token), body) for body in bodies]
            for c in credentials
        ],
        pause,
    )


def listing(token: str, *, callers: int = 1, pause: float = _VERIFY_PAUSE) -> Callers:
    """Return callers that list the unit's credentials."""
    return Callers([[Request("GET", "/secrets", bearer(token))]] * callers, pause)


def probing() -> Callers:
    """Return an orchestrator that asks /healthz every 50 ms, each time on a new connection."""
    return Callers([[Request("GET", "/healthz", {})]], _PROBE_PAUSE, reconnect=True)


@dataclass
class Testbed:
    """What all drills share: a checkout of the service, and a Postgres."""

    root: Path
    directory: Path
    postgres: Postgres
    issuer: Issuer = field(default_factory=Issuer)
    _numbers: Iterator[int] = field(default_factory=count)

    def new_path(self, name: str) -> Path:
        """Return a path for a file of one drill."""
        return self.directory / f"{next(self._numbers)}-{name}"

    def new_database(self) -> Database:
        """Make a migrated database."""
        host = self.postgres.socket_directory
        with connect(self.postgres.uri) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE])
            if known.fetchone() is None:
                connection.execute(f"CREATE ROLE {ROLE} LOGIN")
                connection.execute(f"CREATE DATABASE {_TEMPLATE} OWNER {ROLE}")
                self._migrate(Database(_TEMPLATE, host).url())
            name = f"drill_{next(self._numbers)}"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} OWNER {ROLE}")
        return Database(name, host)

    def _migrate(self, url: str) -> None:
        subprocess.run(
            [self.root / ".venv" / "bin" / "credentials", "migrate"],
            cwd=self.root,
            env=clean_environment() | {"DATABASE_URL": url},
            check=True,
            capture_output=True,
        )

    @contextmanager
    def serve(
        self, database: Database | None = None, *, url: str | None = None, **settings: str
    ) -> Iterator[Service]:
        """Run the service, on a new database unless one is given. Raises CannotRun.

        `settings` are environment variables.
        """
        database = database or self.new_database()
        output = self.new_path("service.log")
        port = int(settings.get("PORT", free_port()))
        environment = {
            "DATABASE_URL": url or database.url(),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "DIGEST_KEY": new_digest_key(),
            "PORT": str(port),
            "WEB_CONCURRENCY": str(PROCESSES),
            "THREADS": str(THREADS),
            "ISSUE_LIMIT": "0",
            "CHANGE_LIMIT": "0",
            "VERIFY_FAILURE_LIMIT": "60",
        }
        if "JWT_JWKS_URL" not in settings:
            keys = self.directory / "jwks.json"
            keys.write_bytes(self.issuer.jwks())
            environment["JWT_PUBLIC_KEY_FILE"] = str(keys)
        command = [self.root / ".venv" / "bin" / "python", "-m", "gunicorn", "wsgi:app"]
        with running(command, output, cwd=self.root, env=environment | settings) as process:
            service = Service(port, self.issuer, process, output, database)
            await_start(process, output, lambda: service.request("GET", "/healthz").status == 200)
            yield service


@contextmanager
def running_testbed(root: Path) -> Iterator[Testbed]:
    """Start a Postgres for drills of the service in this checkout."""
    with tempfile.TemporaryDirectory(prefix="lv-drill-") as name:  # short: a socket's path is
        directory = Path(name)
        directory.chmod(0o755)  # Postgres and PgBouncer run as somebody else if we are root
        with running_postgres(directory / "data") as postgres:
            yield Testbed(root, directory, postgres)


@contextmanager
def pgbouncer(testbed: Testbed, database: Database) -> Iterator[int]:
    """Run PgBouncer in transaction mode with four connections to the database; yield its port."""
    port = free_port()
    file = testbed.new_path("pgbouncer.ini")
    output = testbed.new_path("pgbouncer.log")
    file.write_text(
        f"[databases]\n"
        f"{database.name} = host={database.host} dbname={database.name} user={ROLE}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n"
        "max_client_conn = 200\nignore_startup_parameters = extra_float_digits,options\n"
    )
    command: list[Path | str] = [str(shutil.which("pgbouncer", path=_search_path())), str(file)]
    if os.geteuid() == 0:
        command += ["-u", database.host.owner()]  # it refuses to run as root

    def answers() -> bool:
        with connect(database.url_on(port), connect_timeout=2):
            return True

    with running(command, output, cwd=testbed.directory, env={}) as process:
        await_start(process, output, answers)
        yield port


def is_installed(program: str) -> bool:
    """Tell whether the program is installed. Some of Debian's are only on root's PATH."""
    return shutil.which(program, path=_search_path()) is not None


def _search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


@contextmanager
def running(
    command: list[Path | str],
    output: Path,
    *,
    cwd: Path,
    env: dict[str, str],
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server, as another user if one is given, and at the end stop it and its children."""
    process = start(command, output, cwd=cwd, env=env, user=user)
    try:
        yield process
    finally:
        children = _children(process)
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def start(
    command: list[Path | str],
    output: Path,
    *,
    cwd: Path,
    env: dict[str, str],
    user: str | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a server that appends its output to the file."""
    with output.open("ab") as stdout:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=clean_environment() | env,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,  # Ctrl-C must reach it only through us
        )


def _children(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def await_start(process: "subprocess.Popen[bytes]", output: Path, is_up: Any) -> None:
    """Wait until the server is up. Raises CannotRun with its output."""
    deadline = monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or monotonic() > deadline:
            raise CannotRun(output.read_text()[-2000:])
        with suppress(OSError, psycopg.Error):
            if is_up():
                return
        sleep(0.05)


def wait_until(condition: Any, seconds: float) -> float:
    """Wait until the condition holds. Return how many seconds it took, or infinity if too many."""
    started = monotonic()
    while not condition():
        if monotonic() - started > seconds:
            return float("inf")
        sleep(0.05)
    return monotonic() - started
