"""Bearer tokens of people: JSON Web Tokens (RFC 7519), verified as RFC 8725 advises."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from time import time
from typing import Any

import jwt
from jwt.utils import base64url_decode

from app.identifiers import is_identifier
from app.identity.claim_paths import ClaimPaths
from app.identity.key_sources import KeySource
from app.identity.keys import VerificationKey, is_allowed

LEEWAY_SECONDS = 30
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can express
_SCOPES = ("scope", "scp")
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")

_MAX_REMEMBERED = 1024
_MAX_REMEMBERED_LENGTH = 4096  # of a token

_REASONS: Mapping[type[Exception], str] = {
    jwt.InvalidSignatureError: "the signature is not by the issuer's key",
    jwt.InvalidIssuerError: "wrong issuer",
    jwt.InvalidAudienceError: "wrong audience",
    jwt.DecodeError: "malformed",
}


class InvalidToken(Exception):
    """The token is not accepted. The message says why in a few words, and never quotes it."""


class TokenExpired(InvalidToken):
    """The token has expired, but is valid in every other respect."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says about its bearer."""

    subject: str
    unit_id: str | None
    unit_ids: frozenset[str]
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class _CheckedToken:
    """A token that is valid as long as its key is the issuer's, and between its times."""

    algorithm: str
    key_id: str | None
    key: VerificationKey
    starts_at: float
    expires_at: float
    claims: Claims


class TokenVerifier:
    """Checks signature, issuer, audience and times. Ignores keys that the token itself names.

    It remembers the tokens that it has found valid, by their hash, and then checks only what can
    change: whether the key is still the issuer's, and the times (ADR 30).
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        algorithms: Collection[str],
        issuer: str,
        audience: str,
        claims: ClaimPaths,
    ) -> None:
        self._keys = keys
        self._algorithms = algorithms
        self._issuer = issuer
        self._audience = audience
        self._paths = claims
        self._remembered: dict[bytes, _CheckedToken] = {}  # the oldest first
        self._remembering = Lock()

    def verify(self, token: str) -> Claims:
        """Return the claims of a valid token.

        Raises InvalidToken (TokenExpired if the token is otherwise valid), or KeysUnavailable if no
        key can be fetched.
        """
        name = sha256(token.encode("utf-8", "surrogatepass")).digest()
        remembered = self._recall(name)
        checked = remembered or self._check(token)
        now = time()
        if checked.starts_at > now + LEEWAY_SECONDS:
            raise InvalidToken("not valid yet")
        if checked.expires_at <= now - LEEWAY_SECONDS:  # last, because callers are told this reason
            raise TokenExpired("expired")
        if remembered is None and len(token) <= _MAX_REMEMBERED_LENGTH:
            self._remember(name, checked)
        return checked.claims

    def _recall(self, name: bytes) -> _CheckedToken | None:
        """Return what is known of the token, unless its key is no longer the issuer's."""
        checked = self._remembered.get(name)
        if checked is None:
            return None
        keys = self._suitable(checked.key_id, checked.algorithm)
        return checked if any(key is checked.key for key in keys) else None

    def _remember(self, name: bytes, checked: _CheckedToken) -> None:
        with self._remembering:
            self._remembered.pop(name, None)
            if len(self._remembered) >= _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[name] = checked

    def _check(self, token: str) -> _CheckedToken:
        """Check everything but whether the token is valid at this time."""
        algorithm, key_id, key, payload = self._decode(token)
        starts = [_numeric_date(payload[name]) for name in ("nbf", "iat") if name in payload]
        return _CheckedToken(
            algorithm=algorithm,
            key_id=key_id,
            key=key,
            starts_at=max(starts, default=0.0),
            expires_at=_numeric_date(payload["exp"]),
            claims=Claims(
                subject=_identifier(payload["sub"], "sub"),
                unit_id=self._unit(payload),
                unit_ids=self._units(payload),
                roles=self._roles(payload),
            ),
        )

    def _unit(self, payload: dict[str, Any]) -> str | None:
        claim = self._paths.unit.find(payload)
        return None if claim in (None, "") else _identifier(claim, str(self._paths.unit))

    def _units(self, payload: dict[str, Any]) -> frozenset[str]:
        claim = self._paths.units.find(payload)
        if not isinstance(claim, list | None):
            raise InvalidToken(f"{self._paths.units} is not a list")
        entry = f"an entry of {self._paths.units}"
        return frozenset(_identifier(each, entry) for each in claim or ())

    def _roles(self, payload: dict[str, Any]) -> frozenset[str]:
        """Return the roles in a claim that is a string or a list of strings, or missing or null.

        OAuth's scopes are one string with spaces (RFC 6749, 3.3). Any other role may have spaces.
        """
        path = self._paths.role
        if path is None:
            return frozenset()
        claim = path.find(payload)
        roles = [] if claim is None else [claim] if isinstance(claim, str) else claim
        if not isinstance(roles, list) or not all(isinstance(each, str) for each in roles):
            raise InvalidToken(f"{path} is neither a string nor a list of strings")
        if path.names[-1] in _SCOPES:
            return frozenset(scope for each in roles for scope in each.split(" ") if scope)
        return frozenset(roles)

    def _decode(self, token: str) -> tuple[str, str | None, VerificationKey, dict[str, Any]]:
        """Return algorithm, key ID, key and payload. PyJWT has checked all but the times."""
        try:
            _require_utf_8(token)
            header = jwt.get_unverified_header(token)
            algorithm = self._check_header(header)
            key_id = header.get("kid")
            keys = self._suitable(key_id, algorithm)
            key, payload = self._decode_with_any(keys, algorithm, token)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # hostile tokens provoke errors that PyJWT does not wrap
            raise InvalidToken(_reason(error)) from None
        return algorithm, key_id, key, payload

    def _suitable(self, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        """Return the keys that may have signed the token. Raises InvalidToken if there are none."""
        keys = self._keys.find(key_id=key_id, algorithm=algorithm)
        if not keys:
            raise InvalidToken("no key of the issuer has this key ID and algorithm")
        if key_id is None and len(keys) > 1:
            raise InvalidToken("no key ID, and several keys of the issuer suit the algorithm")
        return keys

    def _decode_with_any(
        self, keys: list[VerificationKey], algorithm: str, token: str
    ) -> tuple[VerificationKey, dict[str, Any]]:
        *others, last = keys
        for key in others:
            with suppress(jwt.InvalidSignatureError):
                return key, self._decode_with(key, algorithm, token)
        return last, self._decode_with(last, algorithm, token)

    def _decode_with(self, key: VerificationKey, algorithm: str, token: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            options={
                "require": ["exp", "iss", "aud", "sub"],
                "enforce_minimum_key_length": True,
                # checked by us: PyJWT accepts the string "1795651500"
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )

    def _check_header(self, header: dict[str, Any]) -> str:
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or not is_allowed(algorithm, self._algorithms):
            raise InvalidToken("algorithm not allowed")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise InvalidToken("unexpected typ")
        return algorithm


def _require_utf_8(token: str) -> None:
    """Raise DecodeError unless header and payload are UTF-8 (RFC 7519, 3), without a BOM.

    PyJWT would read UTF-16 and UTF-32 too, as `json` does. They have NULs, which JSON has not.
    """
    try:
        texts = [base64url_decode(part).decode("utf-8") for part in token.split(".")[:2]]
    except ValueError:
        raise jwt.DecodeError from None
    if any("\0" in text or text.startswith("\ufeff") for text in texts):
        raise jwt.DecodeError


def _reason(error: Exception) -> str:
    """Describe what PyJWT found wrong. Its own message may quote the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the claim {error.claim} is missing"
    return _REASONS.get(type(error), f"malformed ({type(error).__name__})")


def _numeric_date(value: object) -> float:
    """Return a NumericDate (RFC 7519, 2) in seconds. Raises InvalidToken if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken("a time is not a number")
    if not 0 <= value <= _LAST_SECOND:
        raise InvalidToken("a time is out of range")
    return value


def _identifier(value: object, name: str) -> str:
    if not isinstance(value, str) or not is_identifier(value):
        raise InvalidToken(f"{name} is not a string of 1-255 valid characters")
    return value
