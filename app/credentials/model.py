import re
from dataclasses import dataclass, field
from datetime import datetime

from app.credentials.errors import InvalidName

NAME_MAX_LENGTH = 50

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BIDIRECTIONAL_OVERRIDES = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Credential:
    """The named record that a unit owns, without any client secret."""

    secret_id: str
    unit_id: str
    client_id: str
    name: str
    trust_upstream_consent: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class IssuedCredential(Credential):
    """A credential in the one moment in which its client secret is known."""

    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a change, and in which request: what its audit event records."""

    actor: str
    request_id: str


def parse_name(text: str) -> str:
    """Return the name without surrounding white space.

    Raises InvalidName unless 1-50 code points are left, none of them a control character (Cc), a
    bidirectional override or a lone surrogate.
    """
    name = text.strip()
    if not 1 <= len(name) <= NAME_MAX_LENGTH:
        raise InvalidName(f"Must be 1-{NAME_MAX_LENGTH} characters")
    if _CONTROL_CHARACTERS.search(name):
        raise InvalidName("Must not contain control characters")
    if _BIDIRECTIONAL_OVERRIDES.search(name):
        raise InvalidName("Must not contain bidirectional overrides")
    if _LONE_SURROGATES.search(name):
        raise InvalidName("Must not contain lone surrogates")
    return name
