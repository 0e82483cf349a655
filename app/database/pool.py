"""The connection pool: it lends connections with a deadline, and recovers in the background."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread
from time import monotonic, sleep

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from app.bulkheads import WorkClass
from app.database.connection import (
    CONNECT_SECONDS,
    DURABLE,
    BoundedConnection,
    PreparedSelect,
    connection_parameters,
    require_utf8,
)
from app.database.errors import (
    DatabaseFault,
    DatabaseUnavailable,
    describe,
    is_transient,
    unavailable,
    unreachable,
)
from app.database.failovers import Failovers, SupersededPrimary

DOWN_SECONDS = 1.0
_PROBE_PAUSE_SECONDS = 0.2

# Sent when connecting, and not with SET: a transaction pooler such as PgBouncer would lend the
# changed server connection to its other clients.
# deploy/postgres/service-role.sql sets the same limits, for poolers that drop these options.
STATEMENT_SECONDS = 3
_SESSION_OPTIONS = (
    f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout=500ms "
    "-c idle_in_transaction_session_timeout=4s"
)

# Postgres has `transaction_timeout` from version 17 on. A statement of a host that is gone may not
# go on for so long.
_LONG_TRANSACTION = """
    SELECT set_config(name, CASE name
        WHEN 'statement_timeout' THEN %(limit)s
        WHEN 'transaction_timeout' THEN '0'
        WHEN 'client_connection_check_interval' THEN '1s'
    END, true)
    FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout', 'client_connection_check_interval')
"""

Connection = BoundedConnection


@dataclass(frozen=True, slots=True)
class PoolState:
    """How busy the pool is. `waits` counts the callers so far who found no connection ready."""

    size: int
    in_use: int
    waits: int


_logger = logging.getLogger(__name__)


class Database:
    """Postgres, through a pool of connections. Open it after the fork.

    `url` is a libpq connection URI. Unless it says otherwise, only a primary is used.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        # a standby may lag behind: a revoked secret could still be seen there
        parameters = connection_parameters(
            url, target_session_attrs="primary", options=_SESSION_OPTIONS
        )
        self._parameters = {**parameters, "autocommit": True}
        self._down_until = 0.0
        self._recovering = Lock()
        self.is_down = False  # from a failed probe until one succeeds
        self._in_use: set[BoundedConnection] = set()
        self._failovers = Failovers()
        self._pool: ConnectionPool[BoundedConnection] = ConnectionPool(
            kwargs={
                **self._parameters,
                # PgBouncer before 1.21 mixes up the prepared statements of its clients
                "prepare_threshold": None,
            },
            connection_class=BoundedConnection,
            configure=self._admit,
            min_size=connections,
            reconnect_timeout=CONNECT_SECONDS,  # by default a pause grows to minutes
            open=False,
        )

    def open(self, *, wait_seconds: float = 0.0) -> None:
        """Start connecting in the background. With `wait_seconds`, wait for the connections.

        Raises DatabaseUnavailable if they are not there in time.
        """
        self._pool.open()
        if wait_seconds:
            try:
                self._pool.wait(wait_seconds)
            except PoolTimeout as error:
                raise unavailable(error) from None

    def connect(self, *, may_prepare: bool = True) -> Connection:
        """Make a connection outside the pool. Raises psycopg.Error."""
        connection = BoundedConnection.connect(**self._parameters)
        self._admit(connection)
        connection.may_prepare = may_prepare
        return connection

    def is_current(self, connection: Connection) -> bool:
        """Tell whether the connection was made after the last known failover."""
        return connection.failovers == self._failovers.seen

    def check(self) -> None:
        """Connect once. Raises DatabaseUnavailable with the reason, or UnsuitableDatabase."""
        try:
            with BoundedConnection.connect(**self._parameters) as connection:
                require_utf8(connection)
        except psycopg.Error as error:
            raise unreachable(error) from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def connection(self, seconds: float) -> Iterator[Connection]:
        """Lend a connection in autocommit mode, whose statements end within `seconds` in all.

        Raises DatabaseUnavailable if the database is down, too slow or unable to serve now, and
        DatabaseFault for any other database error that leaves the `with` block.
        """
        self.raise_if_down()
        deadline = monotonic() + seconds
        try:
            connection = self._checkout_live(deadline)
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction:
                connection.close()  # the primary may have become a standby
                raise
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise self._translate(error) from None

    @contextmanager
    def connection_for(self, work: WorkClass) -> Iterator[Connection]:
        """Enter the bulkhead of the work, and lend a connection for as long as the work may take.

        Raises BulkheadFull, and as `connection` does.
        """
        with work.bulkhead, self.connection(work.seconds) as connection:
            yield connection

    def select(self, statement: PreparedSelect, *parameters: str, seconds: float) -> list[TupleRow]:
        """Run one SELECT, and raise as `connection` does. See `BoundedConnection.select`.

        It does not check first that the connection is alive: if it died while idle, the SELECT runs
        again on another one.
        """
        if seconds <= 0:
            raise DatabaseUnavailable("no time left")
        self.raise_if_down()
        deadline = monotonic() + seconds
        had_died = False
        try:
            connection = self._checkout(deadline)
            connection.deadline = deadline
            try:
                return connection.select(statement, *parameters)
            finally:
                had_died = connection.closed and not connection.gave_up
                self._give_back(connection)
        except psycopg.Error as error:
            if not had_died:
                raise self._translate(error) from None
        with self.connection(deadline - monotonic()) as connection:
            return connection.select(statement, *parameters)

    @contextmanager
    def confirmed(self, seconds: float) -> Iterator[Connection]:
        """Lend a connection as `connection` does, and wait for the synchronous standby at the end.

        So whatever the caller has read, or refuses because of it, survives the loss of the primary
        (ADR 22).
        """
        with self.connection(seconds) as connection:
            try:
                yield connection
            except psycopg.Error:
                raise
            except Exception:
                connection.await_standby()
                raise
            connection.await_standby()

    @contextmanager
    def transaction(self, seconds: float) -> Iterator[Connection]:
        """Lend a connection in a transaction, which an exception rolls back. See `confirmed`.

        If it may take longer than the session's statements, its own may too, and the server ends
        them a second before we give up: so DatabaseTooSlow tells a slow server from a frozen one.
        """
        with self.confirmed(seconds) as connection, connection.transaction():
            connection.execute(f"SELECT {DURABLE}")
            if seconds > STATEMENT_SECONDS:
                connection.execute(_LONG_TRANSACTION, {"limit": f"{seconds - 1:.0f}s"})
            yield connection
            # however long the work took, its commit and the standby may take as long as usual
            soon = monotonic() + STATEMENT_SECONDS
            connection.deadline = min(connection.deadline or soon, soon)

    def raise_if_down(self) -> None:
        """Raise DatabaseUnavailable at once if a fresh connection has just failed."""
        if monotonic() < self._down_until:
            raise DatabaseUnavailable("down")

    def pool_state(self) -> PoolState:
        """Return how busy the pool is."""
        return PoolState(
            size=self._pool.max_size,
            in_use=len(self._in_use),
            waits=self._pool.get_stats().get("requests_queued", 0),
        )

    def _translate(self, error: psycopg.Error) -> DatabaseUnavailable | DatabaseFault:
        """Return the exception to raise. If the error looks like an outage, start to probe."""
        if not is_transient(error):
            return DatabaseFault(describe(error))
        _logger.warning("database unavailable: %s", describe(error))
        if error.sqlstate is None or error.sqlstate.startswith(("08", "53", "57P")):
            self._recover()
        return unavailable(error)

    def _checkout_live(self, deadline: float) -> BoundedConnection:
        """Take a live connection. After a restart of the server, all idle ones are dead."""
        while True:
            connection = self._checkout(deadline)
            if not connection.is_stale():
                connection.deadline = deadline
                return connection
            self._discard(connection)

    def _checkout(self, deadline: float) -> BoundedConnection:
        """Take a connection that was made after the last known failover."""
        while True:
            connection = self._pool.getconn(max(0.0, deadline - monotonic()))
            self._in_use.add(connection)
            if self.is_current(connection):
                return connection
            self._discard(connection)

    def _discard(self, connection: BoundedConnection) -> None:
        """Close the connection, and let the pool make another one."""
        connection.close()
        self._give_back(connection)

    def _give_back(self, connection: BoundedConnection) -> None:
        # not through the pool's own context manager, which would commit: every connection is in
        # autocommit mode, and a verification need not wait for an empty commit
        connection.deadline = None
        self._in_use.discard(connection)
        try:
            if connection.gave_up:
                # before the pool makes another one, so that the server never has too many
                connection.abandon()
        finally:
            self._pool.putconn(connection)

    def _admit(self, connection: BoundedConnection) -> None:
        """Close a new connection that leads to a primary from before a failover, and raise."""
        try:
            self._failovers.admit(connection)
        except psycopg.Error as error:
            connection.close()
            if isinstance(error, SupersededPrimary):
                _logger.warning("refused a primary: %s", error)
            raise

    def _recover(self) -> None:
        """Probe the database until it is up, in a single background thread."""
        if self._recovering.acquire(blocking=False):
            try:
                Thread(target=self._recover_in_background, daemon=True).start()
            except RuntimeError:  # no more threads
                self._recovering.release()

    def _recover_in_background(self) -> None:
        try:
            was_down = False
            while not self._pool.closed and not self._probe():
                was_down = self.is_down = True
                # expires by itself, so callers retry even if this thread dies
                self._down_until = monotonic() + DOWN_SECONDS
                sleep(_PROBE_PAUSE_SECONDS)
            if was_down:
                self._pool.drain()  # connections from before the outage may be dead
            self._down_until = 0.0
            if not self._pool.closed:
                _logger.info("database available again")
        finally:
            self.is_down = False
            self._recovering.release()

    def _probe(self) -> bool:
        """Tell whether a new connection works."""
        try:
            self.connect().close()
        except psycopg.Error:
            return False
        return True
