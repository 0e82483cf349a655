"""The limit on failed verifications. Valid pairs are never counted and never limited."""

import hashlib
import logging
import math
from functools import cached_property
from time import time

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

_STORAGE_TIMEOUT_SECONDS = 0.2

# A flood of made-up client IDs must not fill the memory, so they share this many counters. A client
# that fails and shares its counter with a flood gets 429 instead of 401: refused either way.
_COUNTERS = 4096

_logger = logging.getLogger(__name__)


class FailureLimit:
    """Counts failed verifications by client address and client ID, in windows of a minute.

    More than `per_minute` failures are answered 429 (RFC 6585); 0 disables the limit. While the
    storage is unreachable nothing is counted: the limit saves work, and 256 random bits are what
    keeps a guesser out.
    """

    def __init__(self, per_minute: int, storage_url: str) -> None:
        self._per_minute = per_minute
        self._storage_url = storage_url

    def count(self, address: str, client_id: str) -> int | None:
        """Count a failure. Return None, or beyond the limit the seconds until the window ends."""
        if self._per_minute == 0:
            return None
        item = RateLimitItemPerMinute(self._per_minute, namespace="leadvibe-credentials")
        counter = _counter(address, client_id)
        try:
            if self._limiter.hit(item, "refused", counter):
                return None
            reset_at = self._limiter.get_window_stats(item, "refused", counter).reset_time
        except StorageError:
            _logger.warning("failures are not being counted: rate-limit storage is unreachable")
            return None
        return max(1, math.ceil(reset_at - time()))

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


def _counter(address: str, client_id: str) -> str:
    digest = hashlib.blake2b(f"{address}\n{client_id}".encode(), digest_size=4).digest()
    return str(int.from_bytes(digest) % _COUNTERS)
