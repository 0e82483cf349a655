"""One SELECT for many callers at once, on one connection in libpq's pipeline mode (ADR 24)."""

from __future__ import annotations

import logging
from collections import deque
from math import inf
from queue import SimpleQueue
from selectors import EVENT_READ, EVENT_WRITE
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import psycopg
from psycopg.pq import ConnStatus, ExecStatus

from app.database.errors import describe
from app.database.failovers import SupersededPrimary

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import BaseSelector

    from psycopg.rows import TupleRow

    from app.database.connection import BoundedConnection, PreparedSelect
    from app.database.pool import Database

_PAUSE_SECONDS = 0.5

Query = TypeVar("Query")

_logger = logging.getLogger(__name__)


class Pipeline(Generic[Query]):
    """Sends all queries of a turn in one write, and settles each when its rows arrive.

    Use it in the one thread that polls `poller`. It never waits, and never tries again: if there is
    no connection, or anything is wrong with it, such as no answer within `patience` seconds, all
    queries are settled with None, for the caller to run them elsewhere. Meanwhile a thread makes
    another connection.
    """

    def __init__(
        self,
        database: Database,
        statement: PreparedSelect,
        poller: BaseSelector,
        settle: Callable[[Query, list[TupleRow] | None], None],
        *,
        patience: float,
    ) -> None:
        self._database = database
        self._statement = statement
        self._poller = poller
        self._settle = settle
        self._patience = patience
        self._added: list[tuple[Query, str]] = []
        # in order, with the time when each was sent; None stands for the end of a turn
        self._in_flight: deque[tuple[Query | None, float]] = deque()
        self._connection: BoundedConnection | None = None
        self._made: SimpleQueue[BoundedConnection] = SimpleQueue()
        self._lost: SimpleQueue[tuple[BoundedConnection, psycopg.Error] | None] = SimpleQueue()
        self._may_prepare = True
        self._is_closed = False
        Thread(target=self._keep_connecting, name="pipeline", daemon=True).start()

    def add(self, query: Query, parameter: str) -> None:
        """Take a query, to be sent at the end of the turn."""
        if self._connection is None and not self._made.empty():
            self._connection = self._made.get()
            socket = self._connection.pgconn.socket
            # only to end a turn, which receives anyway
            self._key = self._poller.register(socket, EVENT_READ, lambda _: None)
        if self._connection is None:
            self._settle(query, None)
        else:
            self._added.append((query, parameter))

    @property
    def overdue_at(self) -> float:
        """When the next turn has to end at the latest."""
        return self._in_flight[0][1] + self._patience if self._in_flight else inf

    def end_turn(self) -> None:
        """Send the queries, and settle those whose rows have arrived."""
        if (connection := self._connection) is None:
            return
        now = monotonic()
        try:
            if self._added:
                self._send(connection, now)
            self._receive(connection)
            if now > self.overdue_at:
                raise psycopg.errors.ConnectionTimeout
        except psycopg.Error as error:
            self._break(connection, error)

    def close(self) -> None:
        """Close the connection, and make no more."""
        self._is_closed = True
        self._lost.put(None)
        if self._connection is not None:
            self._connection.close()

    def _send(self, connection: BoundedConnection, now: float) -> None:
        if not self._database.is_current(connection):
            raise SupersededPrimary
        for _, parameter in self._added:
            connection.send_select(self._statement, parameter)
        connection.pgconn.pipeline_sync()
        self._in_flight += [(query, now) for query, _ in self._added]
        self._in_flight.append((None, now))
        self._added.clear()
        self._write(connection)

    def _write(self, connection: BoundedConnection) -> None:
        """Give libpq's buffer to the socket. If that takes no more now, poll for when it does."""
        events = EVENT_READ | EVENT_WRITE if connection.pgconn.flush() else EVENT_READ
        if events != self._key.events:
            self._key = self._poller.modify(self._key.fd, events, self._key.data)

    def _receive(self, connection: BoundedConnection) -> None:
        pgconn = connection.pgconn
        pgconn.consume_input()
        self._write(connection)
        while self._in_flight and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:  # it ends the results of each query
                if pgconn.status == ConnStatus.BAD:
                    raise psycopg.OperationalError
            elif result.status == ExecStatus.PIPELINE_SYNC:
                self._in_flight.popleft()
            else:
                rows = connection.rows(result)
                query, _ = self._in_flight.popleft()
                self._settle(cast("Query", query), rows)

    def _break(self, connection: BoundedConnection, error: psycopg.Error) -> None:
        """Leave the connection to the thread, and settle all queries with None."""
        self._poller.unregister(self._key.fd)  # libpq may have closed it
        self._connection = None
        self._lost.put((connection, error))
        queries = [query for query, _ in (*self._in_flight, *self._added) if query is not None]
        self._in_flight.clear()
        self._added.clear()
        for query in queries:
            self._settle(query, None)

    # In the thread

    def _keep_connecting(self) -> None:
        self._connect()
        while (lost := self._lost.get()) is not None:
            connection, error = lost
            _logger.warning("the pipeline connects again: %s", describe(error))
            # a pooler has lent a server connection on which only others have prepared statements
            if isinstance(error, psycopg.errors.InvalidSqlStatementName):
                self._may_prepare = False
            connection.abandon()
            self._connect()

    def _connect(self) -> None:
        """Make a connection on which the statement works: not while its tables are locked."""
        while not self._is_closed:
            try:
                connection = self._database.connect(may_prepare=self._may_prepare)
            except psycopg.Error:
                sleep(_PAUSE_SECONDS)
                continue
            try:
                connection.select(self._statement, "")
                connection.pgconn.enter_pipeline_mode()
            except psycopg.Error:
                connection.abandon()
                sleep(_PAUSE_SECONDS)
            else:
                self._made.put(connection)
                return
