"""The domain's types: credentials, client secrets, events, callers and names."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from enum import Enum
from math import inf
from typing import Any, Final, Generic, Literal, NamedTuple, Self, TypeVar, get_args

from app.credentials.errors import InvalidName, Refusal
from app.identifiers import BIDIRECTIONAL_OVERRIDES, CONTROL_CHARACTERS, LONE_SURROGATES

NAME_MAX_LENGTH = 50
PLACE_MAX_LENGTH = 500  # where a leak was found

DEFAULT_OVERLAP_SECONDS = 24 * 60 * 60
MAX_OVERLAP_SECONDS = 30 * 24 * 60 * 60

MAX_LIVE_SECRETS = 2

MIN_UNUSED_SECONDS = 60
MAX_UNUSED_SECONDS = 365 * 24 * 60 * 60

_CONTROL_CHARACTERS = re.compile(f"[{CONTROL_CHARACTERS}]")
_BIDIRECTIONAL_OVERRIDES = re.compile(f"[{BIDIRECTIONAL_OVERRIDES}]")
_LONE_SURROGATES = re.compile(f"[{LONE_SURROGATES}]")

Channel = Literal["api", "cli", "verify", "leak_report"]
EventName = Literal[
    "issued",
    "first_used",
    "updated",
    "disabled",
    "enabled",
    "rotated",
    "secret_ended",
    "revoked",
    "leaked",
]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)
Order = Literal["desc", "asc"]

Item = TypeVar("Item")
Position = TypeVar("Position")


class Unset(Enum):
    """The type of `UNSET`, which stands for a value that was not given where None is a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

# The scopes of a credential, or its addresses. None: everything, or from everywhere.
Restriction = list[str] | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for which unit, in which request, via which channel, and from which address.

    The audit trail records all of it. The command line has no address. At the `deadline`, of the
    monotonic clock, the caller must be answered.
    """

    actor: str
    unit_id: str
    request_id: str
    via: Channel
    address: str | None
    deadline: float = inf


class CredentialPosition(NamedTuple):
    """A position in a unit's list of credentials, which runs from the newest to the oldest."""

    created_at: datetime
    secret_id: str


_NUMBERS_IN_HISTORY = 10**12


class TrailPosition(NamedTuple):
    """A position in a unit's trail, which is sorted by the transaction that wrote each event.

    The transactions of each server on which the trail was written are numbered in a history of
    their own (migration 0009). `event_id` is 0 if the position is not that of an event.
    """

    transaction_id: int
    event_id: int

    @property
    def history(self) -> int:
        """The base of the history."""
        return self.transaction_id // _NUMBERS_IN_HISTORY * _NUMBERS_IN_HISTORY

    @property
    def end_of_history(self) -> "TrailPosition":
        """The position after everything in the history."""
        return TrailPosition(self.history + _NUMBERS_IN_HISTORY - 1, event_id=0)


START_OF_TRAIL = TrailPosition(transaction_id=0, event_id=0)


class TrailWindow(NamedTuple):
    """A part of a unit's trail: all events between two times are between `earlier` and `later`.

    `newest` is the last event that can be followed. Each is None if there is no such event.
    """

    earlier: TrailPosition | None
    later: TrailPosition | None
    newest: TrailPosition | None


@dataclass(frozen=True, slots=True)
class CredentialFilter:
    """Which credentials to list: those that meet every condition that is not None.

    `name` is a part of the name, in upper or lower case. A credential is `expiring_before` a time
    if it will have no live client secret by then, or has none now. It is `unused_since` a time if
    it was last used before then, or never, and got no client secret since. It is `refused_since` a
    time if a sender was refused then or later. It is `unrestricted` if it has no scopes.
    """

    client_id: str | None = None
    name: str | None = None
    enabled: bool | None = None
    expiring_before: datetime | None = None
    unused_since: datetime | None = None
    refused_since: datetime | None = None
    unrestricted: bool | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of a unit to show: those that meet every condition that is not None.

    `since` is inclusive, `until` exclusive.
    """

    event: EventName | None = None
    actor: str | None = None
    secret_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """The credential that a valid pair belongs to, as a verification shows it."""

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
    """A credential with its new client secret, which is known only at this moment."""

    client_secret: str = field(repr=False)

    @classmethod
    def of(cls, credential: Credential, client_secret: str) -> Self:
        """Return the credential with its new client secret."""
        shown = {each.name: getattr(credential, each.name) for each in fields(Credential)}
        return cls(**shown, client_secret=client_secret)


class ReplayedCredential(IssuedCredential):
    """The response to an earlier request with the same idempotency key."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LockedCredential(Credential):
    """A credential that nobody else can change until the transaction ends."""

    enabled: bool
    disabled_with_unit: bool
    scopes: Restriction
    addresses: Restriction


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChanges:
    """The fields of a credential that callers can change.

    None leaves a field as it is, but removes a restriction: UNSET leaves it as it is.
    """

    trust_upstream_consent: bool | None = None
    name: str | None = None
    enabled: bool | None = None
    scopes: Restriction | Unset = UNSET
    addresses: Restriction | Unset = UNSET

    def applied_to(self, credential: LockedCredential) -> LockedCredential:
        """Return the credential with these changes."""
        given = {
            name: value
            for name, value in asdict(self).items()
            if value is not (UNSET if name in RESTRICTIONS else None)
        }
        if self.enabled is not None:  # then it no longer follows its unit
            given["disabled_with_unit"] = False
        return replace(credential, **given)


RESTRICTIONS = ("scopes", "addresses")
CHANGEABLE_FIELDS = tuple(each.name for each in fields(CredentialChanges))
# Those whose old and new values are in the event `updated`; `enabled` has events of its own.
UPDATED_FIELDS = tuple(each for each in CHANGEABLE_FIELDS if each != "enabled")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client secret without its value: its hint, its times and where it was last used from."""

    client_secret_id: int
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    last_used_from: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """When a sender was last refused, why, and from which address.

    `hint` is that of the client secret, if it is or was the credential's.
    """

    at: datetime
    reason: str
    address: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class FoundSecret:
    """A live client secret that was found without its client ID, and the credential it is of."""

    client_secret_id: int
    hint: str
    last_used_at: datetime | None
    last_used_from: str | None
    secret_hash: str = field(repr=False)
    digest: bytes | None = field(repr=False)
    leak_reported_at: datetime | None
    unit_id: str
    secret_id: str
    client_id: str
    name: str


@dataclass(frozen=True, slots=True)
class EndedSecret:
    """A client secret that has ended, in the last 90 days, and the credential it was of."""

    digest: bytes = field(repr=False)
    ended_at: datetime
    unit_id: str
    secret_id: str
    client_id: str
    name: str


@dataclass(frozen=True, slots=True)
class LeakReport:
    """A client secret that somebody has found, and where. Nobody has verified the place."""

    client_secret: str = field(repr=False)
    url: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class DetailedCredential(Credential):
    """A credential with its times, its restrictions and its live client secrets, newest first.

    `created_by` is None if somebody has deleted that part of the trail.
    """

    created_by: str | None
    updated_at: datetime
    last_used_at: datetime | None
    disabled_at: datetime | None
    last_refused: LastRefusal | None
    scopes: Restriction
    addresses: Restriction
    secrets: list[ClientSecret] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExpiringSecrets:
    """How many client secrets expire soon and have no successor."""

    within_7_days: int
    within_30_days: int


@dataclass(frozen=True, slots=True)
class HashedSecret:
    """What the database keeps of a client secret."""

    secret_hash: str = field(repr=False)
    digest: bytes = field(repr=False)
    hint: str


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A client secret as stored, with the credential that it belongs to.

    `refusal` is why it is refused even if it matches, or None. `last_used_is_stale` if its last use
    was recorded more than a minute ago, or never. `scopes` and `addresses` are what the credential
    is restricted to, with commas between them, or None.
    """

    credential: VerifiedCredential
    client_secret_id: int
    secret_hash: str = field(repr=False)
    digest: bytes | None = field(repr=False)
    hint: str
    expires_at: datetime | None
    last_used_is_stale: bool
    refusal: Refusal | None
    scopes: str | None
    addresses: str | None


class Use(NamedTuple):
    """A client secret of a credential was verified so many seconds ago, in this request."""

    client_secret_id: int
    secret_id: str
    seconds_ago: float
    address: str | None
    request_id: str


class RecordedUse(NamedTuple):
    """A use that was recorded. `is_settled` unless it needs another attempt."""

    client_secret_id: int
    is_first: bool
    is_settled: bool


class RefusedVerification(NamedTuple):
    """A credential's sender was refused so many seconds ago.

    `hint` is that of the client secret, if the credential has it. Otherwise `digests` are what it
    may have had before.
    """

    secret_id: str
    reason: str
    hint: str | None
    digests: Sequence[bytes]
    address: str | None
    seconds_ago: float


class RecordedRefusal(NamedTuple):
    """A refusal that needs no other attempt. `reason` is None if it was not recorded."""

    secret_id: str
    reason: str | None


class FinishedRotation(NamedTuple):
    """A live client secret that is not used any more, while its successor is."""

    client_secret_id: int
    secret_id: str
    client_id: str
    name: str
    hint: str
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecentUse:
    """Why something is not unused: its last use, or a client secret that is too new to tell."""

    last_used_at: datetime | None
    has_new_secret: bool


class WriterState(NamedTuple):
    """What a process that records uses has to do.

    `is_asked` if it has not yet answered question number `asked`. `is_due` if it has to record that
    it lives.
    """

    asked: int
    is_asked: bool
    is_due: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """A pair that is valid now: whose it is, and when its client secret expires."""

    credential: VerifiedCredential
    secret_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """An encrypted response, and the hash of the idempotency key that decrypts it.

    `encrypted` is None once the response has been erased. `fingerprint` identifies the request; it
    is None if version 0.9.0 stored the response.
    """

    key_hash: bytes
    fingerprint: bytes | None = field(repr=False)
    encrypted: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the audit trail. `detail` says what changed: `{"name": {"from": …, "to": …}}`."""

    event_id: int
    event: EventName
    actor: str
    at: datetime
    request_id: str
    detail: dict[str, Any]


class EventKey(NamedTuple):
    """The fields that identify an event. The time has whole seconds."""

    secret_id: str
    event: str
    request_id: str
    at: datetime


class Survival(NamedTuple):
    """What the database has of a position in a unit's trail."""

    has_history: bool
    has_event: bool  # or it was deleted deliberately, or the position is not that of an event
    is_first: bool  # the event was put before all others, as after a restore under 0.9.0


@dataclass(frozen=True, slots=True)
class UnitEvent(Event):
    """An entry of a unit's trail.

    `client_id` and `name` are the credential's at that time. `via` and `address` are None in events
    from before they were recorded; the command line has no `address`.
    """

    transaction_id: int
    secret_id: str
    client_id: str | None
    name: str | None
    via: Channel | None
    address: str | None

    @property
    def position(self) -> TrailPosition:
        """The event's position in the trail of its unit."""
        return TrailPosition(self.transaction_id, self.event_id)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Position]):
    """A part of a list. The next page starts after `next`, which is None on the last page."""

    items: list[Item]
    next: Position | None


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
