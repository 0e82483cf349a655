"""gunicorn's threaded worker, with a pool of threads for each kind of work (ADR 10)."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from app.bulkheads import Bulkheads
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

    def get_thread_pool(self) -> Pools:
        return Pools(Bulkheads.for_verifiers(self.cfg.threads))

    def handle(self, connection: TConn) -> Any:
        expect_request(connection.sock)
        return super().handle(connection)

    def finish_request(self, connection: TConn, handled: Future[Any]) -> None:
        """Keep the connection for the next request, or close it."""
        if handled.cancelled() or handled.exception() or not handled.result():
            self.leave(connection)
        else:
            super().finish_request(connection, handled)

    def leave(self, connection: TConn) -> None:
        """Close the connection once its client has, or after two seconds (RFC 9112, 9.6).

        gunicorn itself would wait for the client in the main thread, which then serves nobody else.
        """
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.timeout = monotonic() + _LINGER_SECONDS
        self.await_bytes(connection, self._drain)

    def _drain(self, connection: TConn, client: socket.socket) -> None:
        """Discard what the client sends: closing with bytes unread could lose the response."""
        with suppress(OSError):
            if client.recv(_LINGER_BYTES):
                return
        self.poller.unregister(client)
        self.pending_conns.remove(connection)
        self._close(connection)

    def _close(self, connection: TConn) -> None:
        self.nr_conns -= 1
        connection.close()

    def enqueue_req(self, connection: TConn) -> None:
        """Handle the next request once its first bytes are there, which tell its kind."""
        if connection.initialized or connection.data_ready:
            super().enqueue_req(connection)
            return
        limit_stalls(connection.sock)
        connection.timeout = monotonic() + CLIENT_SECONDS
        self.await_bytes(connection, self.on_pending_socket_readable)

    def await_bytes(self, connection: TConn, readable: Callable[[TConn, Any], None]) -> None:
        """Call `readable` whenever the client sends something, until the connection's timeout."""
        connection.sock.settimeout(0)
        self.pending_conns.append(connection)
        self.poller.register(connection.sock, EVENT_READ, partial(readable, connection))


def limit_stalls(client: socket.socket) -> None:
    """Let a thread wait no longer than five seconds for more of a body, or for a slow reader.

    The kernel would keep up to 4 MB of responses for a client that reads none.
    """
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, _STALL)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
