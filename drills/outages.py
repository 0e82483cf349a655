"""Outages: each way in which the database can be down."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep

import psycopg

from drills.bars import (
    ANSWER_SECONDS,
    HEALTH_MS,
    RETURN_SECONDS,
    VERIFICATION_SECONDS,
    Bar,
    none_of,
    within,
    within_ms,
)
from drills.load import Answers, Callers, Load
from drills.proxy import Proxy
from drills.service import (
    POOL,
    PROCESSES,
    ROLE,
    Database,
    Service,
    Testbed,
    connect,
    issuing,
    probing,
    updating,
    verifying,
)


@dataclass
class Outage:
    """The answers to the callers, and when the database went down and came back."""

    load: Load
    went_at: float
    back_at: float

    def answers(self, group: str) -> Answers:
        """Return the answers to the group while the database was down."""
        return self.load[group].started(self.went_at, self.back_at)

    def bars(self) -> list[Bar]:
        """Return the bars that every outage must meet."""
        verified = self.load["verifying"].started(self.went_at)
        return [
            within_ms("/healthz", self.load["probing"].slowest, HEALTH_MS, noisy=True),
            none_of(
                "verifications not 200 or 503", verified.without_status(200, 503), len(verified)
            ),
            within("service again after", verified.back_after(self.back_at), RETURN_SECONDS),
        ]


def stopped(testbed: Testbed, *, seconds: float = 5) -> list[Bar]:
    """Postgres is stopped."""
    with testbed.serve() as service, _calls(service) as load:
        went_at = monotonic()
        testbed.postgres.stop()
        try:
            sleep(seconds)
        finally:
            testbed.postgres.start()
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def refusing(testbed: Testbed, *, seconds: float = 5) -> list[Bar]:
    """Postgres' port is closed: connections are cut, and new ones are refused."""
    with _serve_by_proxy(testbed) as (service, proxy), _calls(service) as load:
        went_at = monotonic()
        proxy.close()
        sleep(seconds)
        proxy.reopen()
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def full(testbed: Testbed, *, seconds: float = 5) -> list[Bar]:
    """Postgres has no connection left: other clients hold all of them."""
    with testbed.serve() as service, _calls(service) as load:
        went_at = monotonic()
        with _all_connections_taken(service.database):
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def frozen(testbed: Testbed, *, seconds: float = 8) -> list[Bar]:
    """Postgres is frozen (SIGSTOP of all its processes).

    By default for so long that many attempts to connect time out, each after two seconds.
    """
    with testbed.serve() as service, _calls(service, changes=True) as load:
        went_at = monotonic()
        with testbed.postgres.frozen():
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
        connections = service.database.backends()
    bars = _answered_in_time(Outage(load, went_at, back_at))
    return [*bars, Bar("connections after the thaw", connections, PROCESSES * POOL)]


def black_hole(testbed: Testbed, *, seconds: float = 5) -> list[Bar]:
    """The network drops everything that is sent to Postgres."""
    with _serve_by_proxy(testbed) as (service, proxy), _calls(service, changes=True) as load:
        went_at = monotonic()
        with proxy.black_hole():
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
    return _answered_in_time(Outage(load, went_at, back_at))


def all_connections_cut(testbed: Testbed, *, cuts: int = 3) -> list[Bar]:
    """All connections are cut at the same time, while four callers verify."""
    worst = 0
    with testbed.serve() as service:
        verifiers = verifying([service.issue() for _ in range(4)])
        for _ in range(cuts):
            with Load(service.port, verifying=verifiers) as load:
                sleep(1)
                service.database.cut()
                sleep(1.5)
            worst = max(worst, load["verifying"].without_status(200))
    return [Bar("failures after a cut, of two workers", worst, 2, note=f"worst of {cuts} cuts")]


def _answered_at_once(outage: Outage) -> list[Bar]:
    answers = outage.answers("verifying")
    note = f"slowest {answers.slowest:.2f} s"
    p99 = Bar("/verify p99", answers.p99, VERIFICATION_SECONDS, "s", note)
    return [p99, *outage.bars()]


def _answered_in_time(outage: Outage) -> list[Bar]:
    return [
        within("slowest verification", outage.answers("verifying").slowest, VERIFICATION_SECONDS),
        within("slowest change", outage.answers("changing").slowest, ANSWER_SECONDS),
        *outage.bars(),
    ]


@contextmanager
def _calls(service: Service, *, changes: bool = False) -> Iterator[Load]:
    """Let callers verify and an orchestrator probe.

    16 callers verify, or with `changes` 8 verify and 8 change. They pause for 100 ms, so that the
    first answers of an outage are more than one in a hundred, and count in the p99.
    """
    issued = [service.issue() for _ in range(4)]
    groups: dict[str, Callers] = {"probing": probing()}
    groups["verifying"] = verifying(issued, callers=8 if changes else 16, pause=0.1)
    if changes:
        tokens = [service.token(f"unit_{number}") for number in range(4)]
        both = [*updating(issued).requests, *issuing(tokens).requests]
        groups["changing"] = Callers(both, 0.1)
    with Load(service.port, **groups) as load:
        sleep(1)
        yield load


@contextmanager
def _serve_by_proxy(testbed: Testbed) -> Iterator[tuple[Service, Proxy]]:
    database = testbed.new_database()
    proxy = Proxy(testbed.postgres.socket_directory / ".s.PGSQL.5432")
    try:
        with testbed.serve(database, url=database.url_on(proxy.port)) as service:
            yield service, proxy
    finally:
        proxy.close()


@contextmanager
def _all_connections_taken(database: Database) -> Iterator[None]:
    """Cut the service's connections, and take every connection that Postgres allows."""
    with ExitStack() as stack:
        admin = stack.enter_context(database.connect())  # while there is still room
        deadline = monotonic() + 5
        while True:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = %s AND application_name <> 'drill'",
                [ROLE],
            )
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(connect(database.url()))
            left = admin.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE usename = %s AND application_name <> 'drill'",
                [ROLE],
            ).fetchone()
            if left == (0,) or monotonic() > deadline:
                break
        yield
