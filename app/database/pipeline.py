"""One SELECT for many callers at once, on one connection in libpq's pipeline mode (ADR 24)."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from math import inf
from queue import SimpleQueue
from select import EPOLLIN, EPOLLOUT
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format

from app.database.errors import DatabaseUnavailable, describe

if TYPE_CHECKING:
    import select
    from collections.abc import Callable

    from psycopg.rows import TupleRow

    from app.database.connection import BoundedConnection, PreparedSelect
    from app.database.pool import Database

_PATIENCE_SECONDS = 0.25  # then something is wrong with the connection
_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 0.1

# Behind a pooler, other clients' statements are on the same server connections.
_POOLER_ERRORS = (
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
)

Query = TypeVar("Query")

_logger = logging.getLogger(__name__)


class Pipeline(Generic[Query]):
    """Sends a turn's queries in one write, and settles each when its rows arrive.

    Call it from the one thread that polls `epoll`. It never waits, and it never tries again: if
    there is no connection, or anything is wrong with it, all its queries are given up, for the
    caller to run them elsewhere. Meanwhile a thread makes another connection.
    """

    def __init__(
        self,
        database: Database,
        statement: PreparedSelect,
        epoll: select.epoll,
        *,
        settle: Callable[[Query, list[TupleRow]], None],
        give_up: Callable[[Query], None],
    ) -> None:
        self._database = database
        self._statement = statement
        self._epoll = epoll
        self._settle = settle
        self._give_up = give_up
        self._added: list[tuple[Query, bytes]] = []
        # in order, with the time when each was sent; None stands for the end of a turn
        self._in_flight: deque[tuple[Any, float]] = deque()
        self._connection: BoundedConnection | None = None
        self._next: BoundedConnection | None = None  # made by the thread
        self._lost: SimpleQueue[BoundedConnection | None] = SimpleQueue()
        self._transformer = Transformer()
        self._has_loaders = False
        self._is_writing = False  # libpq has more to send than the socket takes
        self._may_prepare = True
        self._is_closing = False
        self.descriptor = -1
        Thread(target=self._keep_connecting, name="pipeline", daemon=True).start()

    def add(self, query: Query, parameter: str) -> None:
        """Take a query, to be sent by the next `flush`."""
        if self._connection is not None or self._adopt():
            self._added.append((query, parameter.encode()))
        else:
            self._give_up(query)

    def flush(self, now: float) -> None:
        """Send what has been added since the last time."""
        if self._connection is None or not self._added:
            return
        if not self._database.is_current(self._connection):
            self._break("a failover")
        else:
            try:
                self._send(now)
            except psycopg.Error as error:
                self._break(describe(error))

    def receive(self) -> None:
        """Settle the queries whose rows have arrived."""
        if self._connection is None:
            return
        try:
            self._pgconn.consume_input()
            if self._is_writing:
                self._write()
            while self._in_flight and not self._pgconn.is_busy():
                self._take_result()
        except psycopg.Error as error:
            if isinstance(error, _POOLER_ERRORS):
                self._may_prepare = False
            self._break(describe(error))

    @property
    def overdue_at(self) -> float:
        """When to call `check`."""
        return self._in_flight[0][1] + _PATIENCE_SECONDS if self._in_flight else inf

    def check(self, now: float) -> None:
        """Give up if the server has not answered for too long."""
        if now > self.overdue_at:
            self.receive()  # this process may be what was slow
        if now > self.overdue_at and self._connection is not None:
            self._connection.gave_up = True
            self._break("no answer")

    def close(self) -> None:
        """Close the connection, and make no more."""
        self._is_closing = True
        self._lost.put(None)
        for connection in (self._connection, self._next):
            if connection is not None:
                connection.close()

    def _send(self, now: float) -> None:
        pgconn, statement = self._pgconn, self._statement
        for _, parameter in self._added:
            if self._is_prepared:
                pgconn.send_query_prepared(statement.name, [parameter], None, Format.BINARY)
            else:
                pgconn.send_query_params(
                    statement.text.encode(), [parameter], result_format=Format.BINARY
                )
        pgconn.pipeline_sync()
        self._in_flight.extend((query, now) for query, _ in self._added)
        self._in_flight.append((None, now))
        self._added.clear()
        self._write()

    def _write(self) -> None:
        is_writing = self._pgconn.flush() == 1
        if is_writing != self._is_writing:
            self._is_writing = is_writing
            self._epoll.modify(self.descriptor, EPOLLIN | EPOLLOUT if is_writing else EPOLLIN)

    def _take_result(self) -> None:
        result = self._pgconn.get_result()
        if result is None:  # it ends the results of each query
            if self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")
        elif result.status == ExecStatus.TUPLES_OK:
            query, _ = self._in_flight.popleft()
            self._transformer.set_pgresult(result, set_loaders=not self._has_loaders)
            self._has_loaders = True
            self._settle(query, self._transformer.load_rows(0, result.ntuples, tuple))
        elif result.status == ExecStatus.PIPELINE_SYNC:
            self._in_flight.popleft()
        else:
            raise psycopg.errors.error_from_result(result)

    def _adopt(self) -> bool:
        """Use the connection that the thread has made, if there is one."""
        connection, self._next = self._next, None
        if connection is None:
            return False
        self._connection = connection
        self._pgconn = connection.pgconn
        self._is_prepared = connection.may_prepare
        self._is_writing = False
        self._transformer = Transformer(connection)
        self._has_loaders = False
        self.descriptor = self._pgconn.socket
        self._epoll.register(self.descriptor, EPOLLIN)
        return True

    def _break(self, reason: str) -> None:
        """Leave the connection to the thread, and give up all queries."""
        _logger.warning("the pipeline connects again: %s", reason)
        connection, self._connection = self._connection, None
        with suppress(OSError):  # libpq has closed the socket of a broken connection
            self._epoll.unregister(self.descriptor)
        self.descriptor = -1
        self._lost.put(connection)
        in_flight = [query for query, _ in self._in_flight if query is not None]
        added = [query for query, _ in self._added]
        self._in_flight.clear()
        self._added.clear()
        for query in (*in_flight, *added):
            self._give_up(query)

    # In the thread

    def _keep_connecting(self) -> None:
        self._connect()
        while (lost := self._lost.get()) is not None:
            _discard(lost)
            self._connect()

    def _connect(self) -> None:
        """Make a connection on which the statement works: not while its tables are locked."""
        while not self._is_closing:
            try:
                connection = self._database.connect(may_prepare=self._may_prepare)
                try:
                    connection.deadline = monotonic() + _CONNECT_SECONDS
                    connection.select(self._statement, "")
                    connection.pgconn.enter_pipeline_mode()
                except psycopg.Error:
                    _discard(connection)
                    raise
            except (psycopg.Error, DatabaseUnavailable):
                sleep(_PAUSE_SECONDS)
            else:
                self._next = connection
                return


def _discard(connection: BoundedConnection) -> None:
    if connection.gave_up:
        connection.abandon()
    else:
        connection.close()
