"""Changes to gunicorn: threads for each kind of work, and problem documents for malformed HTTP."""

import logging
import re
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from math import inf
from selectors import EVENT_READ
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import gunicorn.glogging
import gunicorn.util
from gunicorn.http import parser, wsgi
from gunicorn.http.message import Message
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.api.http import problem_types
from app.api.http.hooks import COMMON_HEADERS
from app.api.http.problems import Problem, malformed_http
from app.api.schemas.idempotency import IDEMPOTENCY_KEY
from app.bulkheads import Bulkheads
from app.identifiers import REQUEST_ID_PATTERN, new_request_id
from app.metrics.directory import WorkerFiles

_MANAGEMENT = re.compile(rb"[A-Z]+ /secrets")
VERIFICATION = re.compile(rb"(GET|HEAD|POST) /verify|GET /readyz")
# Whole and without a body, so that no thread waits for the client.
_PROBE = re.compile(
    rb"(GET|HEAD) /healthz HTTP/1\.[01]\r\n"
    rb"(?:(?!content-length|transfer-encoding|expect)[^\r\n]+\r\n)*\r\n",
    re.IGNORECASE,
)
# Chunked, or 10,000 bytes and more.
_LONG_BODY = re.compile(
    rb"\r\n(?:transfer-encoding[ \t]*:|content-length[ \t]*:[ \t]*[0-9]{5})", re.IGNORECASE
)
_HEAD_BYTES = 8192

CLIENT_SECONDS = 5  # how long a client may send nothing, send one request, or read nothing
_STALL = struct.pack("ll", CLIENT_SECONDS, 0)  # a struct timeval
_LINGER_SECONDS = 2.0  # how long a connection waits for its client to close it too
_LINGER_BYTES = 4096

_REQUEST_ID = re.compile(
    rf"^X-Request-Id:[ \t]*({REQUEST_ID_PATTERN})[ \t]*\r?$".encode(), re.MULTILINE | re.IGNORECASE
)

_logger = logging.getLogger(__name__)

_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.upper()  # as gunicorn's parser writes names


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's logger, without the access log that `logconfig_dict` would turn on."""

    access_log_enabled = False


class _Pools:
    """A pool of threads for each kind of work, so that no kind waits for the threads of another.

    The first bytes of a request tell its kind. A request that is misjudged is still served, only by
    the threads of another kind. While half a head or a long body arrives, a thread waits for the
    client, so such requests do not use the threads of verification, management and probes.
    """

    def __init__(self, bulkheads: Bulkheads) -> None:
        self._verification = ThreadPoolExecutor(bulkheads.verification_threads, "verification")
        self._management = ThreadPoolExecutor(bulkheads.management_threads, "management")
        self._probes = ThreadPoolExecutor(bulkheads.probe_threads, "probes")
        self._others = ThreadPoolExecutor(bulkheads.other_threads, "others")

    def submit(self, handle: Callable[[TConn], Any], connection: TConn) -> "Future[Any]":
        """Let a thread handle the connection's next request."""
        head = _peek(connection)
        return self._pool_for(head).submit(handle, connection)

    def _pool_for(self, head: bytes) -> ThreadPoolExecutor:
        if _PROBE.match(head):
            return self._probes
        if b"\r\n\r\n" not in head or _LONG_BODY.search(head):
            return self._others
        if VERIFICATION.match(head):
            return self._verification
        if _MANAGEMENT.match(head):
            return self._management
        return self._others

    def shutdown(self, *, wait: bool = True) -> None:
        """Stop accepting requests."""
        for pool in (self._verification, self._management, self._probes, self._others):
            pool.shutdown(wait=wait)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's threaded worker, with a pool of threads for each kind of work (ADR 10).

    `metrics` is its files in the metrics' directory, set before the fork.
    """

    metrics: WorkerFiles | None = None

    def get_thread_pool(self) -> _Pools:
        return _Pools(Bulkheads.for_verifiers(self.cfg.threads))

    def handle(self, connection: TConn) -> Any:
        """Handle the next request. Its client has five seconds to send it, however it does."""
        _deadlines[connection.sock] = monotonic() + CLIENT_SECONDS
        return super().handle(connection)

    def finish_request(self, connection: TConn, handled: "Future[Any]") -> None:
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
        """Discard what the client still sends: closing with unread bytes could lose the answer."""
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
    """Let a thread wait no longer than five seconds for more of a body, or for a slow reader."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, _STALL)


def _peek(connection: TConn) -> bytes:
    """Return the first bytes of the next request that have arrived, without consuming them."""
    if connection.parser is not None:
        buffered: bytes = connection.parser.unreader.buf.getvalue()
        if buffered:
            return buffered[:_HEAD_BYTES]
    try:
        head: bytes = connection.sock.recv(_HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # nothing has arrived, the client is gone, or TLS, which cannot be peeked into
        return b""
    return head


# What has been read of the request on each connection: gunicorn discards one that it cannot parse.
_REMEMBERED_BYTES = 16 * 1024
_read_of_request: WeakKeyDictionary[socket.socket, bytes] = WeakKeyDictionary()


# When the client must have sent the whole request that a thread handles (monotonic time).
_deadlines: WeakKeyDictionary[socket.socket, float] = WeakKeyDictionary()


class _RememberingUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn ships no types
    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive more. Raises TimeoutError if the client has taken too long for the request."""
        if monotonic() > _deadlines.get(self.sock, inf):
            raise TimeoutError
        data: bytes = super().chunk(size_hint)
        return data

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        data: bytes = super().read(size, read_ahead)
        seen = _read_of_request.get(self.sock, b"") + data
        _read_of_request[self.sock] = seen[-_REMEMBERED_BYTES:]
        return data

    def unread(self, data: bytes) -> None:
        """Take back bytes of the next request, and so forget the previous one."""
        _read_of_request.pop(self.sock, None)
        super().unread(data)


def join_repeated_keys(request: Message) -> None:
    """Join several Idempotency-Key headers with a comma and a space, so that they are not a key.

    gunicorn would join them with a comma alone, which a key may contain.
    """
    if not request.path.startswith("/secrets"):
        return
    keys = [value for name, value in request.headers if name == _IDEMPOTENCY_KEY]
    if len(keys) > 1:
        others = [each for each in request.headers if each[0] != _IDEMPOTENCY_KEY]
        request.headers = [*others, (_IDEMPOTENCY_KEY, ", ".join(keys))]


class _Response(wsgi.Response):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's response, which the application may tell to close the connection."""

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        super().process_headers(headers)
        if ("Connection", "close") in headers:  # gunicorn itself ignores it
            self.force_close()


def adapt_gunicorn() -> None:
    """Replace gunicorn's answer to malformed HTTP, which is HTML and quotes the invalid line.

    Also let a problem document close the connection.
    """
    wsgi.Response = _Response
    parser.SocketUnreader = _RememberingUnreader
    gunicorn.util.write_error = _write_problem


def _write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    is_our_fault = status == HTTPStatus.INTERNAL_SERVER_ERROR
    problem = (
        Problem(problem_types.UNEXPECTED, status, "The request cannot be served")
        if is_our_fault
        else malformed_http(status, "The request is not valid HTTP")
    )
    request_id = _request_id(_read_of_request.get(client, b""))
    fields = {"request_id": request_id, "status": status}
    _logger.warning("request not handled", extra={"fields": fields})
    body = problem.body()
    headers = [
        *problem.header_items(),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Request-Id", request_id),
        *COMMON_HEADERS,
    ]
    head = f"HTTP/1.1 {status} {problem.title}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + b"\r\n" + body)


def _request_id(message: bytes) -> str:
    """Return the caller's own X-Request-Id if the message has a valid one, else a new one."""
    offered = _REQUEST_ID.findall(message)  # the last one: others may belong to earlier requests
    return offered[-1].decode() if offered else new_request_id()
