"""Plain counters, kept where things happen. `app/metrics` publishes them (ADR 18)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

Key = TypeVar("Key", bound="Hashable")


class Counter(Generic[Key]):
    """Counts by key, from any thread. Keys must come from a small set, because all are kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[Key, int] = {}

    def add(self, key: Key, count: int = 1) -> None:
        """Count one or more events."""
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + count

    def counts(self) -> Mapping[Key, int]:
        """Return a copy of all counts since the start."""
        with self._lock:
            return self._counts.copy()


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """How many durations fell into each bucket, and their sum in seconds.

    There is one bucket more than bounds, for the durations beyond the last bound.
    """

    buckets: tuple[int, ...]
    seconds: float

    def since(self, earlier: HistogramSnapshot | None) -> HistogramSnapshot:
        """Return what was added since the earlier one, which may be None."""
        if earlier is None:
            return self
        pairs = zip(self.buckets, earlier.buckets, strict=True)
        return HistogramSnapshot(
            tuple(now - then for now, then in pairs), self.seconds - earlier.seconds
        )


class Histogram(Generic[Key]):
    """Counts durations by key and bucket, from any thread. Keys as in a `Counter`.

    `bounds` are the buckets' upper bounds in seconds, in ascending order.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._lock = Lock()
        self._cells: dict[Key, list[float]] = {}  # the buckets, and the seconds at the end

    def add(self, key: Key, seconds: float) -> None:
        """Count a duration."""
        bucket = bisect_left(self._bounds, seconds)  # bounds are inclusive
        with self._lock:
            try:
                cell = self._cells[key]
            except KeyError:
                cell = self._cells[key] = [0] * (len(self._bounds) + 2)
            cell[bucket] += 1
            cell[-1] += seconds

    def snapshots(self) -> Mapping[Key, HistogramSnapshot]:
        """Return a snapshot of each key's durations since the start."""
        with self._lock:
            return {
                key: HistogramSnapshot(tuple(map(int, cell[:-1])), cell[-1])
                for key, cell in self._cells.items()
            }
