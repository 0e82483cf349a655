"""What all experiments share: Postgres, the databases, the keys, and the servers' commands."""

import os
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from app.bulkheads import Bulkheads
from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.hashing import Hasher
from app.dev.keys import AUDIENCE, ISSUER, DevelopmentKeys, development_keys
from app.dev.postgres import embedded_postgres
from bench.data import Database, Pair, create_credentials, libpq_variables
from bench.load import Request, Requests
from bench.servers import ROOT, Command

_NO_LIMIT = "1000000"
_STOCK_CONFIGURATION = "bench/targets/stock.conf.py"


@dataclass(frozen=True)
class Stage:
    """One Postgres server with the databases of this run, and the service's keys."""

    directory: Path
    server_url: str
    keys: DevelopmentKeys
    hasher: Hasher
    _databases: dict[str, Database] = field(default_factory=dict)

    def postgres_version(self) -> str:
        """Return the version of the server."""
        with psycopg.connect(self.server_url) as connection:
            return connection.execute("SHOW server_version").fetchone()[0]

    def credentials(self, name: str, count: int) -> Database:
        """Return the database with `count` credentials. The first call fills it."""
        if name not in self._databases:
            print(f"Filling a database with {count:,} credentials …", flush=True)
            self._databases[name] = create_credentials(
                self.server_url, f"bench_{name}", count, self.hasher
            )
        return self._databases[name]

    def credentials_of(self, checkout: Path, count: int) -> Database:
        """Return a database with the schema of the version in the checkout."""
        print(f"Filling a database of {checkout} with {count:,} credentials …", flush=True)
        return create_credentials(
            self.server_url, "bench_before", count, self.hasher, partial(_migrate, checkout)
        )

    def service(self, database_url: str, *, processes: int = 1) -> Command:
        """Return the command that starts the service, as in production."""
        return Command(
            name=f"service-{_database_name(database_url)}-{processes}",
            arguments=_gunicorn("wsgi:app"),
            environment=self._environment(database_url, processes),
        )

    def service_of(self, checkout: Path, database_url: str) -> Command:
        """Return the command that starts the version in the checkout, from its own `.venv`."""
        service = self.service(database_url)
        return replace(
            service,
            arguments=[str(checkout / ".venv/bin/python"), *service.arguments[1:]],
            environment={**service.environment, "PYTHONPATH": str(checkout)},
            directory=checkout,
        )

    def on_our_worker(self, target: str, database_url: str) -> Command:
        """Return the command that starts a floor under the service's threads and settings.

        The loop of the fast path serves nothing but verifications.
        """
        return Command(
            name=f"{target}-our-worker-1",
            arguments=_gunicorn(f"bench.targets.{target}:app", "--threads=4"),
            environment=self._environment(database_url, processes=1) | {"WORKER_CLASS": "gthread"},
        )

    def hello_in_our_loop(self, database_url: str) -> Command:
        """Return the command that starts the service with a fixed response to `/verify`."""
        return Command(
            name="hello-our-worker-1",
            arguments=_gunicorn(
                "wsgi:app", "--worker-class=bench.targets.hello_worker.HelloWorker"
            ),
            environment=self._environment(database_url, processes=1),
        )

    def on_stock_worker(self, target: str, database_url: str, *, processes: int = 1) -> Command:
        """Return the command that starts a floor under gunicorn's own worker with four threads."""
        return Command(
            name=f"{target}-stock-{processes}",
            arguments=_gunicorn(
                f"bench.targets.{target}:app",
                f"--config={_STOCK_CONFIGURATION}",
                "--worker-class=gthread",
                "--threads=4",
                f"--workers={processes}",
                "--bind=127.0.0.1:$PORT",
            ),
            environment=self._environment(database_url, processes),
        )

    def _environment(self, database_url: str, processes: int) -> dict[str, str]:
        chosen = {
            name: os.environ[name] for name in ("WORKER_CLASS", "THREADS") if name in os.environ
        }
        return chosen | {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "JWT_PUBLIC_KEY_FILE": str(self.keys.public_key_file),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "DIGEST_KEY": self.keys.digest_key,
            "WEB_CONCURRENCY": str(processes),
            "VERIFY_FAILURE_LIMIT": _NO_LIMIT,
            "ISSUE_LIMIT": _NO_LIMIT,
            "CHANGE_LIMIT": _NO_LIMIT,
            "MAX_CREDENTIALS_PER_UNIT": _NO_LIMIT,
            "SCOPES": "ingest,leads.read",
        }


@contextmanager
def set_up() -> Iterator[Stage]:
    """Run Postgres on an empty directory until the block ends."""
    with TemporaryDirectory(prefix="lv-bench-") as path:
        directory = Path(path)
        keys = development_keys(directory / "keys")
        hasher = Hasher(10, [b64decode(keys.digest_key)], Bulkheads.for_verifiers(1))
        with embedded_postgres(directory / "data", max_wal_size="4GB") as server_url:
            yield Stage(directory, server_url, keys, hasher)


def good(database: Database) -> Requests:
    """Return verifications of valid pairs."""
    return Requests("good", [_verification(pair) for pair in database.pairs], contains="secret_id")


def scoped(database: Database, name: str = "scoped") -> Requests:
    """Return verifications of valid pairs for a scope."""
    requests = [_verification(pair, "/verify/ingest") for pair in database.pairs]
    return Requests(name, requests, contains="secret_id")


def wrong(database: Database) -> Requests:
    """Return verifications of existing client IDs with another client secret."""
    pairs = [(client_id, generate_client_secret()) for client_id, _ in database.pairs]
    return Requests("wrong", [_verification(pair) for pair in pairs], status=401)


def unknown(database: Database) -> Requests:
    """Return verifications of client IDs that do not exist."""
    pairs = [(generate_client_id(), generate_client_secret()) for _ in database.pairs]
    return Requests("unknown", [_verification(pair) for pair in pairs], status=401)


def for_floors(database: Database, contains: str = "secret_id") -> Requests:
    """Return the same requests as `good`.

    Floors are at the same path, because our worker treats this path specially.
    """
    return replace(good(database), name="floors", contains=contains)


def _verification(pair: Pair, path: str = "/verify") -> Request:
    client_id, client_secret = pair
    encoded = b64encode(f"{client_id}:{client_secret}".encode()).decode()
    return Request(path, {"Authorization": f"Basic {encoded}", "X-Client-Id": client_id})


def _migrate(checkout: Path, database_url: str) -> None:
    subprocess.run(
        [checkout / ".venv/bin/credentials", "migrate"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url},
        check=True,
    )


def _database_name(database_url: str) -> str:
    return libpq_variables(database_url)["PGDATABASE"]


def _gunicorn(application: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", application, *options]
