"""gunicorn's worker with a fast path for verifications (ADR 13)."""

from __future__ import annotations

import select
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

from gunicorn.http import wsgi
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from app.bulkheads import VERIFICATION_MAX_WAIT_SECONDS
from app.server.connection import Connection
from app.server.plain_http import PlainRequests, PlainResponse
from app.server.pools import VERIFICATION
from app.server.unreader import CLIENT_SECONDS
from app.server.worker import Worker, limit_stalls

if TYPE_CHECKING:
    import socket

    from _typeshed.wsgi import WSGIEnvironment

_TICK_SECONDS = 0.5
_STUCK_SECONDS = VERIFICATION_MAX_WAIT_SECONDS  # without a response

_READABLE_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
# A socket is nearly always writable, so a thread of the fast path looks at it immediately.
_READY_NOW = _READABLE_ONCE | select.EPOLLOUT


class FastWorker(Worker):
    """gunicorn's threaded worker, with a fast path for verifications.

    Under gthread, the main thread hands every request to a pool and gets the connection back. On
    the fast path, threads wait for requests themselves, on one epoll, and serve plain verifications
    at once. Every other request goes to gunicorn, which parses the same bytes.

    The main thread accepts connections and receives their requests until one is a verification.
    Then the connection moves to the fast path, and stays there while its requests are
    verifications. An incomplete request waits without a thread.
    """

    def init_process(self) -> None:
        self._epoll = select.epoll()
        self._served = 0  # grows whenever a thread of the fast path has served a request
        self._keepalive = self.cfg.keepalive
        # those that wait on the fast path; the thread that pops one owns it
        self._waiting: dict[int, Connection] = {}
        self._plain = PlainRequests(self.cfg)
        self._is_plain_http = (
            not self.cfg.is_ssl
            and self.cfg.proxy_protocol == "off"
            and self.cfg.http2_cleartext == "off"
        )
        super().init_process()

    def run(self) -> None:
        for number in range(self.cfg.threads):
            Thread(target=self._serve_fast_path, name=f"fast path {number}", daemon=True).start()
        Thread(target=self._serve_overflow, name="fast path overflow", daemon=True).start()
        super().run()

    # In the main thread

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another process was faster, or it left
            return
        limit_stalls(client)
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, client, address, listener.getsockname()))

    def enqueue_req(self, connection: Connection) -> None:
        """Receive the next request, and hand it over once it is whole."""
        if not self._is_plain_http:
            super().enqueue_req(connection)
            return
        if not connection.received:
            connection.timeout = monotonic() + CLIENT_SECONDS
        connection.take_back()
        is_open = connection.receive()
        if is_open and connection.awaits_more():
            self.await_bytes(connection, self.on_pending_socket_readable)
        elif VERIFICATION.match(connection.received):
            self._waiting[connection.sock.fileno()] = connection
            self._epoll.register(connection.sock, _READY_NOW)
        else:
            self._hand_to_pool(connection)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, _TICK_SECONDS))

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002  gunicorn's
        super().murder_keepalived(force=force)
        now = monotonic()
        for descriptor, connection in list(self._waiting.items()):
            is_late = connection.timeout < now and not connection.has_unread()
            if (is_late or force) and self._waiting.pop(descriptor, None) is not None:
                self.nr_conns -= 1
                connection.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in list(self._waiting.values()):
            connection.timeout = min(connection.timeout, deadline)

    # In the threads of the fast path

    def _serve_fast_path(self) -> None:
        while True:
            self._serve_next()
            self._served += 1

    def _serve_overflow(self) -> None:
        """Serve while all threads of the fast path are stuck. No slot is free: callers get 503.

        A further thread of the fast path would do the same, but would cost a context switch on
        every request.
        """
        seen = -1
        while True:
            if self._served != seen or not self._serve_next(timeout=0):
                seen = self._served
                sleep(_STUCK_SECONDS)

    def _serve_next(self, timeout: float | None = None) -> bool:
        """Wait for a request and serve it. Return False if none came in time."""
        events = self._epoll.poll(timeout, 1)
        for descriptor, _ in events:
            connection = self._waiting.pop(descriptor, None)
            if connection is not None:
                self._serve(connection)
        return bool(events)

    def _serve(self, connection: Connection) -> None:
        try:
            self._serve_request(connection)
        except Exception as error:  # noqa: BLE001  as gunicorn does for its own threads
            self.handle_error(None, connection.sock, connection.client, error)
            self._leave_fast_path(connection)

    def _serve_request(self, connection: Connection) -> None:
        is_new = not connection.received
        is_open = connection.receive()
        environ = (
            self._plain.environ(connection) if VERIFICATION.match(connection.received) else None
        )
        if environ is not None:
            if self._respond(environ, connection):
                self._stay(connection, self._keepalive)
            else:
                self._leave_fast_path(connection)
        elif is_open and connection.awaits_more():
            self._stay(connection, CLIENT_SECONDS if is_new else None)
        elif connection.received:
            self._epoll.unregister(connection.sock)
            self._hand_to_pool(connection)
        else:
            self._leave_fast_path(connection)

    def _respond(self, environ: WSGIEnvironment, connection: Connection) -> bool:
        """Serve the plain request. Return False if the connection has to be closed."""
        connection.received = b""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        closes = (
            not self.alive
            or not self._keepalive
            or environ.get("HTTP_CONNECTION", "").lower() == "close"
        )
        response = PlainResponse(environ["REQUEST_METHOD"], closes)
        chunks = self.wsgi(environ, response.start_response)
        body = b"".join([*response.written, *chunks])
        if hasattr(chunks, "close"):
            chunks.close()
        message = response.message(body)
        if message is None:
            return self._respond_by_gunicorn(response, body, connection)
        return connection.send(message) and not closes

    def _respond_by_gunicorn(
        self, response: PlainResponse, body: bytes, connection: Connection
    ) -> bool:
        connection.sock.settimeout(None)
        sender = wsgi.Response(response, connection.sock, self.cfg)
        sender.start_response(response.status, response.headers)
        sender.write(body)
        sender.close()
        return not sender.should_close()

    def _stay(self, connection: Connection, seconds: float | None) -> None:
        """Keep the connection on the fast path, for the next request or the rest of one."""
        if seconds is not None:
            if not self.alive:
                seconds = min(seconds, STOP_KEEPALIVE_LINGER)
            connection.timeout = monotonic() + seconds
        descriptor = connection.sock.fileno()
        self._waiting[descriptor] = connection
        self._epoll.modify(descriptor, _READABLE_ONCE)

    def _leave_fast_path(self, connection: Connection) -> None:
        with suppress(OSError, ValueError):  # not registered any more, or closed
            self._epoll.unregister(connection.sock)
        self.method_queue.defer(self.leave, connection)

    # In both

    def _hand_to_pool(self, connection: Connection) -> None:
        connection.unread()
        ThreadWorker.enqueue_req(self, connection)
