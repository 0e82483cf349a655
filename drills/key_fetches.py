"""Fetches of the issuer's keys from a server that hangs, or sends one byte a second."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from time import sleep

from drills.bars import ANSWER_SECONDS, Bar, none_of, p99_times_quiet, within, within_ms
from drills.load import Callers, Load, Request, during
from drills.service import PROCESSES, Testbed, bearer, listing, new_digest_key, verifying
from tests.issuer import Issuer

_QUIET_SECONDS = 3
_WARP = Path(__file__).parent / "warp"

SERVE, HANG, DRIP = "serve", "hang", "drip"


class JwksServer:
    """A JWKS server that serves, hangs or drips, and counts its connections."""

    def __init__(self, body: bytes, mode: str) -> None:
        self.mode = mode
        self._head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        self._body = body
        self._lock = Lock()
        self._open = 0
        self.fetches = 0
        self.most_open = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/jwks.json"
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    return  # closed
                Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open += 1
            self.fetches += 1
            self.most_open = max(self.most_open, self._open)
        with client, suppress(OSError):
            self._answer(client)
        with self._lock:
            self._open -= 1

    def _answer(self, client: socket.socket) -> None:
        client.recv(65536)
        if self.mode == SERVE:
            client.sendall(self._head + self._body)
        elif self.mode == HANG:
            client.recv(1)  # until the client gives up
        else:
            client.settimeout(1)
            client.sendall(self._head)
            for byte in self._body:
                client.sendall(bytes([byte]))
                with suppress(TimeoutError):
                    if not client.recv(1):
                        return


@contextmanager
def serving_keys(body: bytes, mode: str = SERVE) -> Iterator[JwksServer]:
    """Run a JWKS server."""
    server = JwksServer(body, mode)
    try:
        yield server
    finally:
        server.close()


class Clock:
    """The monotonic clock of the service's workers, which a drill can move ahead."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ahead = 0.0
        self.move(0)
        self.environment = {"PYTHONPATH": str(_WARP), "DRILL_CLOCK": str(file)}

    def move(self, seconds: float) -> None:
        """Move it ahead by `seconds`."""
        self._ahead += seconds
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", self._ahead))


def cached_keys(testbed: Testbed) -> list[Bar]:
    """The JWKS server hangs, then drips, while the service has its keys in memory."""
    clock = Clock(testbed.new_path("clock"))
    with (
        serving_keys(testbed.issuer.jwks()) as jwks,
        testbed.serve(JWT_JWKS_URL=jwks.url, **clock.environment) as service,
    ):
        issued = [service.issue() for _ in range(2)]
        callers = listing(issued[0].token, callers=4)
        unknown = Request("GET", "/secrets", bearer(_unknown_key_token()))
        during(1, service.port, listing=callers)  # so that both workers have the keys
        fetched = jwks.fetches
        quiet = during(_QUIET_SECONDS, service.port, listing=callers, verifying=verifying(issued))
        jwks.mode = HANG
        with Load(
            service.port,
            listing=callers,
            verifying=verifying(issued),
            forging=Callers([[unknown]] * 2, 1.0),
        ) as load:
            clock.move(310)  # the keys are stale, and due again
            sleep(4)
            jwks.mode = DRIP
            for _ in range(3):
                clock.move(31)  # the pause after a failed fetch is over
                sleep(3.5)
        asked = jwks.fetches - fetched
    listed = load["listing"]
    return [
        within_ms("slowest caller whose key is cached", listed.slowest, 500, noisy=True),
        p99_times_quiet("the same, p99", quiet["listing"].p99, listed.p99),
        # a call has a deadline, which it misses if the clock is moved meanwhile: four times
        Bar("the same, not 200", listed.without_status(200), 4 * len(callers.requests)),
        p99_times_quiet("/verify p99", quiet["verifying"].p99, load["verifying"].p99),
        Bar("connections to the JWKS server", jwks.most_open, PROCESSES, note=f"{asked} fetches"),
    ]


def forged_tokens_at_a_cold_start(testbed: Testbed) -> list[Bar]:
    """The JWKS server hangs from the start; 16 callers come with forged tokens."""
    database, key = testbed.new_database(), new_digest_key()
    with testbed.serve(database, DIGEST_KEY=key) as service:
        issued = [service.issue() for _ in range(4)]
    with (
        serving_keys(testbed.issuer.jwks(), HANG) as jwks,
        testbed.serve(database, DIGEST_KEY=key, JWT_JWKS_URL=jwks.url) as service,
    ):
        verifiers = verifying(issued)
        quiet = during(_QUIET_SECONDS, service.port, verifying=verifiers)["verifying"]
        forged = Callers(
            [[Request("GET", "/secrets", bearer(_unknown_key_token()))] for _ in range(16)], 0.05
        )
        load = during(6, service.port, verifying=verifiers, forging=forged)
    answers = load["forging"]
    # only the first seconds: a thread that waits for keys delays few verifications, but for long
    verified = load["verifying"].started(load.began, load.began + 3)
    return [
        p99_times_quiet("/verify p99", quiet.p99, verified.p99),
        none_of("verifications not 200", load["verifying"].without_status(200)),
        within("slowest answer to a forged token", answers.slowest, ANSWER_SECONDS),
        none_of("forged tokens not 401 or 503", answers.without_status(401, 503), len(answers)),
        Bar("connections to the JWKS server", jwks.most_open, PROCESSES),
    ]


def _unknown_key_token() -> str:
    """Return a well-formed token that another issuer signed."""
    return Issuer().sign("EdDSA", headers={"kid": "unknown"})
