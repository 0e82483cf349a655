"""Limit how often something may happen in a minute (ADR 7 and 29)."""

from __future__ import annotations

import math
from collections import OrderedDict
from threading import Lock
from time import monotonic
from typing import Protocol

WINDOW_SECONDS = 60
_MEMORY_COUNTERS = 16_384  # some 8 MB

Key = tuple[str, ...]


class Counters(Protocol):
    """Counters by key. Each one's minute begins with its first event."""

    is_remote: bool  # whether counting waits for something outside this process

    def open(self) -> None:
        """Get ready to count. Call it after the fork."""

    def close(self) -> None:
        """Stop counting."""

    def add(self, key: Key, events: int, *, limit: int) -> float | None:
        """Count that many events, which may be none.

        If the minute had `limit` events before, return the seconds until it ends; otherwise None.
        """


class RateLimit:
    """Allows `per_minute` events of each key in a minute; 0 disables the limit.

    What cannot be counted is not limited: the limit saves work, but access does not depend on it.
    """

    def __init__(self, name: str, per_minute: int, counters: Counters) -> None:
        self._name = name
        self._per_minute = per_minute
        self._counters = counters

    @property
    def is_remote(self) -> bool:
        """Whether counting waits for a storage outside this process."""
        return self._per_minute > 0 and self._counters.is_remote

    def count(self, *key: str) -> int | None:
        """Count an event. Return None, or beyond the limit the seconds until the minute ends."""
        return self._add(key, 1)

    def check(self, *key: str) -> int | None:
        """Return what `count` would return for the next event, without counting it."""
        return self._add(key, 0)

    def _add(self, key: Key, events: int) -> int | None:
        if self._per_minute == 0:
            return None
        seconds = self._counters.add((self._name, *key), events, limit=self._per_minute)
        return None if seconds is None else min(max(1, math.ceil(seconds)), WINDOW_SECONDS)


class MemoryCounters:
    """Counters of this process.

    A flood of made-up keys cannot fill the memory. Instead, the counters that have been idle for
    longest begin again.
    """

    is_remote = False

    def __init__(self) -> None:
        # the events and the end of the minute, in the order of the latest event
        self._counters: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._lock = Lock()

    def open(self) -> None:
        """Do nothing: there is nothing to open."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def add(self, key: Key, events: int, *, limit: int) -> float | None:
        now = monotonic()
        with self._lock:
            count, ends_at = self._counters.get(key, (0, 0.0))
            if now >= ends_at:
                count, ends_at = 0, now + WINDOW_SECONDS
            if events:
                self._counters[key] = count + events, ends_at
                self._counters.move_to_end(key)
                if len(self._counters) > _MEMORY_COUNTERS:
                    self._counters.popitem(last=False)
        return ends_at - now if count >= limit else None


UNLIMITED = RateLimit("unlimited", 0, MemoryCounters())
