"""Read a token without verifying it, to show it beside what the service requires."""

from dataclasses import dataclass
from typing import Any

import jwt


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token's header and claims, unverified: anybody may have written them."""

    header: dict[str, Any]
    claims: dict[str, Any]


def inspect(token: str) -> UnverifiedToken | None:
    """Return the token's content, or None if it is malformed."""
    try:
        content = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        return None  # hostile tokens provoke errors that PyJWT does not wrap
    return UnverifiedToken(content["header"], content["payload"])
