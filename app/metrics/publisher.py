"""Publish what the process has counted, once a second (ADR 18)."""

from __future__ import annotations

import logging
from collections import Counter as Counted
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from app.bulkheads import BulkheadFull
from app.credentials.hashing import BCRYPT_RUNS
from app.credentials.model import EVENT_NAMES
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.metrics.requests import OUTCOMES
from app.metrics.series import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Counter

    from app.bulkheads import Bulkhead, Bulkheads, Turns
    from app.counters import Histogram, HistogramSnapshot
    from app.credentials.management import CredentialService
    from app.database.pool import Database
    from app.identity.key_sources import KeySource
    from app.metrics.directory import WorkerFiles
    from app.metrics.requests import Outcome, RequestKind

_PUBLISH_SECONDS = 1.0
_COUNT_SECONDS = 60.0

Label = TypeVar("Label", bound=str)

_logger = logging.getLogger(__name__)


class Metrics:
    """Publishes the counts of this process, once a second and before it collects those of all.

    No request waits for it. Every minute, one of the processes also counts the client secrets that
    expire soon, and the credentials without scopes.
    """

    def __init__(
        self,
        *,
        database: Database,
        bulkheads: Bulkheads,
        keys: KeySource,
        credentials: CredentialService,
        request_durations: Histogram[RequestKind],
    ) -> None:
        self._database = database
        self._keys = keys
        self._credentials = credentials
        self._request_durations = request_durations
        self._bulkheads: dict[str, Bulkhead | Turns] = {
            "verification": bulkheads.verification.bulkhead,
            "authentication": bulkheads.authentication,
            "management": bulkheads.management.bulkhead,
            "bcrypt": bulkheads.hashing,
            "comparison": bulkheads.comparison,
            "key_fetch": bulkheads.key_fetch,
            "background": bulkheads.background.bulkhead,
            "counting": bulkheads.counting.bulkhead,
            "public": bulkheads.public.bulkhead,
        }
        self._files: WorkerFiles | None = None
        self._is_leader = False
        self._series = Series()
        self._published: dict[tuple[Counter, tuple[str, ...]], int] = {}
        self._snapshots: dict[RequestKind, HistogramSnapshot] = {}
        self._lock = Lock()
        self._text: bytes | None = None
        self._text_lock = Lock()
        self._stopping = Event()
        self._thread: Thread | None = None

    def open(self, files: WorkerFiles | None = None) -> None:
        """Start the background thread. Call it after the fork. Without files, publish alone."""
        if files is not None:
            self._files = files
            self._series = Series(files)
        # made only here: from Python 3.13 on, a fork ends threads that have not started
        self._thread = Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and publish once more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.publish()

    def text(self) -> bytes:
        """Return the metrics of all processes, at most a second old.

        Collecting them takes tens of milliseconds, so callers share the text until `publish`.
        """
        with self._text_lock:
            if self._text is None:
                self.publish()
                self._text = self._series.text()
            return self._text

    def publish(self) -> None:
        """Publish what this process has counted, and its state."""
        with self._lock:
            self._text = None
            self._publish_requests()
            self._publish_bulkheads()
            self._publish_database()
            self._publish_keys()
            self._publish_changes()

    def _publish_requests(self) -> None:
        outcomes: Counted[Outcome | None] = Counted()
        for kind, snapshot in self._request_durations.snapshots().items():
            route, method, status, outcome = kind
            outcomes[outcome] += sum(snapshot.buckets)
            new = snapshot.since(self._snapshots.get(kind))
            self._snapshots[kind] = snapshot
            self._series.requests.labels(route, method, str(status)).inc(sum(new.buckets))
            self._series.request_seconds.labels(route, method).add(new.buckets, new.seconds)
        for each in OUTCOMES:
            self._advance(self._series.verifications, outcomes[each], each)

    def _publish_bulkheads(self) -> None:
        series = self._series
        for work, bulkhead in self._bulkheads.items():
            series.places.labels(work).set(bulkhead.slots)
            series.places_in_use.labels(work).set(bulkhead.in_use)
            self._advance(series.places_taken, bulkhead.entered, work)
            self._advance(series.places_waited, bulkhead.waited, work)
            self._advance(series.places_refused, bulkhead.refused, work)
        self._advance_each(series.bcrypt_runs, BCRYPT_RUNS, self._credentials.hasher.runs.counts())

    def _publish_database(self) -> None:
        state = self._database.pool_state()
        self._series.pool_size.set(state.size)
        self._series.pool_in_use.set(state.in_use)
        self._advance(self._series.pool_waits, state.waits)
        self._series.database_down.set(self._database.is_down)

    def _publish_keys(self) -> None:
        fetches = self._keys.fetches()
        if fetches is not None:
            self._series.jwks_age.set(fetches.age)
            self._advance(self._series.jwks_fetches, fetches.succeeded, "success")
            self._advance(self._series.jwks_fetches, fetches.failed, "failure")

    def _publish_changes(self) -> None:
        self._advance_each(
            self._series.events, EVENT_NAMES, self._credentials.events_written.counts()
        )

        refusals = self._credentials.writer.refusals_recorded.counts()
        self._advance(self._series.ended_secrets, refusals.get("ended", 0))

    def _advance_each(
        self, counter: Counter, known: Iterable[Label], counts: Mapping[Label, int]
    ) -> None:
        """Advance the counter for each known label, so that each has a series from the start."""
        for label in known:
            self._advance(counter, counts.get(label, 0), label)

    def _advance(self, counter: Counter, total: int, *labels: str) -> None:
        """Raise the counter to the total of this process. Other processes add theirs."""
        published = self._published.get((counter, labels), 0)
        (counter.labels(*labels) if labels else counter).inc(total - published)
        self._published[counter, labels] = total

    def _run(self) -> None:
        count_at = monotonic()
        while not self._stopping.wait(_PUBLISH_SECONDS):
            self.publish()
            if monotonic() >= count_at and self._counts_for_all():
                self._count_in_database()
                count_at = monotonic() + _COUNT_SECONDS

    def _counts_for_all(self) -> bool:
        """Tell whether this process counts for all. Once it does, it does so until it ends."""
        self._is_leader = self._is_leader or self._files is None or self._files.become_leader()
        return self._is_leader

    def _count_in_database(self) -> None:
        try:
            ending = self._credentials.count_expiring_secrets()
            unrestricted = self._credentials.count_unrestricted()
        except (DatabaseUnavailable, DatabaseFault, BulkheadFull):
            _logger.warning(
                "client secrets that expire soon, and credentials without scopes, not counted"
            )
            return
        self._series.set_unrestricted(unrestricted)
        self._series.expiring_secrets.labels("7").set(ending.within_7_days)
        self._series.expiring_secrets.labels("30").set(ending.within_30_days)
