"""Client secrets as hashes and digests (ADR 1 and 2)."""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

import bcrypt

from app.credentials.errors import HashingBusy
from app.credentials.generator import hint_of
from app.credentials.model import HashedSecret, StoredSecret

# bcrypt keeps a core busy, so more at once would only slow each other down.
_RUNNING = 2
_WAIT_SECONDS = 1.0

_MAX_LEARNED = 10_000

_KEY_ID_LENGTH = 8


class Hasher:
    """Turn client secrets into what the database may keep of them (ADR 1 and 2), and compare.

    `rounds` is bcrypt's cost, the base-2 logarithm of its iterations. `digest_key` keys the HMAC.
    Of `threads` that may ask for a comparison by bcrypt, one always stays free for other work.
    """

    def __init__(self, rounds: int, digest_key: bytes, *, threads: int = 1) -> None:
        self._rounds = rounds
        self._digest_key = digest_key
        self._key_id = self._hmac("key id")[:_KEY_ID_LENGTH]
        self._places = max(1, threads - 1)
        self._running = BoundedSemaphore(_RUNNING)
        self._lock = Lock()
        self._clients: set[str] = set()  # whose secrets are being compared by bcrypt
        self._learned: dict[str, bytes] = {}

    def hash(self, client_secret: str) -> HashedSecret:
        """Return bcrypt's hash, the digest and the hint. Takes tens of milliseconds."""
        secret_hash = bcrypt.hashpw(client_secret.encode(), bcrypt.gensalt(self._rounds))
        return HashedSecret(
            secret_hash.decode(), self.digest(client_secret), hint_of(client_secret)
        )

    def digest(self, client_secret: str) -> bytes:
        """Return the digest key's identifier (8 bytes), then the HMAC-SHA-256 (32 bytes)."""
        return self._key_id + self._hmac(client_secret)

    def own_digest(self, stored: StoredSecret) -> bytes | None:
        """Return the secret's digest by this key, stored or learned: it decides without bcrypt."""
        if stored.digest is not None and stored.digest.startswith(self._key_id):
            return stored.digest
        return self._learned.get(stored.secret_hash)

    def learn(self, stored: StoredSecret, digest: bytes) -> None:
        """Remember the digest of a secret that bcrypt found good.

        While instances with two keys run side by side, each finds the other's digest in the row.
        This is no verdict: the row is read for each verification all the same.
        """
        if len(self._learned) >= _MAX_LEARNED:
            self._learned.clear()
        self._learned[stored.secret_hash] = digest

    def digests_match(self, digest: bytes, other: bytes) -> bool:
        """Compare two digests in constant time."""
        return hmac.compare_digest(digest, other)

    def matches_hash(self, client_secret: str, stored: StoredSecret) -> bool:
        """Compare by bcrypt. Takes tens of milliseconds; raises HashingBusy when too many do.

        One client has one comparison at a time, so that a flood on its ID leaves places for others.
        """
        with self._slot(stored.credential.client_id):
            return bcrypt.checkpw(client_secret.encode(), stored.secret_hash.encode())

    @contextmanager
    def _slot(self, client_id: str) -> Iterator[None]:
        with self._lock:
            if client_id in self._clients or len(self._clients) >= self._places:
                raise HashingBusy
            self._clients.add(client_id)
        try:
            if not self._running.acquire(timeout=_WAIT_SECONDS):
                raise HashingBusy
            try:
                yield
            finally:
                self._running.release()
        finally:
            with self._lock:
                self._clients.remove(client_id)

    def _hmac(self, message: str) -> bytes:
        return hmac.digest(self._digest_key, message.encode(), hashlib.sha256)
