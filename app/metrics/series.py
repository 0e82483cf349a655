"""The metrics that Prometheus sees: their names, labels and help texts.

Names follow https://prometheus.io/docs/practices/naming/. No label is a unit, a client or an actor.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from app.metrics.requests import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from app.metrics.directory import WorkerFiles

# the `_created` series do not exist in multiprocess mode
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client's

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once, not one by one as prometheus-client's."""

    def add(self, buckets: Iterable[int], seconds: float) -> None:
        """Add a number of observations to each bucket, and their sum in seconds."""
        self._sum.inc(seconds)
        for bucket, count in zip(self._buckets, buckets, strict=True):
            if count:
                bucket.inc(count)


class Series:
    """All series of a process; with `files`, of all processes that share their directory."""

    def __init__(self, files: WorkerFiles | None = None) -> None:
        self._files = files
        self._registry = CollectorRegistry()
        if files is not None:
            # prometheus-client has no other way to set the directory
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files.directory)  # noqa: TID251
            values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]  # theirs
                lambda: files.number
            )

        build = self._gauge(
            "build_info", "1, with the version of the service and of Python.", "livemax",
            ("version", "python"),
        )  # fmt: skip
        build.labels(version("leadvibe-credentials"), python_version()).set(1)
        self.requests = self._counter(
            "http_requests", "Requests answered, by the pattern of their path.",
            ("route", "method", "status"),
        )  # fmt: skip
        self.request_seconds = BulkHistogram(
            "leadvibe_http_request_duration_seconds",
            "Time from a request's head to its answer, without the wait for a thread.",
            ("route", "method"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self.verifications = self._counter(
            "verifications", "Verifications, by outcome.", ("outcome",)
        )
        self.ended_secrets = self._counter(
            "ended_secrets_refused", "Refusals recorded of client secrets that somebody has ended."
        )
        self.bcrypt_runs = self._counter(
            "bcrypt_runs", "Runs of bcrypt, to hash a new client secret or to compare.", ("run",)
        )
        self.places = self._gauge(
            "places", "Places for each kind of work, over all processes.", "livesum", ("work",)
        )
        self.places_in_use = self._gauge(
            "places_in_use", "Places that are taken now.", "livesum", ("work",)
        )
        self.places_taken = self._counter(
            "places_taken", "Callers that got a place, at once or after a wait.", ("work",)
        )
        self.places_waited = self._counter(
            "places_waited", "Callers that had to wait for a place.", ("work",)
        )
        self.places_refused = self._counter(
            "places_refused", "Callers that got no place.", ("work",)
        )
        self.pool_size = self._gauge(
            "database_pool_size", "Connections that the pools hold, over all processes.", "livesum"
        )
        self.pool_in_use = self._gauge(
            "database_pool_in_use", "Connections that are lent now.", "livesum"
        )
        self.pool_waits = self._counter(
            "database_pool_waits", "Callers that found no connection ready."
        )
        self.database_down = self._gauge(
            "database_down", "1 if the database is down for at least one process.", "livemax"
        )
        self.jwks_fetches = self._counter(
            "jwks_fetches", "Fetches of the issuer's keys, by result.", ("result",)
        )
        self.jwks_age = self._gauge(
            "jwks_age_seconds",
            "Seconds since the last successful fetch of the keys; the largest over all processes.",
            "livemax",
        )
        self.events = self._counter(
            "credential_events", "Events written to the audit trail through this service.",
            ("event",),
        )  # fmt: skip
        self.expiring_secrets = self._gauge(
            "client_secrets_ending",
            "Client secrets of all units that expire within these days and have no successor.",
            "livemax",
            ("within_days",),
        )
        self._unrestricted: Gauge | None = None

    def set_unrestricted(self, count: int) -> None:
        """Publish how many credentials have no scopes. Until it is known, there is no series."""
        if self._unrestricted is None:
            self._unrestricted = self._gauge(
                "credentials_unrestricted", "Credentials of all units without scopes.", "livemax"
            )
        self._unrestricted.set(count)

    def text(self) -> bytes:
        """Return all series in Prometheus' text format."""
        if self._files is None:
            return generate_latest(self._registry)
        registry, directory = CollectorRegistry(), str(self._files.directory)
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]  # theirs
        return generate_latest(registry)

    def _counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"leadvibe_{name}_total", help_, labels, registry=self._registry)

    def _gauge(
        self,
        name: str,
        help_: str,
        mode: Literal["livesum", "livemax"],
        labels: Sequence[str] = (),
    ) -> Gauge:
        return Gauge(
            f"leadvibe_{name}", help_, labels, multiprocess_mode=mode, registry=self._registry
        )
