"""The pool of connections, and what its failures look like to the rest of the service."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from time import monotonic, sleep

import psycopg
from psycopg import errors
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from app.database.connection import (
    CONNECT_SECONDS,
    IDLE_ANSWER_SECONDS,
    BoundedConnection,
    connection_parameters,
)
from app.database.errors import DatabaseFault, DatabaseUnavailable, describe

# Together they keep the contract's promise of an answer within five seconds.
ANSWER_SECONDS = 4.0
CHECKOUT_SECONDS = 2.5
STATEMENT_TIMEOUT = "3s"

_PROBE_PAUSE_SECONDS = 0.2

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby, after a failover
    errors.UndefinedTable,  # not migrated yet
    errors.UndefinedColumn,
)

_logger = logging.getLogger(__name__)


class Database:
    """Postgres, through a pool that is made closed and opened after the fork.

    `url` is a libpq connection URI. Unless it says otherwise, only a server that takes writes is
    used: on a standby a revoked secret could still be seen.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self._recovering = Lock()
        # Whoever found out has waited for seconds; the rest of them need not, thread by thread.
        self._is_away = False
        self._pool = ConnectionPool(
            kwargs={**connection_parameters(url), "autocommit": True},
            connection_class=BoundedConnection,
            configure=_configure,
            min_size=connections,
            max_size=connections,
            timeout=CHECKOUT_SECONDS,
            reconnect_timeout=CONNECT_SECONDS,  # by default a pause grows to minutes
            open=False,
        )

    def open(self) -> None:
        """Start to connect, in the background."""
        self._pool.open()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend a connection in autocommit mode, for a few seconds in all.

        Raises DatabaseUnavailable when none is to be had or the server fails, and DatabaseFault for
        any other error of the database that is not handled inside.
        """
        self.require()
        deadline = monotonic() + ANSWER_SECONDS
        try:
            connection = self._pool.getconn()
            connection.deadline = deadline
            try:
                yield connection
            except errors.ReadOnlySqlTransaction:
                connection.pgconn.finish()
                raise
            finally:
                connection.deadline = None
                # not through the pool's own context manager, which commits: a wait for nothing
                # on each verification, since every connection is in autocommit mode
                self._pool.putconn(connection)
        except _UNAVAILABLE as error:
            _logger.warning("database unavailable: %s", describe(error))
            if isinstance(error, PoolTimeout | errors._WaitTimeout):  # noqa: SLF001  as above
                self._is_away = True
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                self._recover()
            raise DatabaseUnavailable(describe(error)) from None
        except psycopg.Error as error:
            raise DatabaseFault(describe(error)) from None

    def require(self) -> None:
        """Raise DatabaseUnavailable at once if the database is known to be away."""
        if self._is_away:
            raise DatabaseUnavailable("known to be away")

    def _recover(self) -> None:
        """Replace dead connections until one works, in a single background thread."""
        if self._recovering.acquire(blocking=False):
            Thread(target=self._recover_in_background, daemon=True).start()

    def _recover_in_background(self) -> None:
        try:
            while not self._pool.closed and not self._probe():
                sleep(_PROBE_PAUSE_SECONDS)
            self._is_away = False
        finally:
            self._recovering.release()

    def _probe(self) -> bool:
        try:
            self._pool.check()
            connection = self._pool.getconn(IDLE_ANSWER_SECONDS)
            try:
                connection.execute("SELECT 1")
            finally:
                self._pool.putconn(connection)
        except psycopg.Error:
            return False
        return True

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend a connection in a transaction, which an exception rolls back. Raises as above."""
        with self.connection() as connection, connection.transaction():
            yield connection


def _configure(connection: psycopg.Connection[TupleRow]) -> None:
    connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'; SET timezone = 'UTC'")
