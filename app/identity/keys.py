"""The issuer's public keys: read them, and choose the one that verifies a token."""

import json
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
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
from jwt.algorithms import OKPAlgorithm

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

# The names of EdDSA with one curve (RFC 9864), which are also the names of the curves. PyJWT knows
# neither of them.
_CURVES: Mapping[str, type[PublicKey]] = {"Ed25519": Ed25519PublicKey, "Ed448": Ed448PublicKey}


class _OneCurve(OKPAlgorithm):
    """EdDSA with public keys on one curve only."""

    def __init__(self, public_key: type[PublicKey]) -> None:
        super().__init__()
        self._public_key = public_key

    def prepare_key(self, key: Any) -> Any:
        prepared = super().prepare_key(key)
        if isinstance(prepared, PublicKey) and not isinstance(prepared, self._public_key):
            raise jwt.InvalidKeyError("the key is on another curve")
        return prepared


for _curve, _public_key in _CURVES.items():
    with suppress(ValueError):  # a later version of PyJWT may know it
        jwt.register_algorithm(_curve, _OneCurve(_public_key))


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

    def verifies(self, algorithm: str) -> bool:
        """Tell whether the key is for tokens with this `alg`."""
        return algorithm == self.algorithm or (
            self.algorithm == "EdDSA"
            and algorithm in _CURVES
            and isinstance(self.key, _CURVES[algorithm])
        )


def is_allowed(algorithm: str, algorithms: Container[str]) -> bool:
    """Tell whether a token may have this `alg`. EdDSA allows its names for each curve too."""
    return algorithm in algorithms or (algorithm in _CURVES and "EdDSA" in algorithms)


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
        entries = [_given(entry) for entry in document["keys"] if isinstance(entry, dict)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise InvalidKeys("does not contain a JWKS") from None
    if any("d" in entry for entry in entries):
        raise InvalidKeys("contains a private key")
    keys = [key for entry in entries for key in _from_jwk(entry, tuple(algorithms))]
    if not keys:
        raise InvalidKeys("contains no key usable with JWT_ALGORITHMS")
    return keys


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out the members without a value: .NET and Java may write each unset one."""
    return {name: value for name, value in entry.items() if value is not None and value != ""}


def _from_jwk(entry: dict[str, Any], algorithms: Iterable[str]) -> list[VerificationKey]:
    try:
        operations = entry.get("key_ops")
        if entry.get("use", "sig") != "sig" or (operations and "verify" not in operations):
            return []
        # without it, PyJWT looks for `alg`, where it knows no names of curves, and not for Ed448
        algorithm = "EdDSA" if entry.get("kty") == "OKP" else None
        public_key = jwt.PyJWK(entry, algorithm=algorithm).key
        if not isinstance(public_key, PublicKey):
            return []  # an HMAC secret
    except (
        jwt.PyJWTError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError
    ):  # fmt: skip
        return []  # PyJWT cannot use it, and raises many kinds of errors
    intended = [name for name in algorithms if _is_intended(name, entry.get("alg"))]
    key_id = entry.get("kid")
    return _for_each_algorithm(key_id if isinstance(key_id, str) else None, public_key, intended)


def _is_intended(algorithm: str, stated: object) -> bool:
    """Tell whether a key with this `alg` may be used. Of EdDSA, the curve is checked later."""
    eddsa = ("EdDSA", *_CURVES)
    return stated in (None, algorithm) or (stated in eddsa and algorithm in eddsa)


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


def choose_keys(
    keys: Iterable[VerificationKey], key_id: str | None, algorithm: str
) -> list[VerificationKey]:
    """Return the keys that a token's header can refer to.

    There are several if the issuer gives one `kid` to several keys. Without a `kid`, a token can
    refer to every key for its algorithm.
    """
    suitable = [key for key in keys if key.verifies(algorithm)]
    if key_id is not None:
        named = [key for key in suitable if key.key_id == key_id]
        suitable = named or [key for key in suitable if key.key_id is None]
    return [
        each
        for number, each in enumerate(suitable)
        if each.key not in [earlier.key for earlier in suitable[:number]]
    ]
