"""Run the workload on a stage, with or without a nemesis, and record the whole history."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import monotonic, sleep, time
from typing import Any, Protocol

import psycopg

from drills.history.followers import Poll, followers
from drills.history.history import Event as StoredEvent
from drills.history.history import History, Recorder, Settings, Stored
from drills.history.workload import Target, Workload
from drills.service import OUR_NAME, wait_until

_CATCH_UP_SECONDS = 15.0  # then what lost hosts have left behind is ended
_SETTLE_SECONDS = 60.0  # a busy machine needs longer
_MIN_SLACK_SECONDS = 0.02

_EVENTS = """
    SELECT event_id, transaction_id::text::bigint, unit_id, secret_id, client_id, name, event,
           actor, via, request_id, extract(epoch FROM at)::float8, detail
    FROM credential_events WHERE unit_id = ANY(%s) ORDER BY event_id
"""
_STORED = """
    SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, disabled_at IS NULL,
           disabled_with_unit, array(
               SELECT hint FROM client_secrets
               WHERE client_secrets.secret_id = credentials.secret_id
                 AND (expires_at IS NULL OR expires_at > now())
               ORDER BY client_secret_id DESC
           ), extract(epoch FROM now())::float8
    FROM credentials WHERE unit_id = ANY(%s)
"""
_BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name <> %s AND xact_start IS NOT NULL
      AND backend_type = 'client backend'
"""


class Stage(Protocol):
    """What the workload needs. drills/cluster has another one than drills/history."""

    target: Target

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the primary as a superuser."""
        ...

    def end_lost_sessions(self) -> None:
        """End what lost hosts have left behind in Postgres."""
        ...


def record(
    stage: Stage,
    file: Path,
    during: Callable[[Recorder], None],
    *,
    seed: int,
    clients: int = 12,
) -> History:
    """Run the workload while `during` runs, and return the history, which is kept in the file."""
    recorder = Recorder(file)
    stopped = Event()
    offset = time() - monotonic()
    target = stage.target
    workload = Workload(target, recorder, seed=seed, clients=clients)
    following = followers(target.ports, target.issuer, target.units, recorder, stopped)
    watching = [*following, Poll(stage.connect, recorder, stopped)]
    for thread in watching:
        thread.start()
    workload.start()
    try:
        during(recorder)
    finally:
        workload.stop()

    def have_all() -> bool:
        with stage.connect() as connection:
            rows = connection.execute("SELECT unit_id, count(*) FROM credential_events GROUP BY 1")
            counts = dict(rows.fetchall())
        return all(each.delivered >= counts.get(each.unit, 0) for each in following)

    try:
        wait_until(have_all, _CATCH_UP_SECONDS)
        stage.end_lost_sessions()
        with stage.connect() as connection:
            wait_until(lambda: _is_idle(connection), _SETTLE_SECONDS)
            wait_until(have_all, _SETTLE_SECONDS)
    finally:
        stopped.set()
        for thread in watching:
            thread.join()
    slack = abs(time() - monotonic() - offset) + _MIN_SLACK_SECONDS
    recorder.add(Settings(seed, target.quota, slack))
    with stage.connect() as connection:
        _record_database(connection, recorder, target.units, offset)
    recorder.close()
    return History.read(file)


def undisturbed(seconds: float) -> Callable[[Recorder], None]:
    """Return what waits for the time, without any fault."""
    return lambda _: sleep(seconds)


def _is_idle(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    return connection.execute(_BUSY, [OUR_NAME]).fetchone() == (0,)


def _record_database(
    connection: psycopg.Connection[tuple[Any, ...]],
    recorder: Recorder,
    units: Sequence[str],
    offset: float,
) -> None:
    """Record what the units have. Other drills on the same cluster use others."""
    for *members, at, detail in connection.execute(_EVENTS, [list(units)]):
        recorder.add(StoredEvent(*members, at=at - offset, detail=detail))
    for *members, at in connection.execute(_STORED, [list(units)]):
        recorder.add(Stored(*members, at=at - offset))
