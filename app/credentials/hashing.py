import hashlib
import hmac
from dataclasses import dataclass, field

import bcrypt

from app.credentials.model import HashedSecret

_KEY_ID_LENGTH = 8
_HINT_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Hasher:
    """Turn client secrets into what the database may keep of them (ADR 1 and 2).

    `rounds` is bcrypt's cost, the base-2 logarithm of its iterations. `digest_key` keys the HMAC.
    """

    rounds: int
    digest_key: bytes = field(repr=False)

    def hash(self, client_secret: str) -> HashedSecret:
        """Return bcrypt's hash, the digest and the hint. Takes tens of milliseconds."""
        secret_hash = bcrypt.hashpw(client_secret.encode(), bcrypt.gensalt(self.rounds))
        return HashedSecret(
            secret_hash.decode(), self.digest(client_secret), client_secret[-_HINT_LENGTH:]
        )

    def digest(self, client_secret: str) -> bytes:
        """Return the digest key's identifier (8 bytes), then the HMAC-SHA-256 (32 bytes)."""
        key_id = self._hmac(b"key id")[:_KEY_ID_LENGTH]
        return key_id + self._hmac(client_secret.encode())

    def _hmac(self, message: bytes) -> bytes:
        return hmac.digest(self.digest_key, message, hashlib.sha256)
