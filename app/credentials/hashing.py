import hashlib
import hmac
from dataclasses import dataclass, field

import bcrypt

_KEY_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Hasher:
    """Turn client secrets into what the database may keep of them (ADR 1 and 2).

    `rounds` is bcrypt's cost, the base-2 logarithm of its iterations. `digest_key` keys the HMAC.
    """

    rounds: int
    digest_key: bytes = field(repr=False)

    def hash(self, client_secret: str) -> str:
        """Return the bcrypt hash, salt and cost included. Takes tens of milliseconds."""
        return bcrypt.hashpw(client_secret.encode(), bcrypt.gensalt(self.rounds)).decode()

    def digest(self, client_secret: str) -> bytes:
        """Return the digest key's identifier (8 bytes), then the HMAC-SHA-256 (32 bytes)."""
        key_id = self._hmac(b"key id")[:_KEY_ID_LENGTH]
        return key_id + self._hmac(client_secret.encode())

    def _hmac(self, message: bytes) -> bytes:
        return hmac.digest(self.digest_key, message, hashlib.sha256)
