"""Sealed answers: kept encrypted, to answer a repeated request in the same way (ADR 12)."""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.credentials.errors import IdempotencyKeyReused, ResponseErased
from app.credentials.model import Caller, IssuedCredential, StoredResponse

_KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that its caller may repeat to get the same answer.

    It is the same request if the idempotency key, the caller, the verb and the arguments are the
    same.
    """

    idempotency_key: str = field(repr=False)
    caller: Caller
    verb: str
    arguments: Mapping[str, Any]

    @property
    def lock_id(self) -> int:
        """A 64-bit number for the caller and the key. It is only locked, never stored."""
        digest = hashlib.sha256(self.scope + self.idempotency_key.encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    @property
    def scope(self) -> bytes:
        """The unit and the actor, within which an idempotency key identifies one request."""
        return json.dumps([self.caller.unit_id, self.caller.actor]).encode()

    @property
    def content(self) -> bytes:
        """The verb and the arguments in a canonical form, whatever the JSON looked like."""
        arguments = {name: _json_value(value) for name, value in self.arguments.items()}
        return json.dumps([self.verb, arguments], sort_keys=True).encode()


class _Keys(NamedTuple):
    """What is derived from an idempotency key. Only the hash is stored."""

    key_hash: bytes
    encryption_key: bytes
    fingerprint_key: bytes

    def fingerprint(self, request: IdempotentRequest) -> bytes:
        return hmac.digest(self.fingerprint_key, request.content, hashlib.sha256)


class ResponseCipher:
    """Encrypts answers under a key derived from the idempotency key and a digest key together.

    So neither the database alone nor the database with one of the two keys reveals an answer. The
    first of `digest_keys` seals; all of them open.
    """

    def __init__(self, digest_keys: Sequence[bytes]) -> None:
        self._digest_keys = digest_keys

    def key_hashes(self, request: IdempotentRequest) -> list[bytes]:
        """Return the hashes under which the answer may be stored, one for each digest key."""
        return [keys.key_hash for keys in self._keys(request)]

    def seal(self, request: IdempotentRequest, answer: IssuedCredential) -> StoredResponse:
        """Encrypt the answer (AES-256-GCM), and bind it to the request's content."""
        keys = _derive(self._digest_keys[0], request)
        nonce = os.urandom(_NONCE_BYTES)
        members = {name: _json_value(value) for name, value in asdict(answer).items()}
        content = json.dumps(members).encode()
        sealed = AESGCM(keys.encryption_key).encrypt(nonce, content, request.content)
        return StoredResponse(keys.key_hash, keys.fingerprint(request), nonce + sealed)

    def open(self, request: IdempotentRequest, answer: StoredResponse) -> IssuedCredential:
        """Decrypt the answer.

        Raises ResponseErased, or IdempotencyKeyReused if it belongs to a different request.
        """
        derived = {keys.key_hash: keys for keys in self._keys(request)}
        keys = derived[answer.key_hash]
        if answer.sealed is None:
            if answer.fingerprint == keys.fingerprint(request):
                raise ResponseErased
            raise IdempotencyKeyReused
        nonce, sealed = answer.sealed[:_NONCE_BYTES], answer.sealed[_NONCE_BYTES:]
        try:
            members = json.loads(
                AESGCM(keys.encryption_key).decrypt(nonce, sealed, request.content)
            )
        except InvalidTag:
            raise IdempotencyKeyReused from None
        created_at = datetime.fromisoformat(members.pop("created_at"))
        return IssuedCredential(**members, created_at=created_at)

    def _keys(self, request: IdempotentRequest) -> list[_Keys]:
        return [_derive(each, request) for each in self._digest_keys]


def _derive(digest_key: bytes, request: IdempotentRequest) -> _Keys:
    kdf = HKDF(
        algorithm=SHA256(),
        length=3 * _KEY_BYTES,
        salt=digest_key,
        info=b"idempotency key\0" + request.scope,
    )
    derived = kdf.derive(request.idempotency_key.encode())
    return _Keys(
        key_hash=derived[:_KEY_BYTES],
        encryption_key=derived[_KEY_BYTES : 2 * _KEY_BYTES],
        fingerprint_key=derived[2 * _KEY_BYTES :],
    )


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
