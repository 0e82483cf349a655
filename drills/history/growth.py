"""What may grow while the service runs: memory, files, connections, rows, and lines of the log.

The processes of the first instance are watched, which the soak's nemesis spares.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import linear_regression, median
from threading import Event, Thread
from time import monotonic
from typing import LiteralString

import psutil
import psycopg

from drills.bars import Bar
from drills.history.stage import Stage

_BOUNDED = ("credentials", "client_secrets", "sealed_answers")
_GROWING = ("credential_events", "answered_requests")  # by design: with each change

_ROWS = """
    SELECT coalesce(sum(n_dead_tup), 0)::int FROM pg_stat_user_tables
"""
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::float8
    FROM pg_stat_user_tables WHERE relname = ANY(%s)
"""


@dataclass(frozen=True)
class Sample:
    """The state at a time. The names are those of the bars."""

    at: float
    memory_of_workers_mb: float
    open_files: float
    connections: float
    dead_rows: float
    tables_mb: float
    trail_bytes_per_event: float
    log_lines_per_minute: float


# by how much the last quarter may exceed the second one, which is the first that counts
_MOST_TIMES = {
    "memory_of_workers_mb": 1.1,
    "open_files": 1.1,
    "connections": 1.2,
    "dead_rows": 2.0,
    "tables_mb": 1.5,
    "trail_bytes_per_event": 1.2,
    "log_lines_per_minute": 1.5,
}
# what is too small to count
_AT_LEAST = {"dead_rows": 2000.0, "tables_mb": 8.0}


class Watch(Thread):
    """Takes a sample every few seconds, until stopped."""

    def __init__(self, stage: Stage, *, pause: float) -> None:
        super().__init__(name="watch", daemon=True)
        self.samples: list[Sample] = []
        self._stage = stage
        self._pause = pause
        self._stopped = Event()
        self._logged = (monotonic(), 0)

    def run(self) -> None:
        while not self._stopped.wait(self._pause):
            with suppress(psycopg.Error, psutil.Error):  # the nemesis is at work
                self.samples.append(self._sample())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _sample(self) -> Sample:
        workers = self._stage.instances[0].workers()
        with self._stage.connect() as connection:

            def number(query: LiteralString, *parameters: object) -> float:
                [(value,)] = connection.execute(query, parameters).fetchall()
                return float(value)

            dead_rows = number(_ROWS)
            bounded = number(_SIZE, list(_BOUNDED))
            growing = number(_SIZE, list(_GROWING))
            events = number("SELECT count(*) FROM credential_events")
        return Sample(
            monotonic(),
            sum(each.memory_info().rss for each in workers) / 1e6,
            sum(each.num_fds() for each in workers),
            self._stage.database.backends(),
            dead_rows,
            bounded / 1e6,
            growing / max(1.0, events),
            self._lines_per_minute(self._stage.instances[0].outputs),
        )

    def _lines_per_minute(self, logs: Sequence[Path]) -> float:
        before, known = self._logged
        now, lines = monotonic(), sum(log.read_bytes().count(b"\n") for log in logs)
        self._logged = now, lines
        return (lines - known) / (now - before) * 60


def growth_bars(samples: Sequence[Sample]) -> list[Bar]:
    """Return a bar for each figure. The first quarter of the time is left out as the warm-up."""
    quarter = max(1, len(samples) // 4)
    hours = [sample.at / 3600 for sample in samples[quarter:]]
    bars = []
    for number, field in enumerate(fields(Sample)):
        if field.name == "at":
            continue
        values = [astuple(sample)[number] for sample in samples]
        start, end = median(values[quarter : 2 * quarter]), median(values[-quarter:])
        slope = linear_regression(hours, values[quarter:]).slope
        note = f"{start:,.1f} → {end:,.1f}, {slope:+,.1f} an hour"
        limit = max(start * _MOST_TIMES[field.name], _AT_LEAST.get(field.name, 0.0))
        bars.append(Bar(f"{field.name.replace('_', ' ')} at the end", end, limit, "", note))
    return bars
