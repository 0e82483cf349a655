"""gunicorn's worker with a fast path for verifications: one loop in the main thread (ADR 24)."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from app.api.http.application import request_id_of
from app.api.plain_verification import PlainVerification
from app.api.verify import plain_paths
from app.credentials.verification import MustWait, is_pair
from app.logs import can_write_lines, write_lines
from app.server.connection import Connection
from app.server.plain_http import parse_request, write_response
from app.server.unreader import CLIENT_SECONDS
from app.server.worker import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from concurrent.futures import Future

    from app.api.verify import VerifyResponse
    from app.credentials.verification import Judge
    from app.server.plain_http import PlainRequest
    from app.services import Services

_TICK_SECONDS = 0.5

# A thread that runs Python makes the loop wait for so long after each of its system calls. Python's
# own 5 ms would be several times as long as a turn.
_SWITCH_SECONDS = 0.0002


class UnderWay(NamedTuple):
    """A verification that is under way, and the request and connection that wait for it."""

    connection: Connection
    request: PlainRequest
    verification: PlainVerification


class FastWorker(Worker):
    """gunicorn's threaded worker, whose main thread serves plain verifications itself.

    In a turn, it receives every request that is ready, sends all SELECTs in one write, judges those
    whose rows have arrived, writes their log lines, and then sends the responses.

    Whatever could wait is for the threads. A request that is not a plain verification goes to its
    pool with the bytes received. A verification that needs bcrypt, a remote counter or another
    connection to Postgres is made by a thread of the verification pool, and the loop responds.
    """

    connection_class = Connection

    def init_process(self) -> None:
        # to be sent at the end of the turn, and whether the connection is closed then
        self._responses: list[tuple[Connection, bytes, bool]] = []
        self._lines: list[bytes] = []  # to be logged before
        cfg = self.cfg
        self._is_plain_http = (cfg.proxy_protocol, cfg.http2_cleartext) == ("off", "off")
        self._is_plain_http &= not cfg.is_ssl
        self._keepalive: int = cfg.keepalive  # the configuration is slow to read
        super().init_process()

    def run(self) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._services: Services = self.wsgi.services
        self._verifier = self._services.verifier
        self._paths = plain_paths(self._verifier.scopes)
        self._pipeline = self._verifier.pipeline(self.poller, self._settle)
        try:
            super().run()
        finally:
            self._pipeline.close()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Take turns, until gunicorn's own loop has something to do between them."""
        until = monotonic() + min(timeout, _TICK_SECONDS)
        is_due = False
        while not is_due:
            seconds = min(until, self._pipeline.overdue_at) - monotonic()
            super().wait_for_and_dispatch_events(max(0.0, seconds))
            self._pipeline.end_turn()
            if self._responses:
                self._log_and_send()
            can_accept = self.nr_conns < self.worker_connections
            is_due = not self.alive or can_accept != self._accepting or monotonic() >= until

    # Connections

    def keep(self, connection: Connection, handled: Future[Any]) -> None:
        """Await the next request on a connection that a thread has served."""
        if not self._is_plain_http:
            super().keep(connection, handled)
            return
        connection.take_back()
        self._await_request(connection, CLIENT_SECONDS if connection.received else self._keepalive)
        if connection.received:
            self._serve(connection, is_open=True)

    def expire(self, connection: Connection) -> None:
        """Close the connection. If only a body is missing, let its pool answer that."""
        if connection.awaits_body():
            connection.end_input()
            self._hand_to_pool(connection)
        else:
            super().expire(connection)

    def _await_request(self, connection: Connection, seconds: float) -> None:
        if not self.alive:
            seconds = min(seconds, STOP_KEEPALIVE_LINGER)
        self.await_bytes(connection, self.start, seconds)

    # Requests

    def start(self, connection: Connection, client: socket.socket) -> None:
        """Receive what is there of the next request, and begin to serve it."""
        if not self._is_plain_http:
            super().start(connection, client)
            return
        if connection.timeout == inf:  # a verification is under way
            self.stop_awaiting(connection)
            return
        if not connection.received:
            connection.timeout = monotonic() + CLIENT_SECONDS
        self._serve(connection, is_open=connection.receive())

    def _serve(self, connection: Connection, *, is_open: bool) -> None:
        """Begin to serve the request that the connection has received, if it is whole."""
        try:
            request = parse_request(connection.received)
            if request is not None and request.path in self._paths:
                self._begin(connection, request)
            elif not (is_open and connection.awaits_more()):
                if connection.received:
                    self._hand_to_pool(connection)
                else:
                    self.leave(connection)
        except Exception as error:  # noqa: BLE001  as gunicorn does for its own threads
            self._fail(connection, error)

    def _hand_to_pool(self, connection: Connection) -> None:
        self.stop_awaiting(connection)
        self.note_request(connection)
        connection.unread()
        ThreadWorker.enqueue_req(self, connection)

    def _begin(self, connection: Connection, request: PlainRequest) -> None:
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        headers = request.headers
        verification = PlainVerification(
            self._services,
            method=request.method,
            scope=self._paths[request.path],
            authorization=headers.get("authorization", ""),
            request_id=request_id_of(headers.get("x-request-id", "")),
            address=self.wsgi.client_address(connection.peer, headers.get("x-forwarded-for", "")),
        )
        connection.received = b""
        connection.timeout = inf
        self.note_request(connection)
        under_way = UnderWay(connection, request, verification)
        if is_pair(verification.client_id, verification.client_secret):
            self._pipeline.add(under_way, verification.client_id)
        else:  # it is refused without a SELECT
            self._respond(under_way, verification.response(self._verifier.verify, self._lines))

    def _settle(self, under_way: UnderWay, judge: Judge | None) -> None:
        """Respond. A thread does it where that could wait, or has to verify from the beginning."""
        verification = under_way.verification
        if judge is None:
            started_at = verification.record.started_at
            judge = partial(self._verifier.verify, started_at=started_at)
        else:
            with suppress(MustWait):
                verify = partial(judge, may_wait=False)
                self._respond(under_way, verification.response(verify, self._lines))
                return
        self._let_thread(partial(verification.response, judge), partial(self._respond, under_way))

    def _let_thread(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Let a thread of verification do the work, and do the rest with its result in a turn."""
        future = self.tpool.verify(work)
        future.add_done_callback(lambda done: self.method_queue.defer(then, done.result()))

    def _fail(self, connection: Connection, error: Exception) -> None:
        self.handle_error(None, connection.sock, connection.client, error)
        connection.received = b""
        self.leave(connection)

    # Responses

    def _respond(self, under_way: UnderWay, response: VerifyResponse) -> None:
        """Send the response at the end of the turn."""
        closes = under_way.request.closes or not self.alive or not self._keepalive
        is_head = under_way.request.method == "HEAD"
        message = write_response(response, is_head=is_head, closes=closes)
        self._responses.append((under_way.connection, message, closes))

    def _log_and_send(self) -> None:
        lines, self._lines = self._lines, []
        responses, self._responses = self._responses, []
        if can_write_lines():
            write_lines(lines)
            self._send(responses)
        else:  # nobody reads them now
            self._let_thread(partial(write_lines, lines), lambda _: self._send(responses))

    def _send(self, responses: list[tuple[Connection, bytes, bool]]) -> None:
        for connection, message, closes in responses:
            if connection.send(message) and not closes:
                self._await_request(connection, self._keepalive)
            else:
                self.leave(connection)
