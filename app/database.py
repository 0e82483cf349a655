"""The pool of connections, and what its failures look like to the rest of the service."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

# Together they keep the contract's promise of an answer within five seconds.
ANSWER_SECONDS = 4.0
CHECKOUT_SECONDS = 2.5
CONNECT_SECONDS = 2
STATEMENT_TIMEOUT = "3s"

# For what the pool itself asks of a connection that nobody holds.
_IDLE_ANSWER_SECONDS = 1.0
_PROBE_PAUSE_SECONDS = 0.2

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby, after a failover
    errors.UndefinedTable,  # not migrated yet
    errors.UndefinedColumn,
)

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class DatabaseUnavailable(Exception):
    """The database does not answer, or is not in a state to serve; trying later may help."""


class DatabaseFault(Exception):
    """The database refused a statement of ours: a bug. Names the error, never its values."""


class _BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that closes itself when the server has not answered by `deadline`.

    Neither `statement_timeout` nor TCP ends the wait for a server that is stopped but not gone.
    """

    deadline: float | None = None

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        bound = _IDLE_ANSWER_SECONDS
        if self.deadline is not None:
            bound = max(0.0, self.deadline - monotonic())
        try:
            return super().wait(gen, interval=interval, timeout=min(bound, timeout or bound))
        except errors._WaitTimeout:  # noqa: SLF001  psycopg has no public name for it
            self.pgconn.finish()
            raise


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
            connection_class=_BoundedConnection,
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
            _logger.warning("database unavailable: %s", _describe(error))
            if isinstance(error, PoolTimeout | errors._WaitTimeout):  # noqa: SLF001  as above
                self._is_away = True
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                self._recover()
            raise DatabaseUnavailable(_describe(error)) from None
        except psycopg.Error as error:
            raise DatabaseFault(_describe(error)) from None

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
            connection = self._pool.getconn(_IDLE_ANSWER_SECONDS)
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


def connection_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters of the URI, with ours where it has none.

    Raises psycopg.ProgrammingError for what is no connection URI.
    """
    return {
        "target_session_attrs": "read-write",
        "fallback_application_name": "leadvibe-credentials",
        **conninfo_to_dict(url),
        "connect_timeout": CONNECT_SECONDS,
    }


def is_connection_uri(text: str) -> bool:
    """Tell whether libpq would understand the text as a connection URI."""
    if not text.startswith(("postgresql://", "postgres://")):
        return False
    try:
        ports = str(conninfo_to_dict(text).get("port", ""))
    except psycopg.Error:
        return False
    # libpq itself looks at the ports when it connects, and not before
    return all(not port or port.isdecimal() for port in ports.split(","))


def takes_writes(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether the server lets this session write, as a standby does not."""
    rows = connection.execute("SELECT current_setting('transaction_read_only')").fetchall()
    return rows == [("off",)]


def _configure(connection: psycopg.Connection[TupleRow]) -> None:
    connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'; SET timezone = 'UTC'")


def _describe(error: psycopg.Error) -> str:
    """Say what failed without the message, which may quote a row or a connection string."""
    words = [type(error).__name__, error.sqlstate, error.diag.constraint_name]
    return " ".join(word for word in words if word)
