"""The sources of the issuer's public keys: a file or a JWKS URL."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

from app.bulkheads import Bulkhead, BulkheadFull
from app.identity.keys import (
    InvalidKeys,
    VerificationKey,
    choose_keys,
    parse_jwks,
    read_key_file,
)

FETCH_SECONDS = 3.0
WAIT_SECONDS = 0.75  # for a fetch, if no cached key matches the caller's token
REFETCH_PAUSE_SECONDS = 30.0
# So many fetches need no pause between them: somebody may send invented key IDs while the issuer
# changes its key. On average, there is still only one fetch in each pause.
EARLY_FETCHES = 5
LIFESPAN_SECONDS = 300.0
_MAX_BYTES = 1024 * 1024
# The first is RFC 7517's own type, without which some providers answer 406. Most send plain JSON.
_ACCEPT = "application/jwk-set+json, application/json, */*;q=0.5"

_logger = logging.getLogger(__name__)


class KeysUnavailable(Exception):
    """No cached key matches the token, and the JWKS URL cannot be asked for a newer one now.

    A later attempt, in `retry_after` seconds, may succeed.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("no cached key matches, and the JWKS URL cannot be asked now")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Fetches:
    """How many fetches succeeded and failed so far.

    `age` is in seconds since the last success, and infinite if there was none.
    """

    succeeded: int
    failed: int
    age: float


class KeySource(Protocol):
    """Something that finds the keys for a token."""

    def open(self) -> None:
        """Start keeping the keys up to date. Call it after the fork."""

    def close(self) -> None:
        """Stop keeping the keys up to date."""

    def find(self, *, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        """Return the keys that the token's header can refer to (see `choose_keys`).

        Raises KeysUnavailable if the key may exist but cannot be fetched now.
        """

    def fetches(self) -> Fetches | None:
        """Return the counts of fetches, or None if the keys come from a file."""


class KeyFile:
    """Keys from a file with a JWKS (RFC 7517) or a PEM public key."""

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self._path = path
        self._algorithms = tuple(algorithms)
        self._keys = read_key_file(path, self._algorithms)

    def open(self) -> None:
        """Read the file again, so that new workers (after SIGHUP) use a new key.

        An unreadable or invalid file changes nothing.
        """
        try:
            self._keys = read_key_file(self._path, self._algorithms)
        except (OSError, InvalidKeys) as error:
            _logger.warning("the key file is invalid, so its previous keys stay in use: %s", error)

    def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    def find(self, *, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        return choose_keys(self._keys, key_id, algorithm)

    def fetches(self) -> None:
        """Return None: a file is not fetched."""


class KeyUrl:
    """Keys from a JWKS URL, which a background thread fetches.

    It fetches them at the start, every five minutes, and for an unknown `kid`: at most five times
    in 150 s, and not within 30 s of a failure. The issuer has no such key only if a fetch does not
    find it that begins after the caller has asked; until then, the key may be new. While fetches
    fail, the cached keys stay in use. A caller waits only if no cached key matches, and only with a
    slot of `waiting`. `clock` returns seconds.
    """

    def __init__(
        self,
        url: str,
        algorithms: Iterable[str],
        waiting: Bulkhead,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        # Here, so that workers share its memory: only a URL needs it, and then before the fork.
        import httpx  # noqa: F401, PLC0415

        self._url = url
        self._clock = clock
        self._algorithms = tuple(algorithms)
        self._waiting = waiting
        self._keys: list[VerificationKey] = []
        self._changed = Condition()
        self._attempts: deque[float] = deque(maxlen=EARLY_FETCHES)  # when the latest began
        self._begun = self._successes = self._failures = 0
        self._has_failed = False  # the last attempt
        self._fetched_at: float | None = None
        self._is_wanted = True
        self._is_closed = False

    def open(self) -> None:
        Thread(target=self._keep_fresh, daemon=True).start()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def find(self, *, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        def find() -> list[VerificationKey]:
            return choose_keys(self._keys, key_id, algorithm)

        keys = find()
        if not keys:
            is_up_to_date = self._await_fetch(find)
            keys = find()
            if not (keys or is_up_to_date):
                raise KeysUnavailable(self._seconds_until_attempt())
        return keys

    def fetches(self) -> Fetches:
        age = inf if self._fetched_at is None else self._clock() - self._fetched_at
        return Fetches(self._successes, self._failures, age)

    def _await_fetch(self, is_enough: Callable[[], object]) -> bool:
        """Wait a moment for a fetch that begins from now on, or until something else is enough.

        Return whether such a fetch has succeeded.
        """
        until = monotonic() + WAIT_SECONDS
        try:
            with self._waiting, self._changed:
                begun = self._begun
                self._changed.wait_for(lambda: self._ended == self._begun, until - monotonic())
                if not is_enough() and self._may_attempt():
                    self._is_wanted = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._ended > begun, until - monotonic())
                return self._ended > begun and not self._has_failed
        except BulkheadFull:
            return False

    def _keep_fresh(self) -> None:
        while not self._is_closed:
            if self._is_due():
                asyncio.run(self._fetch())  # DNS may take longer, but no caller waits for it
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._is_due(), timeout=1.0)

    async def _fetch(self) -> None:
        with self._changed:
            self._attempts.append(self._clock())
            self._begun += 1
            self._is_wanted = False
        failure: Exception | None = None
        try:
            keys = parse_jwks(await _download(self._url), self._algorithms)
        except Exception as error:  # noqa: BLE001  after any error, the next attempt may succeed
            failure = error
            _logger.warning("JWKS not fetched: %s %s", type(error).__name__, error)
        with self._changed:
            if failure is None:
                self._keys = keys
                self._fetched_at = self._clock()
                self._successes += 1
            else:
                self._failures += 1
            has_recovered = self._has_failed and failure is None
            self._has_failed = failure is not None
            self._changed.notify_all()
        if has_recovered:
            _logger.info("JWKS fetched again")

    @property
    def _ended(self) -> int:
        """How many attempts have ended."""
        return self._successes + self._failures

    def _is_due(self) -> bool:
        is_stale = self._fetched_at is None or self._clock() - self._fetched_at > LIFESPAN_SECONDS
        return (self._is_wanted or self._has_failed or is_stale) and self._may_attempt()

    def _may_attempt(self) -> bool:
        if not self._attempts or self._clock() - self._attempts[-1] > REFETCH_PAUSE_SECONDS:
            return True
        if self._has_failed:
            return False
        window = EARLY_FETCHES * REFETCH_PAUSE_SECONDS
        return len(self._attempts) < EARLY_FETCHES or self._clock() - self._attempts[0] > window

    def _seconds_until_attempt(self) -> int:
        """Return when to ask again, in seconds."""
        if self._may_attempt():
            return 1
        return 1 + int(self._attempts[-1] + REFETCH_PAUSE_SECONDS - self._clock())


async def _download(url: str) -> bytes:
    """Return the body, of at most 1 MiB, within three seconds in all. Redirects are not followed.

    asyncio's timeout bounds the whole fetch. The HTTP client's timeout bounds only each wait for
    bytes, so a server that sends them slowly could hold it up for ever.
    """
    import httpx  # noqa: PLC0415  see `KeyUrl`

    async with (
        asyncio.timeout(FETCH_SECONDS),
        httpx.AsyncClient(verify=ssl.create_default_context(), timeout=FETCH_SECONDS) as client,
        client.stream("GET", url, headers={"Accept": _ACCEPT}) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise OSError(f"HTTP {response.status_code}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise OSError("the answer is too large")
        return body
