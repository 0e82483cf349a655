import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

import bcrypt

from app.credentials.errors import HashingBusy
from app.credentials.model import HashedSecret, StoredSecret

# bcrypt keeps a core busy, so more at once would only slow each other down.
_RUNNING = 2
_WAIT_SECONDS = 1.0

_KEY_ID_LENGTH = 8
_HINT_LENGTH = 4


class Hasher:
    """Turn client secrets into what the database may keep of them (ADR 1 and 2), and compare.

    `rounds` is bcrypt's cost, the base-2 logarithm of its iterations. `digest_key` keys the HMAC.
    Of `threads` that may ask for a comparison by bcrypt, one always stays free for other work.
    """

    def __init__(self, rounds: int, digest_key: bytes, *, threads: int = 1) -> None:
        self._rounds = rounds
        self._digest_key = digest_key
        self._key_id = self._hmac("key id")[:_KEY_ID_LENGTH]
        self._places = BoundedSemaphore(max(1, threads - 1))
        self._running = BoundedSemaphore(_RUNNING)

    def hash(self, client_secret: str) -> HashedSecret:
        """Return bcrypt's hash, the digest and the hint. Takes tens of milliseconds."""
        secret_hash = bcrypt.hashpw(client_secret.encode(), bcrypt.gensalt(self._rounds))
        return HashedSecret(
            secret_hash.decode(), self.digest(client_secret), client_secret[-_HINT_LENGTH:]
        )

    def digest(self, client_secret: str) -> bytes:
        """Return the digest key's identifier (8 bytes), then the HMAC-SHA-256 (32 bytes)."""
        return self._key_id + self._hmac(client_secret)

    def has_own_digest(self, stored: StoredSecret) -> bool:
        """Tell whether the digest was made by this key, so that it decides without bcrypt."""
        return stored.digest is not None and stored.digest.startswith(self._key_id)

    def matches_digest(self, digest: bytes, stored: StoredSecret) -> bool:
        """Compare in constant time with what `digest` made of a client secret."""
        return stored.digest is not None and hmac.compare_digest(digest, stored.digest)

    def matches_hash(self, client_secret: str, stored: StoredSecret) -> bool:
        """Compare by bcrypt. Takes tens of milliseconds; raises HashingBusy when too many do."""
        with self._slot():
            return bcrypt.checkpw(client_secret.encode(), stored.secret_hash.encode())

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise HashingBusy
        try:
            if not self._running.acquire(timeout=_WAIT_SECONDS):
                raise HashingBusy
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._places.release()

    def _hmac(self, message: str) -> bytes:
        return hmac.digest(self._digest_key, message.encode(), hashlib.sha256)
