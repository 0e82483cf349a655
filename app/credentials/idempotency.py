"""Idempotency keys: a request makes its change once, and its response can be replayed (ADR 12)."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.credentials import repository
from app.credentials.errors import IdempotencyKeyReused, RequestInProgress, ResponseErased
from app.credentials.model import Caller, IssuedCredential, ReplayedCredential, StoredResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.database.pool import Connection

_KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that makes its change once, however often its caller sends it.

    It is the same request if the idempotency key, the caller, the verb and the arguments are the
    same.
    """

    idempotency_key: str = field(repr=False)
    caller: Caller
    verb: str
    arguments: Mapping[str, Any]

    @classmethod
    def of(
        cls, caller: Caller, idempotency_key: str | None, verb: str, **arguments: Any
    ) -> Self | None:
        """Return the request, or None if it has no key. An argument that is None was left out."""
        if idempotency_key is None:
            return None
        given = {name: value for name, value in arguments.items() if value is not None}
        return cls(idempotency_key, caller, verb, given)

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


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Finds and stores the responses to idempotent requests. A request without a key is None."""

    cipher: ResponseCipher

    def find_response(
        self, connection: Connection, request: IdempotentRequest
    ) -> ReplayedCredential | None:
        """Return the response to the same request, or None if the request is new.

        A response is stored for a day, or until its client secret is first used or ends. Raises
        ResponseErased after that, until the day is over, and IdempotencyKeyReused if the key
        belongs to a different request.
        """
        stored = self._find(connection, request)
        return None if stored is None else self.cipher.decrypt(request, stored)

    def begin(self, connection: Connection, request: IdempotentRequest | None) -> None:
        """Let only one such request make its change. Call it in the transaction of the change.

        Raises RequestInProgress.
        """
        if request is None:
            return
        if not repository.try_lock_request(connection, lock_id=request.lock_id):
            raise RequestInProgress
        if self._find(connection, request):
            raise RequestInProgress  # it has just ended; a later attempt gets its response

    def store_response(
        self, connection: Connection, request: IdempotentRequest | None, issued: IssuedCredential
    ) -> None:
        """Store the response in the transaction of the change."""
        if request is not None:
            stored = self.cipher.encrypt(request, issued)
            repository.insert_stored_response(connection, stored, secret_id=issued.secret_id)

    def _find(self, connection: Connection, request: IdempotentRequest) -> StoredResponse | None:
        key_hashes = self.cipher.key_hashes(request)
        return repository.find_stored_response(connection, key_hashes=key_hashes)


class ResponseCipher:
    """Encrypts responses under a key derived from the idempotency key and a digest key together.

    So neither the database alone nor the database with one of the two keys reveals a response. The
    first of `digest_keys` encrypts; all of them decrypt.
    """

    def __init__(self, digest_keys: Sequence[bytes]) -> None:
        self._digest_keys = digest_keys

    def key_hashes(self, request: IdempotentRequest) -> list[bytes]:
        """Return the hashes under which the response may be stored, one for each digest key."""
        return [keys.key_hash for keys in self._keys(request)]

    def encrypt(self, request: IdempotentRequest, issued: IssuedCredential) -> StoredResponse:
        """Encrypt the response (AES-256-GCM), and bind it to the request's content."""
        keys = _derive(self._digest_keys[0], request)
        nonce = os.urandom(_NONCE_BYTES)
        members = {name: _json_value(value) for name, value in asdict(issued).items()}
        content = json.dumps(members).encode()
        encrypted = AESGCM(keys.encryption_key).encrypt(nonce, content, request.content)
        return StoredResponse(keys.key_hash, keys.fingerprint(request), nonce + encrypted)

    def decrypt(self, request: IdempotentRequest, stored: StoredResponse) -> ReplayedCredential:
        """Decrypt the response.

        Raises ResponseErased, or IdempotencyKeyReused if it belongs to a different request.
        """
        derived = {keys.key_hash: keys for keys in self._keys(request)}
        keys = derived[stored.key_hash]
        if stored.encrypted is None:
            if stored.fingerprint == keys.fingerprint(request):
                raise ResponseErased
            raise IdempotencyKeyReused
        nonce, encrypted = stored.encrypted[:_NONCE_BYTES], stored.encrypted[_NONCE_BYTES:]
        try:
            content = AESGCM(keys.encryption_key).decrypt(nonce, encrypted, request.content)
        except InvalidTag:
            raise IdempotencyKeyReused from None
        members = json.loads(content)
        created_at = datetime.fromisoformat(members.pop("created_at"))
        return ReplayedCredential(**members, created_at=created_at)

    def _keys(self, request: IdempotentRequest) -> list[_Keys]:
        return [_derive(each, request) for each in self._digest_keys]


class _Keys(NamedTuple):
    """What is derived from an idempotency key. Only the hash is stored."""

    key_hash: bytes
    encryption_key: bytes
    fingerprint_key: bytes

    def fingerprint(self, request: IdempotentRequest) -> bytes:
        return hmac.digest(self.fingerprint_key, request.content, hashlib.sha256)


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
