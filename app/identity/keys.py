"""The issuer's public keys: read them, and choose the one that verifies a token."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class InvalidKeys(ValueError):
    """The file or document contains no usable public key. The message completes "The file …"."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key for one algorithm.

    A key without a `key_id` (from a PEM file) can match any token.
    """

    key_id: str | None
    algorithm: str
    key: PublicKey


def read_key_file(path: Path, algorithms: Iterable[str]) -> list[VerificationKey]:
    """Return the keys in the file that are usable with one of the algorithms.

    Raises InvalidKeys if there are none or if the file contains a private key, and OSError if it
    cannot be read.
    """
    content = path.read_bytes()
    if b"PRIVATE KEY" in content:
        raise InvalidKeys("contains a private key")
    if not content.lstrip().startswith(b"-----BEGIN"):
        return parse_jwks(content, algorithms)
    try:
        public_key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKeys("does not contain a PEM public key") from None
    keys = []
    if isinstance(public_key, PublicKey):
        keys = _for_each_algorithm(None, public_key, algorithms)
    if not keys:
        raise InvalidKeys("contains no key usable with JWT_ALGORITHMS")
    return keys


def parse_jwks(content: bytes, algorithms: Iterable[str]) -> list[VerificationKey]:
    """Return the keys of a JWKS document (RFC 7517) that are usable with one of the algorithms.

    Keys for another use are skipped. Raises InvalidKeys if there is no usable key.
    """
    try:
        document = json.loads(content)
        entries = [entry for entry in document["keys"] if isinstance(entry, dict)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise InvalidKeys("does not contain a JWKS") from None
    if any("d" in entry for entry in entries):
        raise InvalidKeys("contains a private key")
    keys = [key for entry in entries for key in _from_jwk(entry, tuple(algorithms))]
    if not keys:
        raise InvalidKeys("contains no key usable with JWT_ALGORITHMS")
    return keys


def _from_jwk(entry: Mapping[str, Any], algorithms: Iterable[str]) -> list[VerificationKey]:
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return []
        public_key = jwt.PyJWK(dict(entry)).key
        if not isinstance(public_key, PublicKey):
            return []  # an HMAC secret
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, AttributeError):
        return []  # PyJWT cannot use it, and raises many kinds of errors
    intended = [name for name in algorithms if entry.get("alg", name) == name]
    key_id = entry.get("kid")
    return _for_each_algorithm(key_id if isinstance(key_id, str) else None, public_key, intended)


def _for_each_algorithm(
    key_id: str | None, key: PublicKey, algorithms: Iterable[str]
) -> list[VerificationKey]:
    return [VerificationKey(key_id, name, key) for name in algorithms if _is_usable(key, name)]


def _is_usable(key: PublicKey, algorithm: str) -> bool:
    """Tell whether the key has the algorithm's type and curve, and is long enough for it."""
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        return implementation.check_key_length(implementation.prepare_key(key)) is None
    except (jwt.InvalidKeyError, TypeError):
        return False


def choose_key(
    keys: Iterable[VerificationKey], key_id: str | None, algorithm: str
) -> VerificationKey | None:
    """Return the only key that a token's header can refer to, or None if there is none or several.

    Without a `kid`, a token can refer to every key for its algorithm.
    """
    suitable = [key for key in keys if key.algorithm == algorithm]
    if key_id is not None:
        named = [key for key in suitable if key.key_id == key_id]
        suitable = named or [key for key in suitable if key.key_id is None]
    distinct = [key for number, key in enumerate(suitable) if key not in suitable[:number]]
    return distinct[0] if len(distinct) == 1 else None
