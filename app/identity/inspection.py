"""What a token says, whoever wrote it: to compare with what the service wants, not to believe."""

from dataclasses import dataclass
from typing import Any

import jwt


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token's header and claims as they are. Anybody may have written them."""

    header: dict[str, Any]
    claims: dict[str, Any]


def inspect(token: str) -> UnverifiedToken | None:
    """Return what the token says, or None if it is malformed."""
    try:
        content = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        return None  # hostile tokens provoke errors that PyJWT does not wrap
    return UnverifiedToken(content["header"], content["payload"])
