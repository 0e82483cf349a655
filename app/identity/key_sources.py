"""Where the issuer's public keys come from: a file or a JWKS URL."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from app.identity.keys import (
    InvalidKeys,
    VerificationKey,
    choose_key,
    parse_jwks,
    read_key_file,
)

FETCH_TIMEOUT_SECONDS = 3.0
REFETCH_PAUSE_SECONDS = 30.0
LIFESPAN_SECONDS = 300.0
_MAX_BYTES = 1024 * 1024

_logger = logging.getLogger(__name__)


class KeysUnavailable(Exception):
    """The JWKS URL cannot be reached, and no cached key matches the token."""


class KeySource(Protocol):
    """A place that keys come from."""

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key that a token's header means, or None (see `choose_key`).

        Raises KeysUnavailable if the key may exist but cannot be fetched now.
        """


class KeyFile:
    """Keys from a file with a JWKS (RFC 7517) or a PEM public key, read once."""

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self._keys = read_key_file(path, algorithms)

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        return choose_key(self._keys, key_id, algorithm)


class KeyUrl:
    """Keys from a JWKS URL.

    They are fetched again after five minutes, or for an unknown `kid`, but not within 30 s of the
    last attempt. While the URL fails, the cached keys stay in use. One thread fetches; the others
    use the cached keys, or wait if there are none. `clock` returns seconds.
    """

    def __init__(
        self, url: str, algorithms: Iterable[str], *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._url = url
        self._clock = clock
        self._algorithms = tuple(algorithms)
        self._keys: list[VerificationKey] = []
        self._fetching = threading.Lock()
        self._attempted_at: float | None = None
        self._fetched_at: float | None = None
        self._failing = False

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        key = choose_key(self._keys, key_id, algorithm)
        if key is None or self._is_stale():
            self._refresh(wait=not self._keys)
            key = choose_key(self._keys, key_id, algorithm)
        if key is None and self._failing:
            raise KeysUnavailable(self._url)
        return key

    def _is_stale(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > LIFESPAN_SECONDS

    def _may_fetch(self) -> bool:
        return (
            self._attempted_at is None or self._clock() - self._attempted_at > REFETCH_PAUSE_SECONDS
        )

    def _refresh(self, *, wait: bool) -> None:
        if not self._may_fetch() and not self._fetching.locked():
            return
        if not self._fetching.acquire(timeout=FETCH_TIMEOUT_SECONDS if wait else 0):
            return
        try:
            if self._may_fetch():  # nobody did while this thread waited
                self._fetch()
        finally:
            self._fetching.release()

    def _fetch(self) -> None:
        self._attempted_at = self._clock()
        self._failing = True
        try:
            self._keys = parse_jwks(_download(self._url), self._algorithms)
        except (OSError, InvalidKeys) as error:
            _logger.warning("JWKS not fetched: %s", error)
        else:
            self._failing = False
            self._fetched_at = self._clock()


class _NoRedirect(HTTPRedirectHandler):
    """Only the operator chooses where the keys come from."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirect)


def _download(url: str) -> bytes:
    """Return the body, of at most 1 MiB, or raise OSError within three seconds.

    The thread that reads it is abandoned when the time is up: urllib's timeout bounds each wait for
    bytes and not their sum, and a server may drip them.
    """
    body: Future[bytes] = Future()

    def download() -> None:
        try:
            request = Request(url, headers={"Accept": "application/json"})  # noqa: S310  http or https by app/settings.py
            with _OPENER.open(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
                body.set_result(response.read(_MAX_BYTES))
        except HTTPError as error:
            error.close()
            body.set_exception(OSError(f"HTTP {error.code}"))
        except (OSError, ValueError, HTTPException) as error:
            body.set_exception(OSError(type(error).__name__))

    threading.Thread(target=download, daemon=True).start()
    return body.result(FETCH_TIMEOUT_SECONDS)
