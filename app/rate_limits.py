"""Limit how often something may happen in a minute, with the `limits` library (ADR 7)."""

import hashlib
import logging
import math
from collections.abc import Callable
from functools import cached_property
from time import monotonic, time

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

_STORAGE_TIMEOUT_SECONDS = 0.2
_PAUSE_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class RateLimit:
    """Allows `per_minute` events of each key in every window of a minute; 0 disables the limit.

    While the storage is unreachable, nothing is limited: the limit saves work, but access does not
    depend on it. With `counters`, all keys share that many counters, so that a flood of made-up
    keys does not fill the memory.
    """

    def __init__(
        self, name: str, per_minute: int, storage_url: str, *, counters: int | None = None
    ) -> None:
        self._name = name
        self._item = RateLimitItemPerMinute(max(1, per_minute), namespace="leadvibe-credentials")
        self._is_disabled = per_minute == 0
        self._storage_url = storage_url
        self._counters = counters
        self._unreachable_until = 0.0

    @property
    def is_remote(self) -> bool:
        """Whether counting waits for a storage outside this process."""
        return not (self._is_disabled or self._storage_url.startswith("memory:"))

    def count(self, *key: str) -> int | None:
        """Count an event. Return None, or beyond the limit the seconds until the window ends."""
        return self._ask(lambda limiter: limiter.hit(self._item, *self._identifiers(key)), key)

    def check(self, *key: str) -> int | None:
        """Return what `count` would return for the next event, without counting it."""
        return self._ask(lambda limiter: limiter.test(self._item, *self._identifiers(key)), key)

    def _ask(
        self, is_within_limit: Callable[[FixedWindowRateLimiter], bool], key: tuple[str, ...]
    ) -> int | None:
        if self._is_disabled or monotonic() < self._unreachable_until:
            return None
        try:
            if is_within_limit(self._limiter):
                return None
            window = self._limiter.get_window_stats(self._item, *self._identifiers(key))
        except StorageError:
            _logger.warning("not being counted: the rate-limit storage is unreachable")
            self._unreachable_until = monotonic() + _PAUSE_SECONDS  # else each caller would wait
            return None
        return max(1, math.ceil(window.reset_time - time()))

    def _identifiers(self, key: tuple[str, ...]) -> tuple[str, str]:
        digest = hashlib.blake2b("\n".join(key).encode(), digest_size=16).digest()
        number = int.from_bytes(digest)
        return self._name, str(number if self._counters is None else number % self._counters)

    @cached_property
    def _limiter(self) -> FixedWindowRateLimiter:
        """Made on first use: the storage's thread or connection must not cross the fork."""
        storage = storage_from_string(
            self._storage_url,
            wrap_exceptions=True,
            socket_timeout=_STORAGE_TIMEOUT_SECONDS,
            socket_connect_timeout=_STORAGE_TIMEOUT_SECONDS,
        )
        return FixedWindowRateLimiter(storage)


UNLIMITED = RateLimit("unlimited", 0, "memory://")
