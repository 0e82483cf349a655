"""Where a claim is in a token. Providers differ, so the operator may configure it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

# RFC 7519, 4.1. Their meaning is fixed, and most of them are checked.
_REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """The names to follow from the token's payload to a claim. A top-level claim has one."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name of a claim, or a JSON pointer (RFC 6901) if it starts with a slash.

        So a name may contain anything, but not start with a slash: `https://example.com/roles` and
        `extn.unit` are one claim each. `/realm_access/roles` is a member of a claim. Raises
        ValueError for an empty name, white space around a name, a registered claim, and `~` without
        0 or 1 in a pointer.
        """
        names = tuple(map(_unescape, text[1:].split("/"))) if text.startswith("/") else (text,)
        if not all(name and name == name.strip() for name in names):
            raise ValueError("empty name, or white space around it")
        if names[0] in _REGISTERED:
            raise ValueError("registered claim")
        return cls(names)

    def __str__(self) -> str:
        """Return the shortest text that `parse` reads as this path."""
        if len(self.names) == 1 and not self.names[0].startswith("/"):
            return self.names[0]
        return "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in self.names)

    def overlaps(self, other: "ClaimPath") -> bool:
        """Tell whether both are the same claim, or one is inside the other."""
        return all(mine == its for mine, its in zip(self.names, other.names, strict=False))

    def find(self, payload: Mapping[str, Any], default: object = None) -> object:
        """Return the claim, or the default if it is missing.

        A path goes through objects only, not into lists: their elements have no fixed meaning.
        """
        found: object = payload
        for name in self.names:
            if not isinstance(found, dict) or name not in found:
                return default
            found = found[name]
        return found


@dataclass(frozen=True, slots=True)
class ClaimPaths:
    """The paths of the claims that providers name differently."""

    unit: ClaimPath  # a string: the active unit
    units: ClaimPath  # a list: the units among which the caller may choose
    role: ClaimPath | None  # a string or a list. None if everyone may change credentials


def _unescape(name: str) -> str:
    if "~" in name.replace("~0", "").replace("~1", ""):
        raise ValueError("~ without 0 or 1")
    return name.replace("~1", "/").replace("~0", "~")
