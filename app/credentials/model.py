import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from app.credentials.errors import InvalidName

NAME_MAX_LENGTH = 50

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BIDIRECTIONAL_OVERRIDES = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


T = TypeVar("T")


class Position(NamedTuple):
    """A place in a unit's list of credentials, which runs from the newest to the oldest."""

    created_at: datetime
    secret_id: str


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
class ClientSecret:
    """What can be told of a client secret after it was handed out: its hint, and its times."""

    hint: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class DetailedCredential(Credential):
    """A credential with its history in short, and its live client secrets, newest first."""

    updated_at: datetime
    last_used_at: datetime | None
    secrets: list[ClientSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the audit trail. `detail` says what changed: `{"name": {"from": …, "to": …}}`."""

    event_id: int
    event: str
    actor: str
    at: datetime
    request_id: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class HashedSecret:
    """What the database keeps of a client secret."""

    secret_hash: str
    digest: bytes
    hint: str


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """What the bearer of a good pair is told, and what the platform believes of its events."""

    secret_id: str
    unit_id: str
    client_id: str
    name: str
    trust_upstream_consent: bool


@dataclass(frozen=True, slots=True)
class StoredSecret(VerifiedCredential):
    """A live client secret, as stored, with the credential that it is of.

    `is_use_unrecorded` says that its last use was recorded more than a minute ago, or never.
    """

    client_secret_id: int
    secret_hash: str
    digest: bytes | None
    is_use_unrecorded: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a change, and in which request: what its audit event records."""

    actor: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a longer list, and whether more follow."""

    items: list[T]
    more: bool


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
