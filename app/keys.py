"""The issuer's public keys: where they come from, and which of them may check a token."""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

FETCH_TIMEOUT_SECONDS = 3.0
REFETCH_PAUSE_SECONDS = 30.0
LIFESPAN_SECONDS = 300.0
_MAX_BYTES = 1024 * 1024

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

_logger = logging.getLogger(__name__)


class InvalidKeys(ValueError):
    """What should hold public keys does not."""


class KeysUnavailable(Exception):
    """The JWKS URL cannot be reached, and no key known from before serves."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key for one algorithm. Without a `key_id`, as a PEM file's, any token means it."""

    key_id: str | None
    algorithm: str
    key: PublicKey


class KeySource(Protocol):
    """Where the keys are."""

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key that the header of a token means, or None.

        A token without a `kid` means a key only if it is the only one for its algorithm. Raises
        KeysUnavailable when the key may exist but cannot be had now.
        """


class KeyFile:
    """Keys from a file with a JWKS (RFC 7517) or a PEM public key, read once."""

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self._keys = read_key_file(path, algorithms)

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        return _choose(self._keys, key_id, algorithm)


class KeyUrl:
    """Keys from a JWKS URL.

    They are fetched again after five minutes, or for a `kid` that is not among them, but not within
    30 s of the last attempt. While the URL fails, the keys from before serve. One thread fetches;
    the others go on with the keys at hand, or wait if there are none.
    """

    def __init__(self, url: str, algorithms: Iterable[str]) -> None:
        self._url = url
        self._algorithms = tuple(algorithms)
        self._keys: list[VerificationKey] = []
        self._fetching = threading.Lock()
        self._attempted_at: float | None = None
        self._fetched_at: float | None = None
        self._failing = False

    def find(self, *, key_id: str | None, algorithm: str) -> VerificationKey | None:
        key = _choose(self._keys, key_id, algorithm)
        if key is None or self._is_stale():
            self._refresh(wait=not self._keys)
            key = _choose(self._keys, key_id, algorithm)
        if key is None and self._failing:
            raise KeysUnavailable(self._url)
        return key

    def _is_stale(self) -> bool:
        return self._fetched_at is None or monotonic() - self._fetched_at > LIFESPAN_SECONDS

    def _may_fetch(self) -> bool:
        return (
            self._attempted_at is None or monotonic() - self._attempted_at > REFETCH_PAUSE_SECONDS
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
        self._attempted_at = monotonic()
        self._failing = True
        try:
            self._keys = parse_jwks(_download(self._url), self._algorithms)
        except (OSError, InvalidKeys) as error:
            _logger.warning("JWKS not fetched: %s", error)
        else:
            self._failing = False
            self._fetched_at = monotonic()


def read_key_file(path: Path, algorithms: Iterable[str]) -> list[VerificationKey]:
    """Return the keys in the file that suit one of the algorithms.

    Raises InvalidKeys when there is none, or the file holds a private key; OSError when it cannot
    be read.
    """
    content = path.read_bytes()
    if b"PRIVATE KEY" in content:
        raise InvalidKeys("holds a private key")
    if not content.lstrip().startswith(b"-----BEGIN"):
        return parse_jwks(content, algorithms)
    try:
        public_key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKeys("holds no PEM public key") from None
    keys = []
    if isinstance(public_key, PublicKey):
        keys = _for_each_algorithm(None, public_key, algorithms)
    if not keys:
        raise InvalidKeys("holds a key that suits none of the algorithms")
    return keys


def parse_jwks(content: bytes, algorithms: Iterable[str]) -> list[VerificationKey]:
    """Return the keys of a JWKS document that suit one of the algorithms.

    Keys for another use are passed over. Raises InvalidKeys when none is left.
    """
    try:
        document = json.loads(content)
        entries = [entry for entry in document["keys"] if isinstance(entry, dict)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise InvalidKeys("holds no JWKS") from None
    if any("d" in entry for entry in entries):
        raise InvalidKeys("holds a private key")
    keys = [key for entry in entries for key in _from_jwk(entry, tuple(algorithms))]
    if not keys:
        raise InvalidKeys("holds no key that suits one of the algorithms")
    return keys


def _from_jwk(entry: Mapping[str, Any], algorithms: Iterable[str]) -> list[VerificationKey]:
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return []
        public_key = jwt.PyJWK(dict(entry)).key
        if not isinstance(public_key, PublicKey):
            return []  # a secret of HMAC's
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, AttributeError):
        return []  # not a key that PyJWT can use; it has no one error for that
    intended = [name for name in algorithms if entry.get("alg", name) == name]
    key_id = entry.get("kid")
    return _for_each_algorithm(key_id if isinstance(key_id, str) else None, public_key, intended)


def _for_each_algorithm(
    key_id: str | None, key: PublicKey, algorithms: Iterable[str]
) -> list[VerificationKey]:
    return [VerificationKey(key_id, name, key) for name in algorithms if _suits(key, name)]


def _suits(key: PublicKey, algorithm: str) -> bool:
    """Tell whether the key is of the algorithm's type and curve, and long enough for it."""
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        return implementation.check_key_length(implementation.prepare_key(key)) is None
    except (jwt.InvalidKeyError, TypeError):
        return False


def _choose(
    keys: Iterable[VerificationKey], key_id: str | None, algorithm: str
) -> VerificationKey | None:
    suitable = [key for key in keys if key.algorithm == algorithm]
    if key_id is not None:
        named = [key for key in suitable if key.key_id == key_id]
        suitable = named or [key for key in suitable if key.key_id is None]
    different = [key for number, key in enumerate(suitable) if key not in suitable[:number]]
    return different[0] if len(different) == 1 else None


class _NoRedirect(HTTPRedirectHandler):
    """The operator named the address of the keys; nobody else may."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirect)


def _download(url: str) -> bytes:
    """Return the body, of at most 1 MiB, or raise OSError within three seconds.

    In a thread that is left behind when the time is over: a timeout of urllib's bounds each wait
    for bytes and not their sum, and a server may drip them.
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
