"""Threads for each kind of work. The first bytes of a request tell its kind (ADR 10)."""

import re
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Semaphore
from typing import Any

from gunicorn.workers.gthread import TConn

from app.bulkheads import Bulkheads
from app.server.malformed_http import write_unavailable

_MANAGEMENT = re.compile(rb"[A-Z]+ /secrets")
_VERIFICATION = re.compile(rb"(GET|HEAD|POST) /verify")
_READINESS = re.compile(rb"GET /readyz")
# Whole and without a body, so that no thread waits for the client.
_PROBE = re.compile(
    rb"(?:GET|HEAD) /(healthz|metrics) HTTP/1\.[01]\r\n"
    rb"(?:(?!content-length|transfer-encoding|expect)[^\r\n]+\r\n)*\r\n",
    re.IGNORECASE,
)
# Chunked, or 10,000 bytes and more.
_LONG_BODY = re.compile(
    rb"\r\n(?:transfer-encoding[ \t]*:|content-length[ \t]*:[ \t]*[0-9]{5})", re.IGNORECASE
)
_HEAD_BYTES = 8192


class Pools:
    """A pool of threads for each kind of work, so that no kind waits for the threads of another.

    If the guess is wrong, another pool serves the request. While half a head or a long body
    arrives, a thread waits for the client. So such requests have threads of their own and a short
    queue, beyond which the client gets 503 at once. Verification reads no body, and management only
    that of a known caller, whose unit has a share of the threads.
    """

    def __init__(self, bulkheads: Bulkheads) -> None:
        self._verification = ThreadPoolExecutor(bulkheads.verification_threads, "verification")
        self._management = ThreadPoolExecutor(bulkheads.management_threads, "management")
        self._probes = ThreadPoolExecutor(bulkheads.probe_threads, "probes")
        self._scrapes = ThreadPoolExecutor(bulkheads.scrape_threads, "scrapes")
        self._slow = ThreadPoolExecutor(bulkheads.slow_threads, "slow")
        self._slow_places = Semaphore(bulkheads.slow_threads + bulkheads.max_waiting_slow)
        self._others = ThreadPoolExecutor(bulkheads.other_threads, "others")

    def submit(self, handle: Callable[[TConn], Any], connection: TConn) -> "Future[Any]":
        """Let a thread handle the connection's next request."""
        head = _peek(connection)
        pool = self._pool_for(head)
        if pool is not self._slow:
            return pool.submit(handle, connection)
        if not self._slow_places.acquire(blocking=False):
            return _refuse(connection, head)
        future = pool.submit(handle, connection)
        future.add_done_callback(lambda _: self._slow_places.release())
        return future

    def verify(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Let a thread run a part of a verification."""
        return self._verification.submit(function, *arguments)

    def _pool_for(self, head: bytes) -> ThreadPoolExecutor:
        probe = _PROBE.match(head)
        if probe is not None:
            return self._scrapes if probe[1] == b"metrics" else self._probes
        if b"\r\n\r\n" not in head:
            return self._slow
        if _VERIFICATION.match(head):
            return self._verification
        if _MANAGEMENT.match(head):
            return self._management
        if _LONG_BODY.search(head):
            return self._slow
        if _READINESS.match(head):
            return self._verification
        return self._others

    def shutdown(self, *, wait: bool = True) -> None:
        """Stop accepting requests."""
        for pool in (
            self._verification,
            self._management,
            self._probes,
            self._scrapes,
            self._slow,
            self._others,
        ):
            pool.shutdown(wait=wait)


def _refuse(connection: TConn, head: bytes) -> "Future[Any]":
    """Answer that too many slow requests are under way, and let the connection be closed."""
    with suppress(OSError):  # the client is gone
        write_unavailable(connection.sock, head)
    refused: Future[Any] = Future()
    refused.set_result(False)
    return refused


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
