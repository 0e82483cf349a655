"""After a restore, end again what ended after the backup, from a copy of the audit trail.

Only restrictions are applied again: revocations, disabled credentials, ended client secrets, and
withdrawn trust in consent. Credentials that were issued or enabled after the backup are not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from app.credentials import repository
from app.credentials.model import (
    Caller,
    ClientSecret,
    EventKey,
    EventName,
    LockedCredential,
)
from app.database.pool import Connection, Database
from app.times import format_time

_SECOND = timedelta(seconds=1)


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
    def key(self) -> EventKey:
        """The fields that identify the event among those of its credential."""
        return EventKey(self.event, self.request_id, self.at)

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
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Reapply:
    """Applies the restrictions in a trail again. To repeat it changes nothing.

    `caller` returns the caller to record in the new events of a unit. `apply` raises what
    `Database.connection` raises; credentials that were finished by then stay changed.
    """

    database: Database
    seconds: float
    caller: Callable[[str], Caller]

    def apply(self, events: Iterable[TrailEvent]) -> Summary:
        """Apply the events, given oldest first, that the restored trail lacks."""
        events_by_credential: dict[str, list[TrailEvent]] = {}
        for event in events:
            events_by_credential.setdefault(event.secret_id, []).append(event)
        done = Summary()
        for secret_id, its_events in events_by_credential.items():
            with self.database.transaction(self.seconds) as connection:
                self._apply_to(connection, secret_id, its_events, done)
        return done

    def _apply_to(
        self, connection: Connection, secret_id: str, events: list[TrailEvent], done: Summary
    ) -> None:
        unit_id = repository.find_unit(connection, secret_id=secret_id)
        credential = (
            None
            if unit_id is None
            else repository.lock_credential(connection, unit_id=unit_id, secret_id=secret_id)
        )
        if credential is None:
            done.missing += not any(each.event == "revoked" for each in events)
            return
        known = repository.select_event_keys(
            connection, unit_id=credential.unit_id, secret_id=secret_id
        )
        changes = _CredentialChanges(connection, self.caller(credential.unit_id), credential, done)
        changes.apply([each for each in events if each.key not in known])


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

    def _disable(self, events: list[TrailEvent]) -> None:
        changes = [each for each in events if each.event in {"disabled", "enabled"}]
        if not (changes and changes[-1].event == "disabled" and self.credential.enabled):
            return
        with_unit = changes[-1].detail.get("all") is True
        self._update(replace(self.credential, enabled=False, disabled_with_unit=with_unit))
        self._record("disabled", changes[-1], **({"all": True} if with_unit else {}))
        self.done.disabled += 1

    def _distrust(self, events: list[TrailEvent]) -> None:
        field = "trust_upstream_consent"
        changes = [each for each in events if each.event == "updated" and field in each.detail]
        if not changes or not self.credential.trust_upstream_consent:
            return
        if changes[-1].detail[field] != {"from": True, "to": False}:
            return
        self._update(replace(self.credential, trust_upstream_consent=False))
        self._record("updated", changes[-1], **{field: {"from": True, "to": False}})
        self.done.distrusted += 1

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
        reapplied = {
            "event": cause.event,
            "actor": cause.actor,
            "at": format_time(cause.at),
            "request_id": cause.request_id,
        }
        repository.insert_event(
            self.connection,
            self.caller,
            self.credential,
            event,
            detail={**detail, "reapplied": reapplied},
        )


def _end_of(secret: ClientSecret, event: TrailEvent) -> datetime | None:
    """Return when the event ended the client secret, or None if it did not."""
    if event.precedes(secret):
        return None
    if event.event == "rotated":
        overlap = event.detail.get("overlap_seconds")
        return event.at + timedelta(seconds=overlap if isinstance(overlap, int) else 0)
    if event.event == "secret_ended" and event.detail.get("hint") == secret.hint:
        return event.at
    return None
