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

_WHOLE = (  # and without a body, so that no thread waits for the client
    rb" HTTP/1\.[01]\r\n(?:(?!content-length|transfer-encoding|expect)[^\r\n]+\r\n)*\r\n"
)
_PROBE = re.compile(rb"\A(?:GET|HEAD) /healthz" + _WHOLE, re.IGNORECASE)
_SCRAPE = re.compile(rb"\A(?:GET|HEAD) /metrics" + _WHOLE, re.IGNORECASE)
_HALF_A_HEAD = re.compile(rb"\A(?!.*\r\n\r\n)", re.DOTALL)
_VERIFICATION = re.compile(rb"\A(?:(?:GET|HEAD|POST) /verify|GET /readyz)")
_MANAGEMENT = re.compile(rb"\A[A-Z]+ /secrets")
_PUBLIC = re.compile(rb"\A[A-Z]+ /leaks")
# Chunked, or 10,000 bytes and more.
_LONG_BODY = re.compile(
    rb"\r\n(?:transfer-encoding[ \t]*:|content-length[ \t]*:[ \t]*[0-9]{5})", re.IGNORECASE
)
_HEAD_BYTES = 8192


class Pools:
    """A pool of threads for each kind of work, so that no kind waits for the threads of another.

    If the guess is wrong, another pool serves the request. While half a head or a long body
    arrives, a thread waits for the client. So such requests have threads of their own and a short
    queue, beyond which the client gets 503 at once. So have those that need no token. Management
    reads a body only once it knows the caller, whose unit has a share of its threads.
    """

    def __init__(self, bulkheads: Bulkheads) -> None:
        self._verification = ThreadPoolExecutor(bulkheads.verification_threads, "verification")
        self._management = ThreadPoolExecutor(bulkheads.management_threads, "management")
        self._probes = ThreadPoolExecutor(bulkheads.probe_threads, "probes")
        self._scrapes = ThreadPoolExecutor(bulkheads.scrape_threads, "scrapes")
        self._public = ThreadPoolExecutor(bulkheads.public_threads, "public")
        self._slow = ThreadPoolExecutor(bulkheads.slow_threads, "slow")
        self._places = {  # of pools whose queue is short
            self._public: Semaphore(bulkheads.public_threads + bulkheads.max_waiting_public),
            self._slow: Semaphore(bulkheads.slow_threads + bulkheads.max_waiting_slow),
        }
        self._others = ThreadPoolExecutor(bulkheads.other_threads, "others")
        self._kinds = (  # the first pattern that the head matches tells the pool
            (_PROBE, self._probes),
            (_SCRAPE, self._scrapes),
            (_HALF_A_HEAD, self._slow),
            (_MANAGEMENT, self._management),
            (_LONG_BODY, self._slow),
            (_PUBLIC, self._public),
            (_VERIFICATION, self._verification),
        )

    def submit(self, handle: Callable[[TConn], Any], connection: TConn) -> "Future[Any]":
        """Let a thread handle the connection's next request."""
        head = _peek(connection)
        pool = self._pool_for(head)
        places = self._places.get(pool)
        if places is None:
            return pool.submit(handle, connection)
        if not places.acquire(blocking=False):
            return _refuse(connection, head)
        future = pool.submit(handle, connection)
        future.add_done_callback(lambda _: places.release())
        return future

    def verify(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Let a thread run a part of a verification."""
        return self._verification.submit(function, *arguments)

    def _pool_for(self, head: bytes) -> ThreadPoolExecutor:
        for pattern, pool in self._kinds:
            if pattern.search(head):
                return pool
        return self._others

    def shutdown(self, *, wait: bool = True) -> None:
        """Stop accepting requests."""
        for pool in {self._others, *(pool for _, pool in self._kinds)}:
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
