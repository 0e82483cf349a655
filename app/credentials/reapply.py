"""After a restore, end again what ended after the backup, from a copy of the audit trail.

Only restrictions are applied again: revocations, disabled credentials, ended client secrets,
withdrawn trust in consent, and the last scopes and addresses. Credentials that were issued or
enabled after the backup are not, nor are restrictions that were removed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any

from app.credentials import repository
from app.credentials.model import (
    RESTRICTIONS,
    Caller,
    ClientSecret,
    EventKey,
    EventName,
    LockedCredential,
    Restriction,
)
from app.database.pool import Connection, Database
from app.times import format_time, parse_time

_SECOND = timedelta(seconds=1)
# Longer than a transaction takes: an event may be older than the newest one in the backup, and
# committed after it.
_IN_FLIGHT = timedelta(minutes=1)
_UNITS_AT_ONCE = 10_000

_TRUST = "trust_upstream_consent"
_TRUST_WITHDRAWN = {"from": True, "to": False}


@dataclass(frozen=True, slots=True)
class TrailEvent:
    """An event of the copied trail. Its time has whole seconds."""

    secret_id: str
    event: EventName
    actor: str
    at: datetime
    request_id: str
    detail: dict[str, Any]

    @property
    def original(self) -> dict[str, str]:
        """What identifies the event; for one that was reapplied itself, its original."""
        reapplied: dict[str, str] | None = self.detail.get("reapplied")
        return reapplied or {
            "event": self.event,
            "actor": self.actor,
            "at": format_time(self.at),
            "request_id": self.request_id,
        }

    @property
    def key(self) -> EventKey:
        """The key of the original."""
        original = self.original
        return EventKey(
            self.secret_id,
            original["event"],
            original["request_id"],
            parse_time(original["at"]),
        )

    @property
    def restricts(self) -> bool:
        """Whether the event may be applied again."""
        if self.event == "updated":
            is_restricted = any(self.restriction(each) is not None for each in RESTRICTIONS)
            return is_restricted or self.detail.get(_TRUST) == _TRUST_WITHDRAWN
        return self.event in {"revoked", "disabled", "rotated", "secret_ended"} or self.ends_leaked

    @property
    def ends_leaked(self) -> bool:
        """Whether a leaked client secret was ended, and not only recorded."""
        return self.event == "leaked" and self.detail.get("ended") is True

    def restriction(self, member: str) -> Restriction:
        """Return the scopes or addresses that the event set, or None if it set none."""
        restriction: Restriction = self.detail.get(member, {}).get("to")
        return restriction

    def precedes(self, secret: ClientSecret) -> bool:
        """Tell whether the client secret was made after the event, and so is not affected by it."""
        return secret.created_at >= self.at + _SECOND


@dataclass(slots=True)
class Summary:
    """How many changes were applied again, and how many credentials the database lacks."""

    revoked: int = 0
    disabled: int = 0
    secrets_ended: int = 0
    distrusted: int = 0
    restricted: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Reapply:
    """Applies the restrictions in a trail again. Idempotent.

    `caller` returns the caller to record in the new events of a unit. A change may take `seconds`,
    and reading the trail `read_seconds`. Each method raises what `Database.connection` raises;
    credentials that were finished by then stay changed.
    """

    database: Database
    seconds: float
    caller: Callable[[str], Caller]
    read_seconds: float = 60.0

    def find_backup_time(self) -> datetime | None:
        """Return a time shortly before the backup, or None if the restored trail is empty.

        Call it before anything else changes the restored database. Events that this class has added
        do not count.
        """
        with self.database.transaction(self.read_seconds) as connection:
            newest = repository.find_newest_event_time(connection)
        return None if newest is None else newest - _IN_FLIGHT

    def apply(self, events: Iterable[TrailEvent], *, since: datetime) -> Summary:
        """Apply the events, given oldest first, that are not older and not in the restored trail.

        An older event is in the backup, even if the trail does not show it: it may have been
        deleted.
        """
        events_by_credential: dict[str, list[TrailEvent]] = {}
        for event in events:
            if event.at + _SECOND > since:
                events_by_credential.setdefault(event.secret_id, []).append(event)
        known, units = self._read(events_by_credential, since)
        done = Summary()
        for secret_id, its_events in events_by_credential.items():
            unit_id = units.get(secret_id)
            if unit_id is None:
                done.missing += not any(each.event == "revoked" for each in its_events)
                continue
            new = [each for each in its_events if each.key not in known]
            if any(each.restricts for each in new):
                with self.database.transaction(self.seconds) as connection:
                    self._apply_to(connection, unit_id, secret_id, new, done)
        return done

    def _read(
        self, secret_ids: Iterable[str], since: datetime
    ) -> tuple[set[EventKey], dict[str, str]]:
        """Return the keys of the events to skip, and the units of the credentials that exist."""
        units: dict[str, str] = {}
        remaining = iter(secret_ids)
        with self.database.transaction(self.read_seconds) as connection:
            known = repository.select_event_keys(connection, since=since)
            while chunk := list(islice(remaining, _UNITS_AT_ONCE)):
                units |= repository.select_units(connection, secret_ids=chunk)
        return known, units

    def _apply_to(
        self,
        connection: Connection,
        unit_id: str,
        secret_id: str,
        events: list[TrailEvent],
        done: Summary,
    ) -> None:
        repository.lock_unit_shared(connection, unit_id=unit_id)
        credential = repository.lock_credential(connection, unit_id=unit_id, secret_id=secret_id)
        if credential is not None:  # it may have been revoked since
            changes = _CredentialChanges(connection, self.caller(unit_id), credential, done)
            changes.apply(events)


@dataclass(slots=True)
class _CredentialChanges:
    """Applies the events of one credential, which is locked."""

    connection: Connection
    caller: Caller
    credential: LockedCredential
    done: Summary

    def apply(self, events: list[TrailEvent]) -> None:
        revoked = [each for each in events if each.event == "revoked"]
        if revoked:
            repository.delete_credential(
                self.connection,
                unit_id=self.credential.unit_id,
                secret_id=self.credential.secret_id,
            )
            self._record("revoked", revoked[-1])
            self.done.revoked += 1
            return
        self._end_secrets(events)
        self._disable(events)
        self._distrust(events)
        for member in RESTRICTIONS:
            self._restrict(member, events)

    def _disable(self, events: list[TrailEvent]) -> None:
        changes = [each for each in events if each.event in {"disabled", "enabled"}]
        if not (changes and changes[-1].event == "disabled" and self.credential.enabled):
            return
        with_unit = changes[-1].detail.get("all") is True
        self._update(replace(self.credential, enabled=False, disabled_with_unit=with_unit))
        self._record("disabled", changes[-1], **({"all": True} if with_unit else {}))
        self.done.disabled += 1

    def _distrust(self, events: list[TrailEvent]) -> None:
        changes = [each for each in events if each.event == "updated" and _TRUST in each.detail]
        if not changes or not self.credential.trust_upstream_consent:
            return
        if changes[-1].detail[_TRUST] != _TRUST_WITHDRAWN:
            return
        self._update(replace(self.credential, trust_upstream_consent=False))
        self._record("updated", changes[-1], **{_TRUST: _TRUST_WITHDRAWN})
        self.done.distrusted += 1

    def _restrict(self, member: str, events: list[TrailEvent]) -> None:
        changes = [each for each in events if each.event == "updated" and member in each.detail]
        current = getattr(self.credential, member)
        if not changes or (last := changes[-1].restriction(member)) in (None, current):
            return
        restriction: dict[str, Any] = {member: last}
        self._update(replace(self.credential, **restriction))
        self._record("updated", changes[-1], **{member: {"from": current, "to": last}})
        self.done.restricted += 1

    def _end_secrets(self, events: list[TrailEvent]) -> None:
        live = repository.select_client_secrets(
            self.connection,
            unit_id=self.credential.unit_id,
            secret_id=self.credential.secret_id,
        )
        kept = [secret for secret in live if not self._end_secret(secret, events)]
        if len(kept) < len(live):
            repository.delete_client_secrets(
                self.connection,
                unit_id=self.credential.unit_id,
                secret_id=self.credential.secret_id,
                keep=kept,
            )

    def _end_secret(self, secret: ClientSecret, events: list[TrailEvent]) -> bool:
        """Apply the events to the client secret. Return False if it has not ended yet."""
        ends = [(end, each) for each in events if (end := _end_of(secret, each)) is not None]
        if not ends:
            return False
        ends_at, cause = min(ends, key=itemgetter(0))
        if ends_at <= datetime.now(UTC):
            self._record("secret_ended", cause, hint=secret.hint)
            self.done.secrets_ended += 1
            return True
        if secret.expires_at is None or ends_at < secret.expires_at:
            repository.update_expiry(
                self.connection, client_secret_id=secret.client_secret_id, expires_at=ends_at
            )
            self._record("secret_ended", cause, hint=secret.hint, expires_at=format_time(ends_at))
            self.done.secrets_ended += 1
        return False

    def _update(self, credential: LockedCredential) -> None:
        repository.update_credential(self.connection, credential)
        self.credential = credential

    def _record(self, event: EventName, cause: TrailEvent, **detail: Any) -> None:
        """Add an event of our own, with the original event in its `reapplied`."""
        repository.insert_event(
            self.connection,
            self.caller,
            self.credential,
            event,
            detail={**detail, "reapplied": cause.original},
        )


def _end_of(secret: ClientSecret, event: TrailEvent) -> datetime | None:
    """Return when the event ended the client secret, or None if it did not."""
    if event.precedes(secret):
        return None
    if event.event == "rotated":
        overlap = event.detail.get("overlap_seconds")
        return event.at + timedelta(seconds=overlap if isinstance(overlap, int) else 0)
    ends_one = event.event == "secret_ended" or event.ends_leaked
    if ends_one and event.detail.get("hint") == secret.hint:
        ends_at = event.detail.get("expires_at")
        return event.at if ends_at is None else parse_time(ends_at)
    return None
