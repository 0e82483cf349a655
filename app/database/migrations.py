"""Apply the migrations in `migrations_sql/`."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import psycopg
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, MigrationList, default_migration_table

from app.database.connection import connection_parameters, require_utf8
from app.database.errors import UnsuitableDatabase, unreachable
from app.database.schema import MIGRATIONS

_ADVISORY_LOCK = 0x6C65616476696265  # "leadvibe"

# A statement may take as long as it needs, but a host that is gone must not keep the locks. Between
# two statements a migration is idle for milliseconds, in a transaction or with the advisory lock.
_SESSION_OPTIONS = (
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=10s "
    "-c idle_session_timeout=10s -c client_connection_check_interval=1s"
)
# Postgres has it from version 17 on, so it cannot be an option.
_NO_TRANSACTION_TIMEOUT = """
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'
"""
# While a migration waits for a table's lock, everybody else queues behind it, and a verification
# fails after 500 ms. So it soon gives up, lets the others pass, and tries again.
_LOCK_MILLISECONDS = 100
_PAUSE_SECONDS = 0.5
LOCK_PATIENCE_SECONDS = 60.0


class MigrationFailed(Exception):
    """The database refused a statement; the message says why."""


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo ships no types
    """yoyo's Postgres backend, safe to run on several hosts and to kill at any moment."""

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:  # noqa: ARG002  yoyo's signature
        """Hold a lock that ends with the session. yoyo's own, a row, would outlive a killed run.

        It asks again and again: CREATE INDEX CONCURRENTLY waits for every statement that began
        before it, and so for a session that waits for this lock.
        """
        while self.execute(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})").fetchone() != (True,):
            sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            self.execute(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})")


def migrate(
    database_url: str,
    *,
    directory: Path = MIGRATIONS,
    patience_seconds: float = LOCK_PATIENCE_SECONDS,
) -> list[str]:
    """Apply the missing migrations in order, and return their names.

    Several hosts may call it at once: one works, the others wait and find nothing left to do.
    Raises DatabaseUnavailable if the database cannot be reached, or MigrationFailed, also if a lock
    is not free within `patience_seconds`. Migrations before the one that failed stay applied; a
    later call continues there.
    """
    try:
        return _apply_missing(database_url, _read(directory), patience_seconds)
    except UnsuitableDatabase as error:
        raise MigrationFailed(str(error)) from None
    except psycopg.errors.LockNotAvailable:
        raise MigrationFailed(
            f"a lock was not free within {patience_seconds:.0f} s; "
            "a long transaction or a backup holds it. Run the command again when that has ended"
        ) from None
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            raise unreachable(error) from None
        # not the whole message: a violated constraint quotes the row
        raise MigrationFailed(error.diag.message_primary or str(error)) from None


def _apply_missing(
    database_url: str, migrations: MigrationList, patience_seconds: float
) -> list[str]:
    # libpq parses the URI, because yoyo's parser accepts only one host
    arguments = connection_parameters(
        database_url, target_session_attrs="read-write", options=_SESSION_OPTIONS
    )
    uri = DatabaseURI("postgresql+psycopg", None, None, None, None, None, arguments)
    with _Backend(uri, default_migration_table) as backend, backend.lock():
        require_utf8(backend.connection)
        backend.execute(_NO_TRANSACTION_TIMEOUT)
        missing = backend.to_apply(migrations)
        for migration in missing:
            migration.load()
            if migration.use_transactions:
                _apply_in_transaction(backend, migration, patience_seconds)
            else:
                _apply_in_steps(backend, migration, patience_seconds)
        return [migration.id for migration in missing]


def _apply_in_transaction(backend: _Backend, migration: Migration, patience_seconds: float) -> None:
    """Apply and mark the migration at once, and try again while a lock is not free.

    yoyo's own way takes two transactions: a run killed between them would apply it again.
    """
    until = monotonic() + patience_seconds
    while True:
        try:
            with backend.transaction():
                backend.execute(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
                migration.process_steps(backend, "apply")
                backend.mark_one(migration, log=False)
                return
        except psycopg.errors.LockNotAvailable:
            if monotonic() >= until:
                raise
        sleep(_PAUSE_SECONDS)


def _apply_in_steps(backend: _Backend, migration: Migration, patience_seconds: float) -> None:
    """Apply a migration that cannot run in a transaction, then mark it.

    Nobody queues behind the locks that it may take (CONTRIBUTING.md), so it waits for them longer.
    """
    backend.execute(f"SET lock_timeout = {patience_seconds * 1000:.0f}")
    migration.process_steps(backend, "apply")
    backend.execute("RESET lock_timeout")
    with backend.transaction():
        backend.mark_one(migration, log=False)


def _read(directory: Path) -> MigrationList:
    return read_migrations(glob.escape(str(directory)))
