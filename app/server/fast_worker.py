"""gunicorn's worker with a fast path for verifications: one loop in the main thread (ADR 24)."""

from __future__ import annotations

import select
import sys
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from app.api.http.application import request_id_of
from app.api.plain_verification import PlainVerification
from app.credentials.verification import MustWait, is_pair
from app.logs import write_lines
from app.server.connection import Connection
from app.server.plain_http import parse_request, write_response
from app.server.unreader import CLIENT_SECONDS
from app.server.worker import Worker, limit_stalls

if TYPE_CHECKING:
    import socket
    from concurrent.futures import Future

    from app.api.verify import VerifyResponse
    from app.credentials.model import StoredSecret, Verification
    from app.credentials.verification import Verifier
    from app.server.plain_http import PlainRequest
    from app.services import Services


_TICK_SECONDS = 0.5
_EVENTS = 64  # in a turn
_ACCEPTS = 16  # in a turn

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

    It polls one epoll: for clients from whom a request is awaited, for the pipeline to Postgres,
    and for gunicorn's own poller. In a turn, it receives every request that is ready, sends all
    SELECTs in one write, and responds to those whose rows have arrived.

    Whatever could wait is for the threads: a request that is not a plain verification goes to its
    pool with the bytes received; a verification that needs bcrypt, a remote counter or another
    connection to Postgres is made by a thread of the verification pool, and the loop sends the
    response.
    """

    def init_process(self) -> None:
        self._epoll = select.epoll()
        # those that are polled, or have a verification under way
        self._connections: dict[int, Connection] = {}
        # to be sent at the end of the turn, and whether the connection is closed then
        self._responses: list[tuple[Connection, bytes, bool]] = []
        self._lines: list[bytes] = []  # to be logged before
        self._is_plain_http = (
            not self.cfg.is_ssl
            and self.cfg.proxy_protocol == "off"
            and self.cfg.http2_cleartext == "off"
        )
        super().init_process()

    def run(self) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._services: Services = self.wsgi.services
        self._verifier: Verifier = self._services.verifier
        self._pipeline = self._verifier.pipeline(
            self._epoll, settle=self._settle, give_up=self._verify_in_pool
        )
        self._epoll.register(self.poller.fileno(), select.EPOLLIN)
        try:
            super().run()
        finally:
            self._pipeline.close()

    # Connections

    def accept(self, listener: socket.socket) -> None:
        for _ in range(min(_ACCEPTS, self.worker_connections - self.nr_conns)):
            try:
                client, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # no more, or it left
                return
            limit_stalls(client)
            self.nr_conns += 1
            self.enqueue_req(Connection(self.cfg, client, address, listener.getsockname()))

    def enqueue_req(self, connection: Connection) -> None:
        """Await the connection's first request."""
        if self._is_plain_http:
            self._await_request(connection, CLIENT_SECONDS)
        else:
            super().enqueue_req(connection)

    def finish_request(self, connection: Connection, handled: Future[Any]) -> None:
        """Await the next request on a connection that a pool has served, or close it."""
        keeps = not (handled.cancelled() or handled.exception()) and handled.result() is True
        if not (self._is_plain_http and keeps):
            super().finish_request(connection, handled)
            return
        connection.take_back()
        connection.sock.settimeout(0)
        if connection.received:
            self._await_request(connection, CLIENT_SECONDS)
            self._serve(connection, is_open=True)
        else:
            self._await_request(connection, self.cfg.keepalive)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002  gunicorn's
        super().murder_keepalived(force=force)
        now = monotonic()
        for connection in list(self._connections.values()):
            is_late = connection.timeout < now and not connection.is_busy
            if force or (is_late and not connection.has_unread()):
                self._release(connection)
                if connection.awaits_body() and not force:
                    connection.end_input()  # so that its pool answers at once that it is too short
                    self._hand_to_pool(connection)
                else:
                    self._close(connection)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in self._connections.values():
            connection.timeout = min(connection.timeout, deadline)

    def _await_request(self, connection: Connection, seconds: float) -> None:
        if not self.alive:
            seconds = min(seconds, STOP_KEEPALIVE_LINGER)
        connection.timeout = monotonic() + seconds
        if not connection.is_polled:
            self._connections[connection.descriptor] = connection
            self._epoll.register(connection.descriptor, select.EPOLLIN)
            connection.is_polled = True

    def _stop_polling(self, connection: Connection) -> None:
        if connection.is_polled:
            self._epoll.unregister(connection.descriptor)
            connection.is_polled = False

    def _release(self, connection: Connection) -> None:
        self._stop_polling(connection)
        self._connections.pop(connection.descriptor, None)

    # The loop

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        until = monotonic() + min(timeout, _TICK_SECONDS)
        while True:
            self._turn(until)
            can_accept = self.nr_conns < self.worker_connections
            if not self.alive or can_accept != self._accepting or monotonic() >= until:
                return

    def _turn(self, until: float) -> None:
        pipeline, connections = self._pipeline, self._connections
        seconds = min(until, pipeline.overdue_at) - monotonic()
        has_rows = has_others = False
        for descriptor, _ in self._epoll.poll(max(0.0, seconds), _EVENTS):
            connection = connections.get(descriptor)
            if connection is not None:
                self._receive(connection)
            elif descriptor == pipeline.descriptor:
                has_rows = True
            else:
                has_others = True
        if has_others:
            super().wait_for_and_dispatch_events(0)
        now = monotonic()
        pipeline.flush(now)
        if has_rows:
            pipeline.receive()
        pipeline.check(now)
        if self._responses:
            self._send_responses()

    def _receive(self, connection: Connection) -> None:
        if connection.is_busy:  # the client has sent more, or has left
            self._stop_polling(connection)
            return
        if not connection.received:
            connection.timeout = monotonic() + CLIENT_SECONDS
        is_open = connection.receive()
        self._serve(connection, is_open=is_open)

    def _serve(self, connection: Connection, *, is_open: bool) -> None:
        """Begin to serve the request that the connection has received, if it is whole."""
        try:
            request = parse_request(connection.received)
            if request is not None:
                self._begin(connection, request)
            elif not (is_open and connection.awaits_more()):
                self._release(connection)
                if connection.received:
                    self._hand_to_pool(connection)
                else:
                    self.leave(connection)
        except Exception as error:  # noqa: BLE001  as gunicorn does for its own threads
            self._fail(connection, error)

    def _hand_to_pool(self, connection: Connection) -> None:
        connection.unread()
        ThreadWorker.enqueue_req(self, connection)

    def _fail(self, connection: Connection, error: Exception) -> None:
        self.handle_error(None, connection.sock, connection.client, error)
        self._release(connection)
        self.leave(connection)

    # Verifications

    def _begin(self, connection: Connection, request: PlainRequest) -> None:
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        headers = request.headers
        verification = PlainVerification(
            self._services,
            method=request.method,
            authorization=headers.get("authorization", ""),
            request_id=request_id_of(headers.get("x-request-id", "")),
            address=self.wsgi.client_address(connection.peer, headers.get("x-forwarded-for", "")),
        )
        connection.received = b""
        connection.is_busy = True
        under_way = UnderWay(connection, request, verification)
        if is_pair(verification.client_id, verification.client_secret):
            self._pipeline.add(under_way, verification.client_id)
        else:  # it is refused without a SELECT
            self._respond(under_way, verification.response(self._verifier.verify, self._lines))

    def _settle(self, under_way: UnderWay, stored_secrets: list[StoredSecret]) -> None:
        judge = partial(self._verifier.judge, stored_secrets, may_wait=False)
        try:
            self._respond(under_way, under_way.verification.response(judge, self._lines))
        except MustWait:
            self._verify_in_pool(under_way)
        except Exception as error:  # noqa: BLE001  as gunicorn does for its own threads
            self._fail(under_way.connection, error)

    def _verify_in_pool(self, under_way: UnderWay) -> None:
        """Let a thread make the verification, in the time that is left."""
        verification = under_way.verification
        deadline = verification.record.started_at + self._services.bulkheads.verification.seconds

        def verify(**pair: str) -> Verification:
            return self._verifier.verify(**pair, seconds=deadline - perf_counter())

        future = self.tpool.verify(verification.response, verify)
        future.add_done_callback(
            lambda done: self.method_queue.defer(self._respond, under_way, done.result())
        )

    def _respond(self, under_way: UnderWay, response: VerifyResponse) -> None:
        """Send the response at the end of the turn."""
        closes = under_way.request.closes or not self.alive or not self.cfg.keepalive
        message = write_response(
            response, is_head=under_way.request.method == "HEAD", closes=closes
        )
        self._responses.append((under_way.connection, message, closes))

    def _send_responses(self) -> None:
        lines, self._lines = self._lines, []
        write_lines(lines)
        responses, self._responses = self._responses, []
        for connection, message, closes in responses:
            connection.is_busy = False
            if connection.send(message) and not closes:
                self._await_request(connection, self.cfg.keepalive)
            else:
                self._release(connection)
                self.leave(connection)
