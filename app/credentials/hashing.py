"""Hash client secrets with bcrypt, and digest them with HMAC-SHA-256 (ADR 1 and 2)."""

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import get_native_id
from typing import Literal, TypeVar, get_args

import bcrypt

from app.bulkheads import Bulkheads
from app.counters import Counter
from app.credentials.generator import hint_of
from app.credentials.model import FoundSecret, HashedSecret, StoredSecret

_KEY_ID_LENGTH = 8

# At a much lower priority, the thread could be descheduled while it holds the GIL.
_BCRYPT_NICENESS = 5

BcryptRun = Literal["hash", "compare"]
BCRYPT_RUNS: tuple[BcryptRun, ...] = get_args(BcryptRun)

T = TypeVar("T")


class Hasher:
    """Makes the hash and the digest of a client secret, and compares with stored ones.

    `rounds` is bcrypt's cost, the base-2 logarithm of its iterations. The first of `digest_keys`
    makes digests; the others are previous keys, with which stored digests are still compared.
    """

    def __init__(self, rounds: int, digest_keys: Sequence[bytes], bulkheads: Bulkheads) -> None:
        self._rounds = rounds
        self.runs: Counter[BcryptRun] = Counter()
        self._macs = {_key_id(key): _mac(key) for key in digest_keys}
        self._key_id = _key_id(digest_keys[0])
        self._bulkheads = bulkheads
        # bcrypt keeps a core busy for long, a verification only for a moment; so bcrypt yields
        self._executor = ThreadPoolExecutor(1, "bcrypt", initializer=_lower_priority)

    def hash(self, client_secret: str) -> HashedSecret:
        """Return bcrypt's hash, the digest and the hint. Takes tens of milliseconds.

        Raises BulkheadFull if bcrypt is too busy.
        """
        salt = bcrypt.gensalt(self._rounds)
        secret_hash = self._run("hash", bcrypt.hashpw, client_secret.encode(), salt)
        return HashedSecret(
            secret_hash.decode(), self.digest(client_secret), hint_of(client_secret)
        )

    def digest(self, client_secret: str) -> bytes:
        """Return the digest key's identifier (8 bytes), then the HMAC-SHA-256 (32 bytes)."""
        return self._key_id + _digest(self._macs[self._key_id], client_secret)

    def digests(self, client_secret: str) -> Mapping[bytes, bytes]:
        """Return the digest under each key, by the key's identifier."""
        return {key_id: key_id + _digest(mac, client_secret) for key_id, mac in self._macs.items()}

    @property
    def key_ids(self) -> list[bytes]:
        """The identifiers of all keys, with which digests begin."""
        return list(self._macs)

    def is_current(self, stored: StoredSecret) -> bool:
        """Tell whether the stored digest was made with the current key."""
        return stored.digest is not None and stored.digest.startswith(self._key_id)

    def matches_hash(self, client_secret: str, stored: StoredSecret | FoundSecret) -> bool:
        """Compare by bcrypt. Takes tens of milliseconds; raises BulkheadFull if it is too busy."""
        stored_hash = stored.secret_hash.encode()
        return self._run("compare", bcrypt.checkpw, client_secret.encode(), stored_hash)

    def _run(self, run: BcryptRun, function: Callable[..., T], *arguments: bytes) -> T:
        """Run one of bcrypt's functions, one at a time in this process. Raises BulkheadFull."""
        with self._bulkheads.hashing:
            self.runs.add(run)
            return self._executor.submit(function, *arguments).result()


def matches_digest(digests: Mapping[bytes, bytes], stored: StoredSecret) -> bool | None:
    """Compare digests in constant time. None if there is no stored one by any of our keys."""
    if stored.digest is None:
        return None
    digest = digests.get(stored.digest[:_KEY_ID_LENGTH])
    return None if digest is None else hmac.compare_digest(digest, stored.digest)


def _lower_priority() -> None:
    """Let other threads go first, where the system has priorities for threads (Linux)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, get_native_id(), _BCRYPT_NICENESS)


def _key_id(digest_key: bytes) -> bytes:
    return _digest(_mac(digest_key), "key id")[:_KEY_ID_LENGTH]


def _mac(key: bytes) -> hmac.HMAC:
    """Return HMAC-SHA-256 with the key, to be copied: setting it up takes as long as using it."""
    return hmac.new(key, digestmod="sha256")


def _digest(mac: hmac.HMAC, message: str) -> bytes:
    copy = mac.copy()
    copy.update(message.encode())
    return copy.digest()
