"""gunicorn's worker with a fast lane for verifications (ADR 13)."""

from __future__ import annotations

import re
import select
import socket
from contextlib import suppress
from functools import cached_property
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

from gunicorn.http import wsgi
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from app.api.http.problems import MAX_BODY_BYTES
from app.bulkheads import VERIFICATION_MAX_WAIT_SECONDS
from app.fastpath.plain import PlainRequests, PlainResponse
from app.server import CLIENT_SECONDS, VERIFICATION, Worker, limit_stalls

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_RECEIVE_BYTES = 8192
_TICK_SECONDS = 0.5
_STUCK_SECONDS = VERIFICATION_MAX_WAIT_SECONDS  # without an answer

_CONTENT_LENGTH = re.compile(
    rb"\A(?!.*\r\nexpect:).*\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r\n",
    re.DOTALL | re.IGNORECASE,
)
_REQUEST_LINE = re.compile(rb"(?:\r\n)?[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")

_READABLE_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
# A socket is nearly always writable, so a thread of the lane looks at it immediately.
_READY_NOW = _READABLE_ONCE | select.EPOLLOUT


class Connection(TConn):  # type: ignore[misc]  # gunicorn ships no types
    """A client's connection, with the bytes of the next request received so far."""

    received = b""

    @cached_property
    def client_address(self) -> tuple[str, str]:
        """The client's host and port, as WSGI wants them."""
        return self.client[0], str(self.client[1])

    @cached_property
    def server_address(self) -> tuple[str, str]:
        """The server's host and port, as WSGI wants them."""
        return self.server[0], str(self.server[1])

    def receive(self) -> bool:
        """Receive what is there, without waiting. Return False if no more will come."""
        try:
            data = self.sock.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        return len(data) > 0

    def awaits_more(self) -> bool:
        """Tell whether the request is incomplete, but valid so far."""
        head, ended, body = self.received.partition(b"\r\n\r\n")
        if ended:
            length = _CONTENT_LENGTH.search(head + b"\r\n")
            return length is not None and len(body) < int(length[1]) <= MAX_BODY_BYTES
        if len(head) >= _RECEIVE_BYTES or head.count(b"\n") != head.count(b"\r\n"):
            return False
        return b"\r\n" not in head[2:] or _REQUEST_LINE.match(head) is not None

    def has_unread(self) -> bool:
        """Tell whether bytes wait to be received: then the connection is not idle."""
        with suppress(OSError):
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def send(self, message: bytes) -> bool:
        """Send the message without waiting. Return False if the client does not accept it.

        The kernel accepts an answer of this size at once, unless the client has left about a
        hundred of them unread.
        """
        try:
            sent: int = self.sock.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return sent == len(message)

    def unread(self) -> None:
        """Hand the received bytes to gunicorn's parser, which reads the rest."""
        self.init()
        self.parser.unreader.unread(self.received)
        self.received = b""

    def take_back(self) -> None:
        """Take back the bytes of the next request that gunicorn's parser has read."""
        if self.parser is not None:
            self.received += self.parser.unreader.take_buffered()


class FastWorker(Worker):
    """gunicorn's threaded worker, with a lane for verifications.

    Under gthread, the main thread hands every request to a pool and gets the connection back. In
    the lane, threads wait for requests themselves, on one epoll, and answer plain verifications at
    once. Every other request goes to gunicorn, which parses the same bytes.

    The main thread accepts connections and receives their requests until one is a verification.
    Then the connection moves to the lane, and stays there while its requests are verifications. An
    incomplete request waits without a thread.
    """

    def init_process(self) -> None:
        self._epoll = select.epoll()
        self._served = 0  # grows whenever a thread of the lane has served a request
        self._keepalive = self.cfg.keepalive
        self._lane: dict[int, Connection] = {}  # those that wait; the thread that pops one owns it
        self._plain = PlainRequests(self.cfg)
        self._is_plain_http = (
            not self.cfg.is_ssl
            and self.cfg.proxy_protocol == "off"
            and self.cfg.http2_cleartext == "off"
        )
        super().init_process()

    def run(self) -> None:
        for number in range(self.cfg.threads):
            Thread(target=self._serve_lane, name=f"lane {number}", daemon=True).start()
        Thread(target=self._serve_overflow, name="overflow", daemon=True).start()
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
            self._lane[connection.sock.fileno()] = connection
            self._epoll.register(connection.sock, _READY_NOW)
        else:
            self._hand_to_pool(connection)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, _TICK_SECONDS))

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002  gunicorn's
        super().murder_keepalived(force=force)
        now = monotonic()
        for descriptor, connection in list(self._lane.items()):
            is_late = connection.timeout < now and not connection.has_unread()
            if (is_late or force) and self._lane.pop(descriptor, None) is not None:
                self.nr_conns -= 1
                connection.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in list(self._lane.values()):
            connection.timeout = min(connection.timeout, deadline)

    # In the threads of the lane

    def _serve_lane(self) -> None:
        while True:
            self._serve_next()
            self._served += 1

    def _serve_overflow(self) -> None:
        """Serve while all threads of the lane are stuck. No place is free then: callers get 503.

        One more thread of the lane instead would compete with the others for a place all the time,
        and each turn costs a context switch.
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
            connection = self._lane.pop(descriptor, None)
            if connection is not None:
                self._serve(connection)
        return bool(events)

    def _serve(self, connection: Connection) -> None:
        try:
            self._serve_request(connection)
        except Exception as error:  # noqa: BLE001  as gunicorn does for its own threads
            self.handle_error(None, connection.sock, connection.client, error)
            self._leave_lane(connection)

    def _serve_request(self, connection: Connection) -> None:
        is_new = not connection.received
        is_open = connection.receive()
        environ = (
            self._plain.environ(connection) if VERIFICATION.match(connection.received) else None
        )
        if environ is not None:
            if self._answer(environ, connection):
                self._stay(connection, self._keepalive)
            else:
                self._leave_lane(connection)
        elif is_open and connection.awaits_more():
            self._stay(connection, CLIENT_SECONDS if is_new else None)
        elif connection.received:
            self._epoll.unregister(connection.sock)
            self._hand_to_pool(connection)
        else:
            self._leave_lane(connection)

    def _answer(self, environ: WSGIEnvironment, connection: Connection) -> bool:
        """Answer the plain request. Return False if the connection has to be closed."""
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
        answer = wsgi.Response(response, connection.sock, self.cfg)
        answer.start_response(response.status, response.headers)
        answer.write(body)
        answer.close()
        return not answer.should_close()

    def _stay(self, connection: Connection, seconds: float | None) -> None:
        """Keep the connection in the lane, for the next request or the rest of one."""
        if seconds is not None:
            if not self.alive:
                seconds = min(seconds, STOP_KEEPALIVE_LINGER)
            connection.timeout = monotonic() + seconds
        descriptor = connection.sock.fileno()
        self._lane[descriptor] = connection
        self._epoll.modify(descriptor, _READABLE_ONCE)

    def _leave_lane(self, connection: Connection) -> None:
        with suppress(OSError, ValueError):  # not registered any more, or closed
            self._epoll.unregister(connection.sock)
        self.method_queue.defer(self.leave, connection)

    # In both

    def _hand_to_pool(self, connection: Connection) -> None:
        connection.unread()
        ThreadWorker.enqueue_req(self, connection)
