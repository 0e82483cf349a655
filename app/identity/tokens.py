"""Bearer tokens of people: JSON Web Tokens (RFC 7519), verified as RFC 8725 advises."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import jwt
from jwt.utils import base64url_decode

from app.identifiers import is_identifier
from app.identity.claim_paths import ClaimPaths
from app.identity.key_sources import KeySource

LEEWAY_SECONDS = 30
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can express
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")

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


class TokenVerifier:
    """Checks signature, issuer, audience and times. Ignores keys that the token itself names."""

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

    def verify(self, token: str) -> Claims:
        """Return the claims of a valid token.

        Raises InvalidToken (TokenExpired if the token is otherwise valid), or KeysUnavailable if no
        key can be fetched.
        """
        payload = self._decode(token)
        expires_at = _numeric_date(payload["exp"])
        starts = [_numeric_date(payload[name]) for name in ("nbf", "iat") if name in payload]
        now = time()
        if any(start > now + LEEWAY_SECONDS for start in starts):
            raise InvalidToken("not valid yet")
        claims = Claims(
            subject=_identifier(payload["sub"], "sub"),
            unit_id=self._unit(payload),
            unit_ids=self._units(payload),
            roles=self._roles(payload),
        )
        if expires_at <= now - LEEWAY_SECONDS:  # last, because callers are told this reason
            raise TokenExpired("expired")
        return claims

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
        """Return the roles in a claim that is a string or a list of strings."""
        if self._paths.role is None:
            return frozenset()
        claim = self._paths.role.find(payload, default=[])
        roles = [claim] if isinstance(claim, str) else claim
        if not isinstance(roles, list) or not all(isinstance(each, str) for each in roles):
            raise InvalidToken(f"{self._paths.role} is neither a string nor a list of strings")
        return frozenset(roles)

    def _decode(self, token: str) -> dict[str, Any]:
        """Return the payload. PyJWT has checked everything but the times."""
        try:
            _require_utf_8(token)
            header = jwt.get_unverified_header(token)
            algorithm = self._check_header(header)
            key = self._keys.find(key_id=header.get("kid"), algorithm=algorithm)
            if key is None:
                raise InvalidToken("no key of the issuer has this key ID and algorithm")
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "enforce_minimum_key_length": True,
                    # checked in `verify`: PyJWT accepts the string "1795651500"
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # hostile tokens provoke errors that PyJWT does not wrap
            raise InvalidToken(_reason(error)) from None

    def _check_header(self, header: dict[str, Any]) -> str:
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
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
