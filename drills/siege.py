"""Siege: what one tenant or a stranger does must not affect anybody else.

    .venv/bin/python -m drills --only siege            all of them
    .venv/bin/python -m drills --only siege.sleeps     one of them

Each drill is one function. It starts the service, and `compare` measures what everybody else gets
in a quiet time and beside the attack.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from threading import Event, Thread
from time import sleep
from typing import Any

from app.credentials.generator import generate_secret_id
from drills.bars import (
    ANSWER_SECONDS,
    HEALTH_MS,
    Bar,
    none_of,
    p99_times_quiet,
    within,
    within_ms,
)
from drills.load import Callers, Load, Request, during
from drills.service import (
    Service,
    Testbed,
    bearer,
    issuing,
    listing,
    probing,
    updating,
    verifying,
)

_QUIET_SECONDS = 2.5
_SIEGE_SECONDS = 3.5
_WARM_UP_SECONDS = 0.5

_GREEDY = "unit_greedy"
_OTHER = "unit_other"
_OTHERS_PAUSE = 0.02

_EVENTS = 200_000
_FILTERS = (
    "actor=nobody",
    "event=revoked",
    "since=2099-01-01T00:00:00Z",
    "until=2001-01-01T00:00:00Z",
    "secret_id=sec_00000000000000000000",
    "actor=nobody&event=updated&order=asc",
)

Attack = Callable[[], AbstractContextManager[Any]]


def sleeps(testbed: Testbed) -> list[Bar]:
    """One unit makes conditional revocations with 16 callers, which wait for other processes."""
    with testbed.serve() as service:
        greedy = service.issue(_GREEDY)
        paths = [f"/secrets/{each}" for each in (greedy.secret_id, generate_secret_id())]
        flood = [
            [Request("DELETE", f"{path}?unused_for=60", bearer(greedy.token))] for path in paths * 8
        ]
        return compare(service, lambda: Load(service.port, flood=Callers(flood)))


def filters(testbed: Testbed) -> list[Bar]:
    """One unit filters its trail of 200,000 events with 8 callers, and finds nothing."""
    with testbed.serve() as service:
        greedy = service.issue(_GREEDY)
        service.database.add_events(_EVENTS, unit_id=_GREEDY, secret_id=greedy.secret_id)
        requests = [
            Request("GET", f"/secrets/events?{each}", bearer(greedy.token)) for each in _FILTERS
        ]
        return compare(service, lambda: Load(service.port, flood=Callers([requests] * 8)))


def issues(testbed: Testbed) -> list[Bar]:
    """One unit issues with 64 callers, without a limit."""
    with testbed.serve() as service:
        flood = issuing([service.token(_GREEDY)] * 64)
        return compare(service, lambda: Load(service.port, flood=flood))


def updates(testbed: Testbed) -> list[Bar]:
    """One unit updates its credentials with 16 callers."""
    with testbed.serve() as service:
        flood = updating([service.issue(_GREEDY) for _ in range(16)])
        return compare(service, lambda: Load(service.port, flood=flood))


def lists(testbed: Testbed) -> list[Bar]:
    """One unit lists its 1,000 credentials with 16 callers."""
    with testbed.serve() as service:
        greedy = service.issue(_GREEDY)
        service.database.clone_credential(greedy.secret_id, copies=1000, secrets=True)
        flood = listing(greedy.token, callers=16, pause=0)
        return compare(service, lambda: Load(service.port, flood=flood))


def slow_bodies(testbed: Testbed) -> list[Bar]:
    """60 connections without credentials send chunked bodies byte by byte."""
    with testbed.serve() as service:
        manager = service.issue(_OTHER)
        change = Request(
            "PUT",
            f"/secrets/{manager.secret_id}",
            bearer(manager.token) | {"Transfer-Encoding": "chunked"},
            json.dumps({"trust_upstream_consent": True}),
        )
        others = {
            "changing": Callers([[change]], _OTHERS_PAUSE),
            "reading": Callers([[Request("GET", "/docs", {})]], _OTHERS_PAUSE),
            "scraping": Callers([[Request("GET", "/metrics", {})]], 0.5),
        }
        return compare(service, lambda: _dripping(service.port, connections=60), **others)


def a_busy_processor(testbed: Testbed) -> list[Bar]:
    """16 callers issue three times each, beside four programs that keep the processor busy."""
    calls, callers = 3, 16
    with testbed.serve() as service, ExitStack() as stack:
        flood = issuing([service.token(_OTHER)] * callers)
        flood = replace(flood, requests=[each * calls for each in flood.requests], once=True)
        for _ in range(4):
            stack.enter_context(_busy_loop())
        with Load(service.port, issuing=flood) as load:
            load.wait_for("issuing")
    answers = load["issuing"]
    return [
        Bar("issues missing", calls * callers - len(answers), 0),
        none_of("issues not 200", answers.without_status(200), len(answers)),
        within("slowest issue", answers.slowest, ANSWER_SECONDS),
    ]


def compare(service: Service, attack: Attack, **more: Callers) -> list[Bar]:
    """Compare what everybody else gets beside the attack with a quiet time before it.

    `more` are further callers, who must be served too.
    """
    others = everybody_else(service) | more
    quiet = during(_QUIET_SECONDS, service.port, **others)
    with attack():
        sleep(_WARM_UP_SECONDS)
        besieged = during(_SIEGE_SECONDS, service.port, **others)
    managing, verifying = besieged["managing"], besieged["verifying"]
    return [
        p99_times_quiet("another unit's /secrets p99", quiet["managing"].p99, managing.p99),
        none_of(
            "another unit's calls not served", managing.without_status(200, 204), len(managing)
        ),
        p99_times_quiet("/verify p99", quiet["verifying"].p99, verifying.p99),
        none_of("verifications not 200", verifying.without_status(200), len(verifying)),
        within_ms("/healthz", besieged["probing"].slowest, HEALTH_MS, noisy=True),
        *(
            none_of(f"{name}: not served", each.without_status(200, 204), len(each))
            for name, each in ((name, besieged[name]) for name in more)
        ),
        *(p99_times_quiet(f"{name}: p99", quiet[name].p99, besieged[name].p99) for name in more),
    ]


def everybody_else(service: Service) -> dict[str, Callers]:
    """Return another unit's manager, senders and an orchestrator."""
    others = [service.issue(_OTHER) for _ in range(4)]
    manager, token = others[0], bearer(others[0].token)
    changes = [json.dumps({"trust_upstream_consent": value}) for value in (True, False)]
    calls = [
        Request("GET", "/secrets", token),
        Request("PUT", f"/secrets/{manager.secret_id}", token, changes[0]),
        Request("GET", f"/secrets/{manager.secret_id}", token),
        Request("PUT", f"/secrets/{manager.secret_id}", token, changes[1]),
        Request("GET", "/secrets/events?limit=10", token),
    ]
    return {
        "managing": Callers([calls], _OTHERS_PAUSE),
        "verifying": verifying(others),
        "probing": probing(),
    }


@contextmanager
def _busy_loop() -> Iterator[None]:
    """Keep a processor busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _dripping(port: int, *, connections: int) -> Iterator[None]:
    """Keep that many connections open, each of which sends a chunked body byte by byte."""
    stop = Event()
    heads = [
        f"{start} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for start in ("PUT /secrets/x", "POST /secrets", "GET /docs")
    ]

    def drip(head: bytes) -> None:
        while not stop.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 20) as client:
                client.sendall(head)
                while not stop.wait(0.2):
                    client.sendall(b"1\r\nx\r\n")

    threads = [Thread(target=drip, args=[heads[n % len(heads)]]) for n in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
