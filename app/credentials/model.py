"""What the domain speaks of: credentials, client secrets, events, callers and names."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from app.credentials.errors import InvalidName
from app.identifiers import BIDIRECTIONAL_OVERRIDES, CONTROL_CHARACTERS, LONE_SURROGATES

NAME_MAX_LENGTH = 50

_CONTROL_CHARACTERS = re.compile(f"[{CONTROL_CHARACTERS}]")
_BIDIRECTIONAL_OVERRIDES = re.compile(f"[{BIDIRECTIONAL_OVERRIDES}]")
_LONE_SURROGATES = re.compile(f"[{LONE_SURROGATES}]")

Item = TypeVar("Item")
Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for which unit, in which request, and via which channel (the API or the CLI).

    The audit trail records it.
    """

    actor: str
    unit_id: str
    request_id: str
    via: Literal["api", "cli"]


class Position(NamedTuple):
    """A place in a unit's list of credentials, which runs from the newest to the oldest."""

    created_at: datetime
    secret_id: str


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """What a verification tells about the credential that a valid pair belongs to."""

    secret_id: str
    unit_id: str
    client_id: str
    name: str
    trust_upstream_consent: bool


@dataclass(frozen=True, slots=True)
class Credential(VerifiedCredential):
    """The named record that a unit owns, without any client secret."""

    created_at: datetime


@dataclass(frozen=True, slots=True)
class IssuedCredential(Credential):
    """A credential at the only moment when its client secret is known."""

    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """What can still be told about a client secret: its hint and its times."""

    hint: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class DetailedCredential(Credential):
    """A credential with its times and its live client secrets, newest first."""

    updated_at: datetime
    last_used_at: datetime | None
    secrets: list[ClientSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HashedSecret:
    """What the database keeps of a client secret."""

    secret_hash: str = field(repr=False)
    digest: bytes = field(repr=False)
    hint: str


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A live client secret as stored, with the credential that it belongs to.

    `last_used_is_stale` if its last use was recorded more than a minute ago, or never.
    """

    credential: VerifiedCredential
    client_secret_id: int
    secret_hash: str = field(repr=False)
    digest: bytes | None = field(repr=False)
    last_used_is_stale: bool


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
class Page(Generic[Item, Place]):
    """Some items of a longer list. The next page, if there is one, starts behind `next`."""

    items: list[Item]
    next: Place | None


def parse_name(text: str) -> str:
    """Return the name without surrounding white space.

    Raises InvalidName unless 1-50 code points are left, without control characters (Cc),
    bidirectional overrides and lone surrogates.
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
