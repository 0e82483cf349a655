"""Start one embedded Postgres for each run, with a template database and a clone per worker."""

import os
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg.rows import dict_row

from app import create_app
from app.credentials.management import CredentialService
from app.credentials.model import IssuedCredential
from app.credentials.verification import Verifier
from app.database.migrations import migrate
from app.dev.postgres import embedded_postgres
from app.settings import Settings
from tests.helpers import DIGEST_KEY, caller, known_settings, require, service_role
from tests.issuer import ALGORITHMS, AUDIENCE, ISSUER, Issuer
from tests.postgres import postgres_directory
from tests.reaper import reaper
from tests.running_server import HANG_SECONDS, Server, free_port, running_server, wait_until

TEMPLATE = "template_credentials"

_postgres_uri = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[_postgres_uri] = config.workerinput["postgres_uri"]
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)
    directory = stack.enter_context(reaper())
    # apart from other runs of the same user, each of which closes the usual place to others
    config.option.basetemp = config.option.basetemp or directory / "p"
    uri = os.environ.get("TESTS_POSTGRES_URI") or stack.enter_context(
        new_postgres(fsync="off", max_connections="300")  # for the pools of all workers
    )
    config.stash[_postgres_uri] = uri
    execute(uri, f"CREATE DATABASE {TEMPLATE}")
    migrate(database(uri, TEMPLATE))
    execute(database(uri, TEMPLATE), service_role())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that at the end no worker waits long for another."""
    first = ("test_alike", "test_schemathesis")
    items.sort(key=lambda item: not item.module.__name__.endswith(first))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres_uri"] = node.config.stash[_postgres_uri]


@contextmanager
def new_postgres(**settings: str) -> Iterator[str]:
    """Run a separate Postgres."""
    with (
        postgres_directory() as directory,
        embedded_postgres(directory / "data", **settings) as uri,
    ):
        yield uri


def execute(uri: str, statement: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(statement)


def database(uri: str, name: str) -> str:
    """Return the connection URI of another database on the same server."""
    socket = psycopg.conninfo.conninfo_to_dict(uri)["host"]
    return f"postgresql://postgres@/{name}?host={socket}"


@pytest.fixture(scope="session")
def postgres_uri(pytestconfig: pytest.Config) -> str:
    return pytestconfig.stash[_postgres_uri]


@pytest.fixture
def empty_database(postgres_uri: str) -> Iterator[str]:
    """A database that is not migrated."""
    name = f"empty_{uuid4().hex}"
    execute(postgres_uri, f"CREATE DATABASE {name}")
    yield database(postgres_uri, name)
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def database_url(postgres_uri: str, worker_id: str) -> str:
    execute(postgres_uri, f"CREATE DATABASE tests_{worker_id} TEMPLATE {TEMPLATE}")
    return database(postgres_uri, f"tests_{worker_id}")


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def settings(
    database_url: str, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    jwks = tmp_path_factory.mktemp("keys") / "jwks.json"
    jwks.write_bytes(issuer.jwks())
    variables = {
        # the role of production, so that a test of a statement shows a missing GRANT
        "DATABASE_URL": database_url.replace("//postgres@", "//credentials_service@"),
        "JWT_PUBLIC_KEY_FILE": str(jwks),
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_ALGORITHMS": ",".join(ALGORITHMS),
        "DIGEST_KEY": b64encode(DIGEST_KEY).decode(),
        "WEB_CONCURRENCY": "1",
        "ISSUE_LIMIT": "0",
        "CHANGE_LIMIT": "0",
        "SCOPES": "ingest,leads.read,events",
        "LEAK_REPORTS": "end",
        "KEEP_ALIVE_SECONDS": "2",  # so that a test can wait for the end of a connection
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) & known_settings():
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        return Settings.from_environment()


@contextmanager
def running_app(settings: Settings, **changes: Any) -> Iterator[Flask]:
    """Run the service with other settings, in this process."""
    app = create_app(replace(settings, **changes))
    app.services.open()
    try:
        yield app
    finally:
        app.services.close()


@pytest.fixture(scope="session")
def _running_app(settings: Settings) -> Iterator[Flask]:
    with running_app(settings) as app:
        yield app


@pytest.fixture
def app(_running_app: Flask, rows: "Rows") -> Flask:
    """The service, with an empty database."""
    return _running_app


@pytest.fixture
def app_with(settings: Settings, rows: "Rows") -> Iterator[Callable[..., Flask]]:
    """Return a function that starts the service with other settings, as on another host."""
    with ExitStack() as stack:

        def app_with(**changes: Any) -> Flask:
            return stack.enter_context(running_app(settings, **changes))

        yield app_with


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client(use_cookies=False)


@pytest.fixture
def member(app: Flask, issuer: Issuer) -> FlaskClient:
    """A client with a token of a member of unit_demo."""
    return client_of(app, issuer.sign())


@pytest.fixture
def service(app: Flask) -> CredentialService:
    return app.services.credentials


@pytest.fixture
def verifier(app: Flask) -> Verifier:
    return app.services.verifier


@pytest.fixture
def issued(service: CredentialService) -> IssuedCredential:
    """A credential of unit_demo."""
    return service.issue(caller(), name="CRM backend")


def client_of(app: Flask, token: str) -> FlaskClient:
    client = app.test_client(use_cookies=False)
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


class Rows:
    """Direct access to the stored rows, without the service."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection

    def __call__(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        return self._connection.execute(query, parameters).fetchall()

    def execute(self, statement: str, **parameters: Any) -> None:
        """Run a statement that returns no rows."""
        self._connection.execute(statement, parameters)

    def count(self, table: str) -> int:
        return self(f"SELECT count(*) FROM {table}")[0]["count"]


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    with empty_rows(database_url) as rows:
        yield rows


@contextmanager
def empty_rows(database_url: str) -> Iterator[Rows]:
    """Give direct access to the rows of the database, after deleting all of them."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        # the trail's trigger rejects a TRUNCATE too, except in a session that replicates
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "TRUNCATE credentials, client_secrets, ended_secrets, credential_events, "
            "sealed_answers, answered_requests, writers"
        )
        connection.execute("RESET session_replication_role")
        connection.execute("DELETE FROM trail_histories WHERE base > 0")
        connection.execute("UPDATE trail_histories SET server = trail_server()")
        yield Rows(connection)


@pytest.fixture
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a `make run`. Its path is short, because a test keeps sockets in it."""
    return tmp_path_factory.mktemp("v")


@pytest.fixture(scope="session")
def _server(settings: Settings) -> Iterator[Server]:
    with running_server(environment(settings)) as server:
        yield server


@pytest.fixture
def server(_server: Server, rows: Rows) -> Server:
    """The service behind gunicorn, with an empty database. tests/server tries each worker."""
    return _server


@pytest.fixture
def redis(tmp_path: Path) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """A Redis of its own: its URL and its process."""
    require("redis-server", install="apt-get install redis-server")
    port = free_port()
    process = start_redis(port, tmp_path)
    yield f"redis://127.0.0.1:{port}/0", process
    process.terminate()
    process.wait(HANG_SECONDS)


def start_redis(port: int, directory: Path) -> "subprocess.Popen[bytes]":
    """Start Redis on the port, and wait until it answers."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    ping = ["redis-cli", "-p", str(port), "ping"]
    wait_until(lambda: b"PONG" in subprocess.run(ping, capture_output=True, check=False).stdout)
    return process


def environment(settings: Settings, **changes: Any) -> dict[str, str]:
    """Return the settings as environment variables."""
    settings = replace(settings, **changes)
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    claims = values.pop("jwt_claims")
    variables = {
        "DIGEST_KEY": [b64encode(each).decode() for each in values.pop("digest_keys")],
        "JWT_PUBLIC_KEY_FILE": values.pop("jwt_keys"),
        "JWT_UNIT_CLAIM": claims.unit,
        "JWT_UNITS_CLAIM": claims.units,
        "JWT_ROLE_CLAIM": claims.role,
        **{name.upper(): value for name, value in values.items()},
    }
    return {name: text for name, value in variables.items() if (text := _text(value))}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple | frozenset):
        return ",".join(value)
    return "" if value is None else str(value)
