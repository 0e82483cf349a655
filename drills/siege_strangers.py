"""Siege by strangers: what somebody without a token does must not affect anybody else.

.venv/bin/python -m drills --only siege_strangers            all of them
.venv/bin/python -m drills --only siege_strangers.scrapes    one of them
"""

import json
import socket
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from statistics import median
from threading import Event, Thread
from time import monotonic, sleep

from app.credentials.generator import generate_client_id, generate_client_secret
from drills.bars import Bar, none_of, times_quiet, within
from drills.load import Callers, Load, Request, during
from drills.service import (
    PROCESSES,
    Issued,
    Service,
    Testbed,
    bearer,
    listing,
    new_digest_key,
)
from drills.siege import compare
from tests.helpers import basic, guesses

_GUESSERS = 16
_GUESSERS_PAUSE = 0.2
_OWNER_SECONDS = 2.0
_OWNER = {"X_Forwarded_For": "198.51.100.7"}
_DRIP_PAUSE_SECONDS = 0.15
_STATISTICS_SECONDS = 2.0  # Postgres counts a moment late
_ANSWER_SECONDS = 10.0
_COST_ROUNDS = 150

# It uses one thread and little time: what it measures is the service, not itself.
_CROWD = """
import resource, selectors, socket, struct, sys, time
port, silent, dripping, most = int(sys.argv[1]), 6000, 1000, 500
_, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
poller, dripping_ones = selectors.DefaultSelector(), []
reset = struct.pack("ii", 1, 0)
def connect():
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", port))
    poller.register(client, selectors.EVENT_READ)
    return client
def close(client):
    poller.unregister(client)
    client.close()
while True:
    for _ in range(min(most, silent + dripping - len(poller.get_map()))):
        client = connect()
        if len(dripping_ones) < dripping:
            dripping_ones.append(client)
    for key, _ in poller.select(0.1):
        close(key.fileobj)
    dripping_ones = [each for each in dripping_ones if each.fileno() >= 0]
    for client in dripping_ones:
        try:
            client.send(b"G")
        except OSError:
            pass
    for client in dripping_ones[:20]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        close(client)
    time.sleep(0.5)
"""

_BEHIND_A_PROXY = {"TRUSTED_PROXIES": "1"}


def lost_key_from_one_network(testbed: Testbed, tries: int = 50) -> list[Bar]:
    """16 guessers know a hint of a lost key's client secret, and rotate within an IPv6 /64."""
    return _lost_key(testbed, tries, lambda guesser, n: f"2001:db8::{guesser:x}:{n:x}")


def lost_key_from_many_networks(testbed: Testbed, tries: int = 50) -> list[Bar]:
    """16 guessers know a hint of a lost key's client secret, each at an address of its own."""
    return _lost_key(testbed, tries, lambda guesser, _: f"203.0.113.{guesser + 1}")


def scrapes(testbed: Testbed) -> list[Bar]:
    """4 callers scrape /metrics 40 times a second."""
    with testbed.serve() as service:
        flood = Callers([[Request("GET", "/metrics", {})]] * 4, pause=0.1)
        return compare(service, lambda: Load(service.port, flood=flood))


def leak_reports(testbed: Testbed) -> list[Bar]:
    """64 callers report client secrets as leaked, half of them a hundred at once."""
    with testbed.serve(LEAK_REPORTS="end", VERIFY_FAILURE_LIMIT="0") as service:
        headers = {"Content-Type": "application/json"}
        found = [{"token": generate_client_secret()} for _ in range(100)]
        reports = [json.dumps(each) for each in (found, found[0])]
        flood = [[Request("POST", "/leaks", headers, each)] for each in reports * 32]
        return compare(service, lambda: Load(service.port, flood=Callers(flood)))


def silent_connections(testbed: Testbed) -> list[Bar]:
    """6,000 connections send nothing, 1,000 a byte now and then, and others are reset."""
    with testbed.serve() as service:
        return compare(service, lambda: _connections(service.port))


def hostile_redis(testbed: Testbed) -> list[Bar]:
    """Redis sends a byte every 0.15 s, or arrays in arrays, while 8 callers fail."""
    bars = []
    for name, answer, pause in (
        ("drips", b"+", _DRIP_PAUSE_SECONDS),
        ("nonsense", b"*1\r\n" * 20_000, 0.0),
    ):
        with _redis(answer, pause) as url, testbed.serve(RATELIMIT_STORAGE_URL=url) as service:
            owner = service.issue()
            asking = Callers([[Request("GET", "/verify", owner.basic)]], pause=0.02)
            failing = Callers(
                [[Request("GET", "/verify", basic(owner.client_id, generate_client_secret()))]] * 8
            )
            with Load(service.port, failing=failing):
                sleep(0.5)
                answers = during(4, service.port, owner=asking)["owner"]
            bars += [
                none_of(f"{name}: valid pairs not 200", answers.without_status(200), len(answers)),
                within(f"{name}: slowest answer to a valid pair", answers.slowest, 1.5),
            ]
    return bars


def costly_requests(testbed: Testbed) -> list[Bar]:
    """Long headers and small chunks cost at most ten times as much as a verification."""
    long = "a," * 3900
    with testbed.serve(WEB_CONCURRENCY="1", **_BEHIND_A_PROXY) as service:
        pair = service.issue().basic
        usual = _median_seconds(service, _message("GET /verify", pair))
        costly = {
            "100 headers of 7,800 bytes": _message(
                "GET /verify", {f"X-{number}": long for number in range(98)}
            ),
            "X-Forwarded-For": _message("GET /verify", pair | {"X-Forwarded-For": "," * 7800}),
            "Accept-Encoding": _message("GET /docs", {"Accept-Encoding": long}),
            "If-None-Match": _message("GET /docs", {"If-None-Match": long}),
            "chunks of a byte": _message(
                "POST /verify", pair | {"Transfer-Encoding": "chunked"}, b"1\r\nx\r\n" * 4000
            ),
        }
        return [
            times_quiet(name, usual, _median_seconds(service, message), 10)
            for name, message in costly.items()
        ]


def known_and_unknown(testbed: Testbed, rounds: int = 3000) -> list[Bar]:
    """A stranger compares the times of a known and an unknown client ID."""
    with testbed.serve(VERIFY_FAILURE_LIMIT="0", WEB_CONCURRENCY="1") as service:
        ids = (service.issue().client_id, generate_client_id())
        turns = [
            Request("GET", "/verify", basic(client_id, generate_client_secret()))
            for _ in range(rounds)
            for client_id in ids
        ]
        with Load(service.port, asking=Callers([turns], once=True)) as load:
            load.wait_for("asking")
    seconds = [each.seconds for each in load["asking"]]
    known, unknown = seconds[::2], seconds[1::2]
    medians = f"medians {median(known) * 1e6:,.0f} and {median(unknown) * 1e6:,.0f} us"
    # 0.5 is a coin. Postgres finds and sends a row for the known one only, which takes some 10 us.
    return [Bar("area under the ROC curve", _area_under_curve(known, unknown), 0.8, note=medians)]


def refusals_of_one_client_id(testbed: Testbed, *, seconds: float = 30) -> list[Bar]:
    """A sender is refused thousands of times a second, and its owner sees it."""
    with testbed.serve(VERIFY_FAILURE_LIMIT="0") as service:
        owner = service.issue()
        updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'credentials'"
        [(before,)] = service.database.query(updates)
        request = Request("GET", "/verify", basic(owner.client_id, generate_client_secret()))
        groups = {f"refused_{n}": Callers([[request]] * 16) for n in range(4)}
        with Load(service.port, **groups) as load:
            shown_after = _seconds_until_shown(service, owner, load.began)
            sleep(seconds)
        sleep(_STATISTICS_SECONDS)
        [(after,)] = service.database.query(updates)
    answers = [each for name in groups for each in load[name]]
    rate = len(answers) / (seconds + shown_after)
    return [
        Bar("row updates", after - before, 2 * PROCESSES, note=f"{rate:,.0f} refusals a second"),
        none_of("refusals not 401", sum(each.status != 401 for each in answers), len(answers)),
        within("the owner sees it", shown_after, 1),
    ]


def _seconds_until_shown(service: Service, owner: Issued, began: float) -> float:
    path = f"/secrets/{owner.secret_id}"
    while monotonic() < began + _ANSWER_SECONDS:
        shown = service.request("GET", path, **bearer(owner.token))
        if shown.status == 200 and shown.json()["last_refused"] is not None:
            return monotonic() - began
    return inf


def _lost_key(testbed: Testbed, tries: int, address_of: Callable[[int, int], str]) -> list[Bar]:
    """Measure how many of the owner's tries succeed in time, each with a new digest key."""
    database = testbed.new_database()
    with testbed.serve(database) as service:
        owner = service.issue()
    with testbed.serve(database, DIGEST_KEY=new_digest_key(), **_BEHIND_A_PROXY) as service:
        quiet = during(2, service.port, listing=listing(owner.token))["listing"]
        with Load(service.port, guessing=_guessers(owner, address_of)):
            sleep(0.5)
            besieged = during(4, service.port, listing=listing(owner.token))["listing"]
            served = 0
            for _ in range(tries):
                with database.connect() as connection:
                    connection.execute("UPDATE client_secrets SET digest = NULL")
                sleep(_GUESSERS_PAUSE)  # in which the guessers queue
                started = monotonic()
                with suppress(OSError):
                    is_served = service.verify(owner, **_OWNER) == 200
                    served += is_served and monotonic() - started <= _OWNER_SECONDS
    return [
        Bar("right pair not 200 within 2 s", tries - served, tries * 0.05, note=f"of {tries}"),
        times_quiet("GET /secrets p50", quiet.p50, besieged.p50),
        none_of("lists not 200", besieged.without_status(200), len(besieged)),
    ]


def _guessers(owner: Issued, address_of: Callable[[int, int], str]) -> Callers:
    secrets = list(islice(guesses(owner.client_secret), 400))
    return Callers(
        [
            [
                Request(
                    "GET",
                    "/verify",
                    basic(owner.client_id, secret)
                    | {"X-Forwarded-For": address_of(guesser, number)},
                )
                for number, secret in enumerate(secrets[guesser::_GUESSERS])
            ]
            for guesser in range(_GUESSERS)
        ],
        _GUESSERS_PAUSE,
    )


@contextmanager
def _connections(port: int) -> Iterator[None]:
    """Open them again as soon as the service closes them, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", _CROWD, str(port)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _redis(answer: bytes, pause: float) -> Iterator[str]:
    """Run a server that sends the answer to each question, again and again after the pause."""
    stop = Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while not stop.is_set() and self.request.recv(65536):
                    self.request.sendall(answer)
                    while pause and not stop.wait(pause):
                        self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            stop.set()
            server.shutdown()
            thread.join()


def _message(start: str, headers: dict[str, str], chunks: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    end = b"0\r\n\r\n" if chunks else b""
    return f"{start} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + chunks + end


def _median_seconds(service: Service, message: bytes) -> float:
    """Return the median time to an answer, each on a new connection."""
    seconds = []
    for _ in range(_COST_ROUNDS):
        with socket.create_connection(("127.0.0.1", service.port), 20) as client:
            started = monotonic()
            with suppress(ConnectionError):  # it answers before it has read everything
                client.sendall(message)
            with suppress(ConnectionError):
                client.recv(65536)
            seconds.append(monotonic() - started)
    return median(seconds)


def _area_under_curve(ones: list[float], others: list[float]) -> float:
    """Return how often one of the first takes longer than one of the others, or the reverse."""
    ranked = sorted([(each, 0) for each in ones] + [(each, 1) for each in others])
    ranks = sum(rank for rank, (_, group) in enumerate(ranked, 1) if group == 0)
    wins = ranks - len(ones) * (len(ones) + 1) / 2
    area = wins / (len(ones) * len(others))
    return max(area, 1 - area)
