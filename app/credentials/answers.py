"""Answers that are kept, sealed, to be given again to a request that is repeated (ADR 12)."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.credentials.errors import IdempotencyKeyReused
from app.credentials.model import Caller, IssuedCredential, SealedAnswer

_KEY_HASH_BYTES = 32
_SEALING_KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class RepeatableRequest:
    """A request that its caller may repeat to get the same answer.

    Another request with the same idempotency key has a different verb or different arguments.
    """

    idempotency_key: str = field(repr=False)
    caller: Caller
    verb: str
    arguments: Mapping[str, Any]

    @property
    def lock_id(self) -> int:
        """A number of 64 bits that stands for the caller and the key, and is stored nowhere."""
        digest = hashlib.sha256(self.scope + self.idempotency_key.encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    @property
    def scope(self) -> bytes:
        """Within it, an idempotency key stands for one request."""
        return json.dumps([self.caller.unit_id, self.caller.actor]).encode()

    @property
    def content(self) -> bytes:
        """What is asked for, the same however the request was written."""
        arguments = {name: _plain(value) for name, value in self.arguments.items()}
        return json.dumps([self.verb, arguments], sort_keys=True).encode()


class AnswerSeal:
    """Seals answers under a key derived from the idempotency key and a digest key together.

    So neither the database alone nor the database with one of the two shows an answer. The first of
    `digest_keys` seals; what one of the others has sealed is still understood.
    """

    def __init__(self, digest_keys: Sequence[bytes]) -> None:
        self._digest_keys = digest_keys

    def key_hashes(self, request: RepeatableRequest) -> list[bytes]:
        """Return the hashes under which the answer may be kept."""
        return [_derive(each, request)[0] for each in self._digest_keys]

    def seal(self, request: RepeatableRequest, answer: IssuedCredential) -> SealedAnswer:
        """Encrypt the answer (AES-256-GCM) and bind it to what was asked for."""
        key_hash, sealing_key = _derive(self._digest_keys[0], request)
        nonce = os.urandom(_NONCE_BYTES)
        members = {name: _plain(value) for name, value in asdict(answer).items()}
        sealed = AESGCM(sealing_key).encrypt(nonce, json.dumps(members).encode(), request.content)
        return SealedAnswer(key_hash, nonce + sealed)

    def open(self, request: RepeatableRequest, answer: SealedAnswer) -> IssuedCredential:
        """Decrypt the answer. Raises IdempotencyKeyReused if something else was asked for."""
        nonce, sealed = answer.sealed[:_NONCE_BYTES], answer.sealed[_NONCE_BYTES:]
        derived = dict(_derive(each, request) for each in self._digest_keys)
        sealing_key = derived[answer.key_hash]
        try:
            members = json.loads(AESGCM(sealing_key).decrypt(nonce, sealed, request.content))
        except InvalidTag:
            raise IdempotencyKeyReused from None
        created_at = datetime.fromisoformat(members.pop("created_at"))
        return IssuedCredential(**members, created_at=created_at)


def _derive(digest_key: bytes, request: RepeatableRequest) -> tuple[bytes, bytes]:
    """Return what the request's idempotency key is stored as, and the key that seals its answer."""
    kdf = HKDF(
        algorithm=SHA256(),
        length=_KEY_HASH_BYTES + _SEALING_KEY_BYTES,
        salt=digest_key,
        info=b"idempotency key\0" + request.scope,
    )
    derived = kdf.derive(request.idempotency_key.encode())
    return derived[:_KEY_HASH_BYTES], derived[_KEY_HASH_BYTES:]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
