"""The sources of the issuer's public keys: a file or a JWKS URL."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

from app.bulkheads import Bulkhead, BulkheadFull
from app.identity.keys import (
    InvalidKeys,
    VerificationKey,
    choose_key,
    parse_jwks,
    read_key_file,
)

FETCH_SECONDS = 3.0
WAIT_SECONDS = 0.75  # for a fetch, if no cached key matches the caller's token
REFETCH_PAUSE_SECONDS = 30.0
LIFESPAN_SECONDS = 300.0
_MAX_BYTES = 1024 * 1024

_logger = logging.getLogger(__name__)


class KeysUnavailable(Exception):
    """The JWKS URL cannot be reached, and no cached key matches the token."""


@dataclass(frozen=True, slots=True)
class Fetches:
    """How many fetches succeeded and failed so far.

    `age` is in seconds since the last success, or since the start if there was none.
    """

    succeeded: int
    failed: int
    age: float


class KeySource(Protocol):
    """Something that finds the key for a token."""

    def open(self) -> None:
        """Start keeping the keys up to date. Call it after the fork."""

    def close(self) -> None:
        """Stop keeping the keys up to date."""

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the only key that the token's header can refer to, or None (see `choose_key`).

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

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        return choose_key(self._keys, key_id, algorithm)

    def fetches(self) -> None:
        """Return None: a file is not fetched."""


class KeyUrl:
    """Keys from a JWKS URL, which a background thread fetches.

    It fetches them at the start, every five minutes, and for an unknown `kid`, but not within 30 s
    of the last attempt. While fetches fail, the cached keys stay in use. A caller waits only if no
    cached key matches, and only with a slot of `waiting`. `clock` returns seconds.
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
        self._attempts = 0
        self._successes = self._failures = 0
        self._made_at = clock()
        self._attempted_at: float | None = None
        self._fetched_at: float | None = None
        self._is_wanted = True
        self._is_closed = False

    def open(self) -> None:
        Thread(target=self._keep_fresh, daemon=True).start()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        key = choose_key(self._keys, key_id, algorithm)
        if key is None and self._may_fetch():
            self._await_fetch()
            key = choose_key(self._keys, key_id, algorithm)
        if key is None and self._is_failing():
            raise KeysUnavailable(self._url)
        return key

    def fetches(self) -> Fetches:
        since = self._made_at if self._fetched_at is None else self._fetched_at
        return Fetches(self._successes, self._failures, self._clock() - since)

    def _await_fetch(self) -> None:
        """Ask for a fetch, and wait a moment for it to end. Raises KeysUnavailable if none may."""
        try:
            with self._waiting, self._changed:
                if not self._may_fetch():
                    return  # another fetch has ended in the meantime
                attempts = self._attempts
                self._is_wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._attempts > attempts, WAIT_SECONDS)
        except BulkheadFull:
            raise KeysUnavailable(self._url) from None

    def _keep_fresh(self) -> None:
        while not self._is_closed:
            if self._is_due():
                asyncio.run(self._fetch())  # DNS may take longer, but no caller waits for it
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._is_due(), timeout=1.0)

    async def _fetch(self) -> None:
        self._attempted_at = self._clock()
        try:
            self._keys = parse_jwks(await _download(self._url), self._algorithms)
            self._fetched_at = self._clock()
            self._successes += 1
        except Exception as error:  # noqa: BLE001  after any error, the next attempt may succeed
            self._failures += 1
            _logger.warning("JWKS not fetched: %s %s", type(error).__name__, error)
        with self._changed:
            self._attempts += 1
            self._is_wanted = False
            self._changed.notify_all()

    def _is_due(self) -> bool:
        is_stale = self._fetched_at is None or self._clock() - self._fetched_at > LIFESPAN_SECONDS
        return (self._is_wanted or is_stale) and self._may_attempt()

    def _may_attempt(self) -> bool:
        return (
            self._attempted_at is None or self._clock() - self._attempted_at > REFETCH_PAUSE_SECONDS
        )

    def _may_fetch(self) -> bool:
        """Tell whether a fetch is under way or may start."""
        return self._is_wanted or self._may_attempt()

    def _is_failing(self) -> bool:
        """Tell whether the last attempt failed, or none has ended yet."""
        if self._attempted_at is None or self._fetched_at is None:
            return True
        return self._fetched_at < self._attempted_at


async def _download(url: str) -> bytes:
    """Return the body, of at most 1 MiB, within three seconds in all. Redirects are not followed.

    asyncio's timeout bounds the whole fetch. The HTTP client's timeout bounds only each wait for
    bytes, so a server that sends them slowly could hold it up for ever.
    """
    import httpx  # noqa: PLC0415  see `KeyUrl`

    async with (
        asyncio.timeout(FETCH_SECONDS),
        httpx.AsyncClient(verify=ssl.create_default_context(), timeout=FETCH_SECONDS) as client,
        client.stream("GET", url, headers={"Accept": "application/json"}) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise OSError(f"HTTP {response.status_code}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise OSError("the answer is too large")
        return body
