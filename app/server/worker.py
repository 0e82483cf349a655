"""gunicorn's threaded worker, with a pool of threads for each kind of work (ADR 10)."""

from __future__ import annotations

import logging
import socket
import struct
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from math import inf
from selectors import EVENT_READ
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from app.bulkheads import Bulkheads
from app.server.connection import forget_names
from app.server.pools import Pools
from app.server.unreader import CLIENT_SECONDS, expect_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from app.metrics.directory import WorkerFiles

_STALL = struct.pack("ll", CLIENT_SECONDS, 0)  # a struct timeval
_SEND_BUFFER_BYTES = 128 * 1024
_LINGER_SECONDS = 2.0  # how long a connection waits for its client to close it too
_LINGER_BYTES = 4096

_ACCEPTS = 16  # in a turn
_ACCEPT_PAUSE_SECONDS = 0.5

_logger = logging.getLogger(__name__)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """A worker whose threads serve one kind of work each.

    `metrics` is its files in the metrics' directory, set before the fork.
    """

    metrics: WorkerFiles | None = None
    connection_class = TConn

    def init_process(self) -> None:
        # See `await_bytes`. Whoever has waited longest is the first.
        self._awaited: OrderedDict[TConn, None] = OrderedDict()
        self._new: dict[TConn, None] = {}  # those that have not sent a whole request yet
        self._polled_at = self._accept_at = 0.0
        self._room = min(_ACCEPTS, max(1, self.worker_connections // 8))
        super().init_process()

    def get_thread_pool(self) -> Pools:
        return Pools(Bulkheads.for_verifiers(self.cfg.threads))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        self._polled_at = monotonic()
        super().wait_for_and_dispatch_events(timeout)
        while self.nr_conns > self.worker_connections - self._room and self._close_silent():
            pass

    # Connections that come

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  gunicorn's
        super().set_accept_enabled(enabled and monotonic() >= self._accept_at)

    def accept(self, listener: socket.socket) -> None:
        """Accept those who wait. After an error, such as no file left, pause for a moment."""
        for _ in range(min(_ACCEPTS, self.worker_connections - self.nr_conns)):
            try:
                client, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # no more, or it left
                return
            except OSError as error:
                _logger.warning("accepts no connections for a moment: %s", error.strerror)
                self._accept_at = monotonic() + _ACCEPT_PAUSE_SECONDS
                self.set_accept_enabled(False)
                return
            self.nr_conns += 1
            connection = self.connection_class(self.cfg, client, address, listener.getsockname())
            self._new[connection] = None
            self.enqueue_req(connection)

    def _close_silent(self) -> bool:
        """Close the connection that has been silent for longest. Return False if there is none.

        If many clients have only connected, it is one of theirs: so they do not take the
        connections of those who have sent a request before.
        """
        if len(self._new) <= self._room and self.keepalived_conns:  # without a fast path
            silent = self.keepalived_conns.popleft()
            self.poller.unregister(silent.sock)
        else:
            crowd = self._new if len(self._new) > self._room else self._awaited
            silent = next((each for each in crowd if each.timeout < inf), None)
        if silent is not None:
            self._close(silent)
        return silent is not None

    # Connections that wait for their client

    def await_bytes(
        self, connection: TConn, readable: Callable[[TConn, Any], None], seconds: float
    ) -> None:
        """Call `readable` whenever the client sends something.

        Close the connection after so many seconds, unless this is called again.
        """
        connection.timeout = monotonic() + seconds
        if connection not in self._awaited:
            connection.sock.settimeout(0)
            self.poller.register(connection.sock, EVENT_READ, partial(readable, connection))
            self._awaited[connection] = None
        self._awaited.move_to_end(connection)

    def stop_awaiting(self, connection: TConn) -> None:
        """Leave what the client sends in the socket."""
        if connection in self._awaited:
            del self._awaited[connection]
            self.poller.unregister(connection.sock)

    def murder_pending(self) -> None:
        """Expire connections whose client had sent nothing in time when they were last polled."""
        for connection in [each for each in self._awaited if each.timeout < self._polled_at]:
            self.expire(connection)

    def note_request(self, connection: TConn) -> None:
        """Remember that the client has sent a request, so that others are closed before it."""
        self._new.pop(connection, None)

    def expire(self, connection: TConn) -> None:
        """Close the connection, whose client has sent nothing in time."""
        self._close(connection)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in self._awaited:
            if connection.timeout < inf:
                connection.timeout = min(connection.timeout, deadline)

    # The life of a connection

    def enqueue_req(self, connection: TConn) -> None:
        """Handle the next request once its first bytes are there, which tell its kind."""
        if connection.initialized or connection.data_ready:
            super().enqueue_req(connection)
        else:
            _limit_stalls(connection.sock)
            self.await_bytes(connection, self.start, CLIENT_SECONDS)

    def start(self, connection: TConn, _: socket.socket) -> None:
        """Let a thread handle the request, whose first bytes are there."""
        self.stop_awaiting(connection)
        self.note_request(connection)
        connection.data_ready = True
        super().enqueue_req(connection)

    def handle(self, connection: TConn) -> Any:
        forget_names(connection)
        expect_request(connection.sock)
        return super().handle(connection)

    def finish_request(self, connection: TConn, handled: Future[Any]) -> None:
        """Keep the connection for the next request, or close it."""
        if handled.cancelled() or handled.exception() or not handled.result():
            self.leave(connection)
        else:
            self.keep(connection, handled)

    def keep(self, connection: TConn, handled: Future[Any]) -> None:
        """Await the next request."""
        super().finish_request(connection, handled)

    def leave(self, connection: TConn) -> None:
        """Close the connection once its client has, or after two seconds (RFC 9112, 9.6).

        gunicorn itself would wait for the client in the main thread, which then serves nobody else.
        """
        self.stop_awaiting(connection)
        self.note_request(connection)
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
        else:
            self.await_bytes(connection, self._drain, _LINGER_SECONDS)

    def _drain(self, connection: TConn, client: socket.socket) -> None:
        """Discard what the client sends: closing with bytes unread could lose the response."""
        with suppress(OSError):
            if client.recv(_LINGER_BYTES):
                return
        self._close(connection)

    def _close(self, connection: TConn) -> None:
        self.stop_awaiting(connection)
        self.note_request(connection)
        self.nr_conns -= 1
        connection.close()


def _limit_stalls(client: socket.socket) -> None:
    """Let a thread wait no longer than five seconds for more of a body, or for a slow reader.

    The kernel would keep up to 4 MB of responses for a client that reads none.
    """
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, _STALL)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
