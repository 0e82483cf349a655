"""gunicorn's threaded worker, with a pool of threads for each kind of work (ADR 10)."""

from __future__ import annotations

import socket
import struct
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


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """A worker whose threads serve one kind of work each.

    `metrics` is its files in the metrics' directory, set before the fork.
    """

    metrics: WorkerFiles | None = None

    def init_process(self) -> None:
        self._awaited: set[TConn] = set()  # see `await_bytes`
        self._polled_at = 0.0
        super().init_process()

    def get_thread_pool(self) -> Pools:
        return Pools(Bulkheads.for_verifiers(self.cfg.threads))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        self._polled_at = monotonic()
        super().wait_for_and_dispatch_events(timeout)

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
            self._awaited.add(connection)
            self.poller.register(connection.sock, EVENT_READ, partial(readable, connection))

    def stop_awaiting(self, connection: TConn) -> None:
        """Leave what the client sends in the socket."""
        if connection in self._awaited:
            self._awaited.remove(connection)
            self.poller.unregister(connection.sock)

    def murder_pending(self) -> None:
        """Expire connections whose client had sent nothing in time when they were last polled."""
        for connection in [each for each in self._awaited if each.timeout < self._polled_at]:
            self.expire(connection)

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
        self.nr_conns -= 1
        connection.close()


def _limit_stalls(client: socket.socket) -> None:
    """Let a thread wait no longer than five seconds for more of a body, or for a slow reader.

    The kernel would keep up to 4 MB of responses for a client that reads none.
    """
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, _STALL)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
