"""Outages: the database is away, in each way in which it can be."""

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
    ROLE,
    Database,
    Ground,
    Service,
    connect,
    issuing,
    probing,
    updating,
    verifying,
)


@dataclass
class Outage:
    """What the callers were answered, and when the database went and was back."""

    load: Load
    went_at: float
    back_at: float

    def answers(self, group: str) -> Answers:
        """Return what the group was answered while the database was away."""
        return self.load[group].started(self.went_at, self.back_at)

    def bars(self) -> list[Bar]:
        """Return the bars of every outage."""
        verified = self.load["verifying"].started(self.went_at)
        return [
            within_ms("/healthz", self.load["probing"].slowest, HEALTH_MS, noisy=True),
            none_of(
                "verifications not 200 or 503", verified.without_status(200, 503), len(verified)
            ),
            within("service again after", verified.back_after(self.back_at), RETURN_SECONDS),
        ]


def stopped(ground: Ground, *, seconds: float = 5) -> list[Bar]:
    """Postgres is stopped."""
    with ground.serve() as service, _calls(service) as load:
        went_at = monotonic()
        ground.postgres.stop()
        try:
            sleep(seconds)
        finally:
            ground.postgres.start()
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def refusing(ground: Ground, *, seconds: float = 5) -> list[Bar]:
    """Postgres' port is closed: connections are cut, and new ones refused."""
    with _serve_by_proxy(ground) as (service, proxy), _calls(service) as load:
        went_at = monotonic()
        proxy.close()
        sleep(seconds)
        proxy.reopen()
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def full(ground: Ground, *, seconds: float = 5) -> list[Bar]:
    """Postgres is full: others hold every connection that it allows."""
    with ground.serve() as service, _calls(service) as load:
        went_at = monotonic()
        with _all_connections_taken(service.database):
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
    return _answered_at_once(Outage(load, went_at, back_at))


def frozen(ground: Ground, *, seconds: float = 5) -> list[Bar]:
    """Postgres is frozen (SIGSTOP of all its processes)."""
    with ground.serve() as service, _calls(service, changes=True) as load:
        went_at = monotonic()
        with ground.postgres.frozen():
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
    return _answered_in_time(Outage(load, went_at, back_at))


def black_hole(ground: Ground, *, seconds: float = 5) -> list[Bar]:
    """The network swallows all that is sent to Postgres."""
    with _serve_by_proxy(ground) as (service, proxy), _calls(service, changes=True) as load:
        went_at = monotonic()
        with proxy.black_hole():
            sleep(seconds)
        back_at = monotonic()
        sleep(2.5)
    return _answered_in_time(Outage(load, went_at, back_at))


def all_connections_cut(ground: Ground, *, cuts: int = 3) -> list[Bar]:
    """All connections are cut at once, while four callers verify."""
    worst = 0
    with ground.serve() as service:
        verifiers = verifying([service.issue() for _ in range(4)])
        for _ in range(cuts):
            with Load(service.port, verifying=verifiers) as load:
                sleep(1)
                service.database.cut()
                sleep(1.5)
            worst = max(worst, load["verifying"].without_status(200))
    return [Bar("failures after a cut, of two workers", worst, 2, note=f"worst of {cuts} cuts")]


def _answered_at_once(outage: Outage) -> list[Bar]:
    away = outage.answers("verifying")
    note = f"slowest {away.slowest:.2f} s"
    p99 = Bar("/verify p99", away.p99, VERIFICATION_SECONDS, "s", note)
    return [p99, *outage.bars()]


def _answered_in_time(outage: Outage) -> list[Bar]:
    return [
        within("slowest verification", outage.answers("verifying").slowest, VERIFICATION_SECONDS),
        within("slowest change", outage.answers("changing").slowest, ANSWER_SECONDS),
        *outage.bars(),
    ]


@contextmanager
def _calls(service: Service, *, changes: bool = False) -> Iterator[Load]:
    """Let 8 callers verify, 8 change if asked for, and an orchestrator probe.

    Without changes it is 16 that verify. They pause for 100 ms, so that the first answers of an
    outage are more than one in a hundred.
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
def _serve_by_proxy(ground: Ground) -> Iterator[tuple[Service, Proxy]]:
    database = ground.new_database()
    proxy = Proxy(ground.postgres.socket_directory / ".s.PGSQL.5432")
    try:
        with ground.serve(database, url=database.url_on(proxy.port)) as service:
            yield service, proxy
    finally:
        proxy.close()


@contextmanager
def _all_connections_taken(database: Database) -> Iterator[None]:
    """Cut the service's connections and take their place, and every other that is left."""
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
