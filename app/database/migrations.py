"""Apply the migrations in `migrations_sql/`, and tell whether a database has them all."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import MigrationList, default_migration_table

from app.database.connection import connection_parameters
from app.database.errors import unreachable

_DIRECTORY = Path(__file__).parents[2] / "migrations_sql"
_ADVISORY_LOCK = 0x6C65616476696265  # "leadvibe"

# A statement may take as long as it needs, but a host that is gone must not keep the locks. Between
# two statements a migration is idle for milliseconds, in a transaction or with the advisory lock.
_SESSION_OPTIONS = (
    "-c idle_in_transaction_session_timeout=10s -c idle_session_timeout=10s "
    "-c client_connection_check_interval=1s"
)


class MigrationFailed(Exception):
    """The database refused a statement; the message says why."""


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo ships no types
    """yoyo's Postgres backend, safe to run on several hosts and to kill at any moment."""

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:  # noqa: ARG002  yoyo's signature
        """Hold a lock that ends with the session. yoyo's own, a row, would outlive a killed run."""
        self.execute(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})")
        try:
            yield
        finally:
            self.execute(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})")


def migrate(database_url: str) -> list[str]:
    """Apply the missing migrations in order, and return their names.

    Several hosts may call it at once: one works, the others wait and find nothing left to do.
    Raises DatabaseUnavailable if the database cannot be reached, or MigrationFailed. Migrations
    before the one that failed stay applied; a later call continues there.
    """
    try:
        return _apply_missing(database_url)
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            raise unreachable(error) from None
        # not the whole message: a violated constraint quotes the row
        raise MigrationFailed(error.diag.message_primary or str(error)) from None


def is_migrated(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether the database has at least the migrations that this version ships."""
    applied = connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()
    return {migration.id for migration in _shipped()} <= {name for (name,) in applied}


def _apply_missing(database_url: str) -> list[str]:
    # libpq parses the URI, because yoyo's parser accepts only one host
    arguments = connection_parameters(
        database_url, target_session_attrs="read-write", options=_SESSION_OPTIONS
    )
    uri = DatabaseURI("postgresql+psycopg", None, None, None, None, None, arguments)
    with _Backend(uri, default_migration_table) as backend, backend.lock():
        missing = backend.to_apply(_shipped())
        for migration in missing:
            # Applied and marked in one transaction: yoyo's own way takes two, and a run killed
            # between them would apply the migration again.
            with backend.transaction():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration, log=False)
        return [migration.id for migration in missing]


def _shipped() -> MigrationList:
    return read_migrations(glob.escape(str(_DIRECTORY)))
