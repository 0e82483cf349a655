"""The contract's verbs but one: everything that managers and operators do with credentials."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar

from app.bulkheads import BulkheadFull, Bulkheads
from app.counters import Counter
from app.credentials import repository
from app.credentials.background import BackgroundWriter
from app.credentials.errors import (
    AmbiguousHint,
    ClientSecretNotFound,
    CredentialInUse,
    CredentialLimitReached,
    CredentialNotFound,
    HistoryLost,
    InvalidExpiry,
    LastSecret,
    SecretLimitReached,
    TooManyChanges,
    TooManyIssues,
)
from app.credentials.generator import (
    generate_client_id,
    generate_client_secret,
    generate_secret_id,
)
from app.credentials.hashing import Hasher
from app.credentials.idempotency import Idempotency, IdempotentRequest
from app.credentials.model import (
    MAX_LIVE_SECRETS,
    START_OF_TRAIL,
    UNSET,
    UPDATED_FIELDS,
    Caller,
    ClientSecret,
    Credential,
    CredentialChanges,
    CredentialFilter,
    CredentialPosition,
    DetailedCredential,
    Event,
    EventFilter,
    EventName,
    ExpiringSecrets,
    FinishedRotation,
    HashedSecret,
    IssuedCredential,
    Item,
    LockedCredential,
    Order,
    Page,
    Position,
    ReplayedCredential,
    Restriction,
    TrailPosition,
    UnitEvent,
    Unset,
)
from app.credentials.restrictions import check_scopes, parse_addresses
from app.database.pool import Connection, Database
from app.rate_limits import RateLimit
from app.times import format_time

_TEN_YEARS = timedelta(days=3653)  # with three leap days

# For a change to all credentials of a unit, which may be a million. Only operators make it.
UNIT_CHANGE_SECONDS = 300.0

_MIN_DATABASE_SECONDS = 0.2  # with less, a caller would look like a slow database

MAX_ITEMS = 1000  # in one response, however long the list is

_EVERYTHING = CredentialFilter()
_EVERY_EVENT = EventFilter()

AnyCredential = TypeVar("AnyCredential", bound=Credential)


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Manages credentials.

    Any method may raise DatabaseUnavailable: a change may or may not have been committed then, and
    no client secret has been shown for it. Methods that take a `secret_id` raise CredentialNotFound
    if the caller's unit has no such credential.

    `issue` and `rotate` may raise BulkheadFull: the process is too busy, and nothing has changed.
    They raise InvalidExpiry, TooManyIssues, and with an idempotency key what
    `Idempotency.find_response` and `Idempotency.begin` raise.
    """

    database: Database
    hasher: Hasher
    writer: BackgroundWriter
    idempotency: Idempotency
    bulkheads: Bulkheads
    issue_limit: RateLimit  # by unit, as the next one
    change_limit: RateLimit
    max_credentials: int  # of each unit
    max_secret_days: int | None
    scopes: frozenset[str]  # that credentials may have; none if there are no scopes
    default_scopes: Restriction  # of new credentials
    events_written: Counter[EventName] = field(default_factory=Counter)

    def issue(  # noqa: PLR0913  each is a part of the new credential
        self,
        caller: Caller,
        *,
        name: str,
        expires_at: datetime | None = None,
        scopes: Restriction | Unset = UNSET,
        addresses: Restriction = None,
        idempotency_key: str | None = None,
    ) -> IssuedCredential:
        """Make a credential for the unit, and return it with its client secret.

        `name` is a result of `parse_name`. Without `scopes`, the credential gets the default ones.
        Raises InvalidRestriction and CredentialLimitReached.
        """
        request = IdempotentRequest.of(
            caller,
            idempotency_key,
            "issue",
            name=name,
            expires_at=expires_at,
            # a list, because None would count as left out
            scopes=None if scopes is UNSET else [scopes],
            addresses=addresses,
        )
        replayed = self._find_response(request)
        if replayed is not None:
            return replayed
        scopes = self.default_scopes if scopes is UNSET else self._checked_scopes(scopes)
        addresses = None if addresses is None else parse_addresses(addresses)
        expires_at = self._expiry(caller, expires_at)
        client_secret, secret = self._new_secret(caller)
        client_id = generate_client_id()
        with self._transaction(caller) as connection:
            self.idempotency.begin(connection, request)
            repository.lock_unit_shared(connection, unit_id=caller.unit_id)
            repository.lock_quota(connection, unit_id=caller.unit_id)
            credential = repository.insert_credential(
                connection,
                caller,
                secret_id=generate_secret_id(),
                client_id=client_id,
                name=name,
                secret=secret,
                expires_at=expires_at,
                scopes=scopes,
                addresses=addresses,
                detail={
                    "client_id": client_id,
                    "name": name,
                    **_expiry_detail(expires_at),
                    **_restrictions_detail(scopes, addresses),
                },
                max_credentials=self.max_credentials,
            )
            if credential is None:
                raise CredentialLimitReached
            issued = IssuedCredential.of(credential, client_secret)
            self.idempotency.store_response(connection, request, issued)
        self.events_written.add("issued")
        return issued

    def list(
        self,
        caller: Caller,
        *,
        only: CredentialFilter = _EVERYTHING,
        limit: int = MAX_ITEMS,
        after: CredentialPosition | None = None,
    ) -> Page[Credential, CredentialPosition]:
        """Return the unit's credentials after `after`, newest first, and at most `limit`."""
        with self._connection(caller) as connection:
            credentials = repository.select_credentials(
                connection, unit_id=caller.unit_id, only=only, limit=limit + 1, after=after
            )
        return _page(credentials, limit, _position_of)

    def list_detailed(
        self,
        caller: Caller,
        *,
        only: CredentialFilter = _EVERYTHING,
        limit: int = MAX_ITEMS,
        after: CredentialPosition | None = None,
    ) -> Page[DetailedCredential, CredentialPosition]:
        """Return what `list` returns, each credential as `get` does."""
        with self._connection(caller) as connection:
            credentials = repository.select_detailed_credentials(
                connection, unit_id=caller.unit_id, only=only, limit=limit + 1, after=after
            )
        return _page(credentials, limit, _position_of)

    def count(self, caller: Caller, *, enabled: bool | None = None) -> int:
        """Count the unit's credentials, or only those that are enabled or not."""
        with self._connection(caller) as connection:
            return repository.count_credentials(connection, unit_id=caller.unit_id, enabled=enabled)

    def get(self, caller: Caller, secret_id: str) -> DetailedCredential:
        """Return the credential with its live client secrets, if it has any."""
        with self._connection(caller) as connection:
            return _or_not_found(
                repository.find_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )

    def whois(self, client_id: str) -> DetailedCredential:
        """Return the credential of the client ID, in any unit: for operators.

        Raises CredentialNotFound.
        """
        with self.database.confirmed(self.bulkheads.management.seconds) as connection:
            owner = repository.find_owner(connection, client_id=client_id)
            if owner is None:
                raise CredentialNotFound
            unit_id, secret_id = owner
            return _or_not_found(
                repository.find_credential(connection, unit_id=unit_id, secret_id=secret_id)
            )

    def update(self, caller: Caller, secret_id: str, changes: CredentialChanges) -> None:
        """Make the changes. Values that are already set count as no change and leave no event.

        Raises InvalidRestriction, and TooManyChanges, but not if it disables the credential.
        """
        changes = self._checked(changes)
        retry_after = self.change_limit.count(caller.unit_id)
        if retry_after is not None and changes.enabled is not False:
            raise TooManyChanges(retry_after)
        with self._transaction(caller) as connection:
            current = _lock(connection, caller, secret_id)
            updated = changes.applied_to(current)
            if updated == current:
                return
            if retry_after is not None and _availability(updated) == _availability(current):
                raise TooManyChanges(retry_after)
            _delete_all_but(connection, current, keep=_live_secrets(connection, current))
            repository.update_credential(connection, updated)
            events = _events_of(current, updated)
            for event, detail in events.items():
                repository.insert_event(connection, caller, updated, event, detail=detail)
        for event in events:
            self.events_written.add(event)

    def rotate(
        self,
        caller: Caller,
        secret_id: str,
        *,
        overlap_seconds: int,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> IssuedCredential:
        """Make and return a new client secret; the previous one works until the overlap ends.

        Without an overlap, all previous ones end immediately. Raises SecretLimitReached if there is
        an overlap and two are already live.
        """
        request = IdempotentRequest.of(
            caller,
            idempotency_key,
            "rotate",
            secret_id=secret_id,
            overlap_seconds=overlap_seconds,
            expires_at=expires_at,
        )
        replayed = self._find_response(request)
        if replayed is not None:
            return replayed
        expires_at = self._expiry(caller, expires_at)
        client_secret, secret = self._new_secret(caller)
        with self._transaction(caller) as connection:
            self.idempotency.begin(connection, request)
            credential = _lock(connection, caller, secret_id)
            previous = _live_secrets(connection, credential) if overlap_seconds else []
            if len(previous) >= MAX_LIVE_SECRETS:
                raise SecretLimitReached
            _delete_all_but(connection, credential, keep=previous)
            repository.expire_client_secrets(
                connection,
                unit_id=caller.unit_id,
                secret_id=secret_id,
                overlap_seconds=overlap_seconds,
            )
            repository.insert_client_secret(
                connection, secret_id=secret_id, secret=secret, expires_at=expires_at
            )
            detail = {"overlap_seconds": overlap_seconds, **_expiry_detail(expires_at)}
            repository.insert_event(connection, caller, credential, "rotated", detail=detail)
            issued = IssuedCredential.of(credential, client_secret)
            self.idempotency.store_response(connection, request, issued)
        self.events_written.add("rotated")
        return issued

    def end_secret(
        self,
        caller: Caller,
        secret_id: str,
        hint: str,
        *,
        unused_for: int | None = None,
        while_waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """End one of the credential's live client secrets on every instance.

        Raises ClientSecretNotFound, LastSecret if it is the only one, or AmbiguousHint. With
        `unused_for`, raises CredentialInUse if the client secret was used in the last `unused_for`
        seconds or is no older, and everything else as `revoke`.
        """
        self._end_secret(
            caller,
            secret_id,
            lambda each: each.hint == hint,
            unused_for=unused_for,
            while_waiting=while_waiting,
        )

    def finished_rotations(self, caller: Caller, *, unused_for: int) -> Sequence[FinishedRotation]:
        """Return the unit's client secrets that `finish_rotation` would end now."""
        with self._connection(caller) as connection:
            return repository.select_finished_rotations(
                connection, unit_id=caller.unit_id, unused_seconds=unused_for
            )

    def finish_rotation(
        self, caller: Caller, rotation: FinishedRotation, *, unused_for: int
    ) -> bool:
        """End the client secret, and return whether that could be done.

        It is not if the client secret has been used since, or has already ended.
        """
        try:
            self._end_secret(
                caller,
                rotation.secret_id,
                lambda each: each.client_secret_id == rotation.client_secret_id,
                unused_for=unused_for,
            )
        except (CredentialInUse, ClientSecretNotFound, CredentialNotFound, LastSecret):
            return False
        return True

    def _end_secret(
        self,
        caller: Caller,
        secret_id: str,
        is_meant: Callable[[ClientSecret], bool],
        *,
        unused_for: int | None,
        while_waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        if unused_for is not None:
            self._await_uses(caller, secret_id, while_waiting)
        with self._transaction(caller) as connection:
            credential = _lock(connection, caller, secret_id)
            secrets = _live_secrets(connection, credential)
            ending = [each for each in secrets if is_meant(each)]
            if not ending:
                raise ClientSecretNotFound
            if len(ending) > 1:
                raise AmbiguousHint
            if ending == secrets:
                raise LastSecret
            [ended] = ending
            if unused_for is not None:
                _require_unused(
                    connection,
                    credential,
                    unused_for,
                    client_secret_id=ended.client_secret_id,
                    seconds_ago=self.writer.seconds_since_use_of(ended.client_secret_id),
                )
            _delete_all_but(
                connection, credential, keep=[each for each in secrets if each != ended]
            )
            repository.insert_event(
                connection, caller, credential, "secret_ended", detail={"hint": ended.hint}
            )
        self.events_written.add("secret_ended")

    def revoke(
        self,
        caller: Caller,
        secret_id: str,
        *,
        unused_for: int | None = None,
        while_waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """End the credential and its client secrets on every instance. Its trail stays.

        Raises CredentialInUse if it was used in the last `unused_for` seconds, or has a client
        secret that is no older. This takes a moment longer, because all other processes record
        their latest uses first: it enters `while_waiting` meanwhile. Raises LastUseUnknown if one
        of them does not, and TooManyChanges. Without `unused_for`, nothing limits it.
        """
        if unused_for is not None:
            self._await_uses(caller, secret_id, while_waiting)
        with self._transaction(caller) as connection:
            credential = _lock(connection, caller, secret_id)
            if unused_for is not None:
                _require_unused(
                    connection,
                    credential,
                    unused_for,
                    seconds_ago=self.writer.seconds_since_use(secret_id),
                )
            repository.delete_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            repository.insert_event(connection, caller, credential, "revoked", detail={})
        self.events_written.add("revoked")

    def disable_all(self, caller: Caller) -> int:
        """Disable all enabled credentials of the unit. Return how many."""
        return self._change_unit(caller, "disabled")

    def enable_all(self, caller: Caller) -> int:
        """Enable the credentials that `disable_all` disabled. Return how many."""
        return self._change_unit(caller, "enabled")

    def revoke_all(self, caller: Caller) -> int:
        """Revoke all credentials of the unit. Return how many."""
        return self._change_unit(caller, "revoked")

    def count_expiring_secrets(self) -> ExpiringSecrets:
        """Count the client secrets, in all units, that expire soon and have no successor.

        It may take three seconds. Raises BulkheadFull if an earlier count has not ended.
        """
        with self.database.connection_for(self.bulkheads.counting) as connection:
            return repository.count_expiring_secrets(connection)

    def count_unrestricted(self) -> int:
        """Count the credentials, in all units, without scopes, as `count_expiring_secrets` does."""
        with self.database.connection_for(self.bulkheads.counting) as connection:
            return repository.count_unrestricted(connection)

    def events(
        self, caller: Caller, secret_id: str, *, limit: int = MAX_ITEMS, before: int | None = None
    ) -> Page[Event, int]:
        """Return the trail of a credential, live or revoked, newest first.

        At most `limit` events, older than the event `before`.
        """
        with self._connection(caller) as connection:
            events = repository.select_events(
                connection,
                unit_id=caller.unit_id,
                secret_id=secret_id,
                limit=limit + 1,
                before=before,
            )
        if not events:
            raise CredentialNotFound  # every credential has been issued
        return _page(events, limit, lambda each: each.event_id)

    def unit_events(
        self,
        caller: Caller,
        *,
        only: EventFilter = _EVERY_EVENT,
        order: Order = "desc",
        limit: int = MAX_ITEMS,
        after: TrailPosition | None = None,
    ) -> Page[UnitEvent, TrailPosition]:
        """Return at most `limit` events of the whole unit's trail, starting after `after`.

        In ascending order, an event is shown only once no earlier one can still be added, and there
        is always a next page. A client that keeps asking for it never misses an event. Raises
        HistoryLost if events up to `after` were lost in a failover or a restore.
        """
        with self._connection(caller) as connection:
            if order == "asc" and after is not None:
                after = _surviving(connection, caller, after)
            window = repository.find_trail_window(
                connection, unit_id=caller.unit_id, since=only.since, until=only.until
            )
            events = repository.select_unit_events(
                connection,
                unit_id=caller.unit_id,
                only=only,
                order=order,
                limit=limit + 1,
                after=after,
                window=window,
            )
        page = _page(events, limit, lambda each: each.position)
        if order == "asc" and page.next is None:
            # not only after the last event that passed the filter: nobody looks at these again
            newest, before = window.newest or START_OF_TRAIL, after or START_OF_TRAIL
            return replace(page, next=max(newest, before))
        return page

    def _checked(self, changes: CredentialChanges) -> CredentialChanges:
        """Return the changes with restrictions in canonical form. Raises InvalidRestriction."""
        if changes.scopes is not UNSET:
            changes = replace(changes, scopes=self._checked_scopes(changes.scopes))
        if changes.addresses is not UNSET and changes.addresses is not None:
            changes = replace(changes, addresses=parse_addresses(changes.addresses))
        return changes

    def _checked_scopes(self, scopes: Restriction) -> Restriction:
        """Return the scopes in order. Raises InvalidRestriction, also for None without SCOPES."""
        checked = check_scopes(scopes or [], self.scopes)
        return None if scopes is None else checked

    def _expiry(self, caller: Caller, requested: datetime | None) -> datetime | None:
        """Return when a new client secret expires, or None for never. Raises InvalidExpiry."""
        days = self.max_secret_days
        if requested is None and days is None:
            return None
        with self.database.connection(self._seconds(caller)) as connection:
            now = repository.find_time(connection)
        latest = now + (_TEN_YEARS if days is None else timedelta(days=days))
        if requested is None:
            return latest.replace(microsecond=0)
        if not now < requested <= latest:
            raise InvalidExpiry("10 years" if days is None else f"{days} days")
        return requested

    def _await_uses(
        self,
        caller: Caller,
        secret_id: str,
        while_waiting: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Wait until all processes have recorded the uses that they have answered so far."""
        retry_after = self.change_limit.count(caller.unit_id)
        if retry_after is not None:
            raise TooManyChanges(retry_after)
        self.get(caller, secret_id)
        self.writer.await_others(
            lambda: self.database.connection(self._seconds(caller)), while_waiting
        )

    def _change_unit(self, caller: Caller, event: repository.UnitChange) -> int:
        with self.database.transaction(UNIT_CHANGE_SECONDS) as connection:
            repository.lock_unit(connection, unit_id=caller.unit_id)
            changed = repository.change_unit(connection, caller, event)
            repository.delete_expired_secrets_of(
                connection, unit_id=caller.unit_id, secret_ids=changed
            )
        self.events_written.add(event, len(changed))
        return len(changed)

    def _find_response(self, request: IdempotentRequest | None) -> ReplayedCredential | None:
        if request is None:
            return None
        with self._connection(request.caller) as connection:
            return self.idempotency.find_response(connection, request)

    def _new_secret(self, caller: Caller) -> tuple[str, HashedSecret]:
        """Generate a client secret and hash it, before any connection is held."""
        self.database.raise_if_down()  # fail before the slow hash
        retry_after = self.issue_limit.count(caller.unit_id)
        if retry_after is not None:
            raise TooManyIssues(retry_after)
        client_secret = generate_client_secret()
        return client_secret, self.hasher.hash(client_secret)

    def _connection(self, caller: Caller) -> AbstractContextManager[Connection]:
        return self.database.confirmed(self._seconds(caller))

    def _transaction(self, caller: Caller) -> AbstractContextManager[Connection]:
        return self.database.transaction(self._seconds(caller))

    def _seconds(self, caller: Caller) -> float:
        """Return for how long the caller may use the database. Raises BulkheadFull if too short."""
        left = caller.deadline - monotonic()
        if left < _MIN_DATABASE_SECONDS:
            raise BulkheadFull
        return min(self.bulkheads.management.seconds, left)


def _or_not_found(credential: AnyCredential | None) -> AnyCredential:
    if credential is None:
        raise CredentialNotFound
    return credential


def _lock(connection: Connection, caller: Caller, secret_id: str) -> LockedCredential:
    """Return the unit's credential, locked. Raises CredentialNotFound.

    It comes before everything that the transaction changes (see `repository.lock_unit`).
    """
    repository.lock_unit_shared(connection, unit_id=caller.unit_id)
    return _or_not_found(
        repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
    )


def _require_unused(
    connection: Connection,
    credential: LockedCredential,
    unused_for: int,
    *,
    client_secret_id: int | None = None,
    seconds_ago: float | None,
) -> None:
    """Raise CredentialInUse unless the credential, or its one client secret, is unused for long."""
    recent = repository.find_recent_use(
        connection,
        unit_id=credential.unit_id,
        secret_id=credential.secret_id,
        client_secret_id=client_secret_id,
        within_seconds=unused_for,
        seconds_ago=seconds_ago,
    )
    if recent.last_used_at is not None or recent.has_new_secret:
        raise CredentialInUse(recent.last_used_at)


def _surviving(connection: Connection, caller: Caller, position: TrailPosition) -> TrailPosition:
    """Return the position in the trail as it is now. Raises HistoryLost."""
    survival = repository.find_survival(connection, unit_id=caller.unit_id, position=position)
    if survival.is_first:
        return START_OF_TRAIL._replace(event_id=position.event_id)
    if not (survival.has_history and survival.has_event):
        raise HistoryLost(has_history=survival.has_history)
    return position


def _live_secrets(connection: Connection, credential: LockedCredential) -> list[ClientSecret]:
    return repository.select_client_secrets(
        connection, unit_id=credential.unit_id, secret_id=credential.secret_id
    )


def _delete_all_but(
    connection: Connection, credential: LockedCredential, *, keep: list[ClientSecret]
) -> None:
    repository.delete_client_secrets(
        connection, unit_id=credential.unit_id, secret_id=credential.secret_id, keep=keep
    )


def _events_of(
    current: LockedCredential, updated: LockedCredential
) -> dict[EventName, dict[str, Any]]:
    """Return the events of an update, each with its detail."""
    events: dict[EventName, dict[str, Any]] = {}
    values = {each: (getattr(current, each), getattr(updated, each)) for each in UPDATED_FIELDS}
    detail = {
        each: {"from": before, "to": after}
        for each, (before, after) in values.items()
        if before != after
    }
    if detail:
        events["updated"] = detail
    if _availability(updated) != _availability(current):
        events["enabled" if updated.enabled else "disabled"] = {}
    return events


def _availability(credential: LockedCredential) -> tuple[bool, bool]:
    return credential.enabled, credential.disabled_with_unit


def _expiry_detail(expires_at: datetime | None) -> dict[str, str]:
    """Return the part of an event's detail that says when a new client secret expires."""
    return {} if expires_at is None else {"expires_at": format_time(expires_at)}


def _restrictions_detail(scopes: Restriction, addresses: Restriction) -> dict[str, list[str]]:
    """Return the part of an event's detail that says what a new credential is restricted to."""
    restrictions = {"scopes": scopes, "addresses": addresses}
    return {name: values for name, values in restrictions.items() if values is not None}


def _position_of(credential: Credential) -> CredentialPosition:
    return CredentialPosition(credential.created_at, credential.secret_id)


def _page(
    rows: list[Item], limit: int, place_of: Callable[[Item], Position]
) -> Page[Item, Position]:
    """Return the first `limit` rows as a page. A further row means that there is a next page."""
    if len(rows) <= limit:
        return Page(items=rows, next=None)
    return Page(items=rows[:limit], next=place_of(rows[limit - 1]))
