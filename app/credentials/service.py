"""The contract's verbs: everything that can be done with credentials."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any, TypeVar

from app.bulkheads import Bulkheads
from app.counters import Counter
from app.credentials import repository
from app.credentials.background import SETTLE_SECONDS, BackgroundWriter
from app.credentials.errors import (
    AmbiguousHint,
    ClientSecretNotFound,
    CredentialInUse,
    CredentialLimitReached,
    CredentialNotFound,
    InvalidExpiry,
    LastSecret,
    MalformedPair,
    Refusal,
    RequestInProgress,
    SecretLimitReached,
    VerificationRefused,
)
from app.credentials.generator import (
    generate_client_id,
    generate_client_secret,
    generate_secret_id,
    is_client_id,
    is_client_secret,
)
from app.credentials.hashing import Hasher
from app.credentials.idempotency import IdempotentRequest, ResponseCipher
from app.credentials.model import (
    START_OF_TRAIL,
    Caller,
    ClientSecret,
    Credential,
    CredentialFilter,
    CredentialPosition,
    DetailedCredential,
    Event,
    EventFilter,
    EventName,
    ExpiringSecrets,
    HashedSecret,
    IssuedCredential,
    Item,
    LockedCredential,
    Order,
    Page,
    Position,
    StoredSecret,
    TrailPosition,
    UnitEvent,
    Verification,
)
from app.database.pool import Connection, Database
from app.times import format_time

DEFAULT_OVERLAP_SECONDS = 24 * 60 * 60
MAX_OVERLAP_SECONDS = 30 * 24 * 60 * 60

MIN_UNUSED_SECONDS = 60
MAX_UNUSED_SECONDS = 365 * 24 * 60 * 60

_TEN_YEARS = timedelta(days=3653)  # with three leap days

MAX_LIVE_SECRETS = 2

MAX_ITEMS = 1000  # in one answer, however long the list is

_EVERYTHING = CredentialFilter()
_EVERY_EVENT = EventFilter()

AnyCredential = TypeVar("AnyCredential", bound=Credential)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Manages and verifies credentials.

    Any method may raise DatabaseUnavailable: a change may or may not have been committed then, and
    no client secret has been shown for it. `issue`, `rotate` and `verify` may raise BulkheadFull: the
    process is too busy, and nothing has changed. Methods that take a `secret_id` raise
    CredentialNotFound if the caller's unit has no such credential.
    """

    database: Database
    hasher: Hasher
    writer: BackgroundWriter
    seal: ResponseCipher
    bulkheads: Bulkheads
    max_credentials: int  # of each unit
    max_secret_days: int | None
    events_written: Counter[EventName] = field(default_factory=Counter)

    def issue(
        self,
        caller: Caller,
        *,
        name: str,
        expires_at: datetime | None = None,
        request: IdempotentRequest | None = None,
        before_bcrypt: Callable[[], None] = lambda: None,
    ) -> IssuedCredential:
        """Make a credential for the unit, and return it with its client secret.

        `name` is a result of `parse_name`. `before_bcrypt` is called before the client secret is
        hashed, and may raise. Raises InvalidExpiry, CredentialLimitReached, and for a repeatable
        request RequestInProgress.
        """
        expires_at = self._expiry(expires_at)
        client_secret, secret = self._new_secret(before_bcrypt)
        client_id = generate_client_id()
        with self._transaction() as connection:
            self._begin(connection, request)
            repository.lock_unit(connection, unit_id=caller.unit_id)
            credential = repository.insert_credential(
                connection,
                caller,
                secret_id=generate_secret_id(),
                client_id=client_id,
                name=name,
                secret=secret,
                expires_at=expires_at,
                detail={"client_id": client_id, "name": name, **_expiry_detail(expires_at)},
                max_credentials=self.max_credentials,
            )
            if credential is None:
                raise CredentialLimitReached
            issued = IssuedCredential.of(credential, client_secret)
            self._store_response(connection, request, issued)
        self.events_written.add("issued")
        return issued

    def find_answer(self, request: IdempotentRequest) -> IssuedCredential | None:
        """Return the earlier answer to the same request, or None if it is not stored.

        It is stored for a day, or until its client secret is first used or ends. Raises
        ResponseErased after that, until the day is over, and IdempotencyKeyReused if the key belongs
        to a different request.
        """
        with self._connection() as connection:
            answer = repository.find_stored_response(
                connection, key_hashes=self.seal.key_hashes(request)
            )
        return None if answer is None else self.seal.open(request, answer)

    def list(
        self,
        caller: Caller,
        *,
        only: CredentialFilter = _EVERYTHING,
        limit: int = MAX_ITEMS,
        after: CredentialPosition | None = None,
    ) -> Page[Credential, CredentialPosition]:
        """Return the unit's credentials after `after`, newest first, and at most `limit`."""
        with self._connection() as connection:
            credentials = repository.select_credentials(
                connection, unit_id=caller.unit_id, only=only, limit=limit + 1, after=after
            )
        return _page(
            credentials, limit, lambda each: CredentialPosition(each.created_at, each.secret_id)
        )

    def get(self, caller: Caller, secret_id: str) -> DetailedCredential:
        """Return the credential with its live client secrets, if it has any."""
        with self._connection() as connection:
            return _read_detailed(connection, unit_id=caller.unit_id, secret_id=secret_id)

    def whois(self, client_id: str) -> DetailedCredential:
        """Return the credential of the client ID, in any unit: for operators.

        Raises CredentialNotFound.
        """
        with self._connection() as connection:
            owner = repository.find_owner(connection, client_id=client_id)
            if owner is None:
                raise CredentialNotFound
            unit_id, secret_id = owner
            return _read_detailed(connection, unit_id=unit_id, secret_id=secret_id)

    def update(
        self,
        caller: Caller,
        secret_id: str,
        *,
        trust_upstream_consent: bool | None = None,
        name: str | None = None,
        enabled: bool | None = None,
    ) -> None:
        """Change the arguments that are not None: consent flag, name, and whether it is enabled.

        Values that are already set count as no change and leave no event.
        """
        with self._transaction() as connection:
            current = _lock(connection, caller, secret_id)
            updated = replace(
                current,
                trust_upstream_consent=_new_value(
                    current.trust_upstream_consent, trust_upstream_consent
                ),
                name=_new_value(current.name, name),
                enabled=_new_value(current.enabled, enabled),
                # disabled or enabled on its own, it no longer follows `enable_all`
                disabled_with_unit=current.disabled_with_unit and enabled is None,
            )
            if updated == current:
                return
            _delete_all_but(connection, current, keep=_live_secrets(connection, current))
            repository.update_credential(connection, updated)
            events = _events_of(current, updated)
            for event, detail in events.items():
                repository.insert_event(connection, caller, updated, event, detail=detail)
        for event in events:
            self.events_written.add(event)

    def rotate(  # noqa: PLR0913  each but the last is a part of the request
        self,
        caller: Caller,
        secret_id: str,
        *,
        overlap_seconds: int,
        expires_at: datetime | None = None,
        request: IdempotentRequest | None = None,
        before_bcrypt: Callable[[], None] = lambda: None,
    ) -> IssuedCredential:
        """Make and return a new client secret; the previous one works until the overlap ends.

        Without an overlap, all previous ones end immediately. `before_bcrypt` is as in `issue`.
        Raises InvalidExpiry, SecretLimitReached if there is an overlap and two are already live,
        and for a repeatable request RequestInProgress.
        """
        expires_at = self._expiry(expires_at)
        client_secret, secret = self._new_secret(before_bcrypt)
        with self._transaction() as connection:
            self._begin(connection, request)
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
            self._store_response(connection, request, issued)
        self.events_written.add("rotated")
        return issued

    def end_secret(self, caller: Caller, secret_id: str, hint: str) -> None:
        """End one of the credential's live client secrets on every instance.

        Raises ClientSecretNotFound, LastSecret if it is the only one, or AmbiguousHint.
        """
        with self._transaction() as connection:
            credential = _lock(connection, caller, secret_id)
            secrets = _live_secrets(connection, credential)
            others = [each for each in secrets if each.hint != hint]
            ending = len(secrets) - len(others)
            if ending == 0:
                raise ClientSecretNotFound
            if ending > 1:
                raise AmbiguousHint
            if not others:
                raise LastSecret
            _delete_all_but(connection, credential, keep=others)
            repository.insert_event(
                connection, caller, credential, "secret_ended", detail={"hint": hint}
            )
        self.events_written.add("secret_ended")

    def revoke(self, caller: Caller, secret_id: str, *, unused_for: int | None = None) -> None:
        """End the credential and its client secrets on every instance. Its trail stays.

        Raises CredentialInUse if it may have been used in the last `unused_for` seconds. This takes
        a moment longer, so that other processes can record their latest uses.
        """
        if unused_for is not None:
            sleep(SETTLE_SECONDS)
        with self._transaction() as connection:
            credential = _lock(connection, caller, secret_id)
            if unused_for is not None:
                # those of this process count even if they cannot be recorded now
                repository.update_last_use(connection, self.writer.uses_of(secret_id))
                last_used_at = repository.find_last_use(
                    connection,
                    unit_id=caller.unit_id,
                    secret_id=secret_id,
                    within_seconds=unused_for + repository.LAST_USE_SECONDS,
                )
                if last_used_at is not None:
                    raise CredentialInUse(last_used_at)
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

    def verify(
        self, *, client_id: str, client_secret: str, before_bcrypt: Callable[[], None]
    ) -> Verification:
        """Return the credential that the pair belongs to, as stored at this moment.

        Raises VerificationRefused for an unknown, wrong, expired, disabled or revoked pair, and its
        subclass MalformedPair if the pair does not have the format of one. Where bcrypt has to
        decide, `before_bcrypt` is called first: it may raise, so that guesses do not cost bcrypt.
        """
        if not (is_client_id(client_id) and is_client_secret(client_secret)):
            raise MalformedPair
        work = self.bulkheads.verification
        with work.bulkhead:
            stored_secrets = repository.select_stored_secrets(
                self.database, client_id=client_id, seconds=work.seconds
            )
        reason: Refusal = "wrong" if stored_secrets else "unknown"
        for stored in stored_secrets:
            if stored.refusal is not None:
                if self.hasher.matches_digest(client_secret, stored):
                    reason = stored.refusal
            elif self._matches(client_secret, stored, before_bcrypt):
                if stored.last_used_is_stale:
                    self.writer.record_use(stored.client_secret_id, stored.credential.secret_id)
                return Verification(stored.credential, stored.expires_at)
        raise VerificationRefused(reason)

    def count_expiring_secrets(self) -> ExpiringSecrets:
        """Count the client secrets, in all units, that expire soon and have no successor.

        It may take three seconds. Raises BulkheadFull if background work is stuck.
        """
        with self.database.connection_for(self.bulkheads.background) as connection:
            return repository.count_expiring_secrets(connection)

    def events(
        self, caller: Caller, secret_id: str, *, limit: int = MAX_ITEMS, before: int | None = None
    ) -> Page[Event, int]:
        """Return the trail of a credential, live or revoked, newest first.

        At most `limit` events, older than the event `before`.
        """
        with self._connection() as connection:
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
        is always a next page. A client that keeps asking for it never misses an event.
        """
        with self._connection() as connection:
            events = repository.select_unit_events(
                connection,
                unit_id=caller.unit_id,
                only=only,
                order=order,
                limit=limit + 1,
                after=after,
            )
        page = _page(events, limit, lambda each: each.position)
        if order == "asc" and page.next is None:
            return replace(page, next=events[-1].position if events else after or START_OF_TRAIL)
        return page

    def _expiry(self, requested: datetime | None) -> datetime | None:
        """Return when a new client secret expires, or None for never. Raises InvalidExpiry."""
        now = datetime.now(UTC)
        days = self.max_secret_days
        latest = now + (_TEN_YEARS if days is None else timedelta(days=days))
        if requested is None:
            return None if days is None else latest.replace(microsecond=0)
        if not now < requested <= latest:
            raise InvalidExpiry("10 years" if days is None else f"{days} days")
        return requested

    def _begin(self, connection: Connection, request: IdempotentRequest | None) -> None:
        """Let a repeatable request make its change only once. Raises RequestInProgress."""
        if request is None:
            return
        if not repository.try_lock_request(connection, lock_id=request.lock_id):
            raise RequestInProgress
        key_hashes = self.seal.key_hashes(request)
        if repository.find_stored_response(connection, key_hashes=key_hashes):
            raise RequestInProgress  # it has just ended; a later attempt gets its answer

    def _store_response(
        self, connection: Connection, request: IdempotentRequest | None, issued: IssuedCredential
    ) -> None:
        if request is not None:
            answer = self.seal.seal(request, issued)
            repository.insert_stored_response(connection, answer, secret_id=issued.secret_id)

    def _change_unit(self, caller: Caller, event: repository.UnitChange) -> int:
        with self._transaction() as connection:
            repository.lock_unit(connection, unit_id=caller.unit_id)
            changed = repository.change_unit(connection, caller, event)
        self.events_written.add(event, changed)
        return changed

    def _new_secret(self, before_bcrypt: Callable[[], None]) -> tuple[str, HashedSecret]:
        """Generate a client secret and hash it, before any connection is held."""
        self.database.raise_if_down()  # fail before the slow hash
        before_bcrypt()
        client_secret = generate_client_secret()
        return client_secret, self.hasher.hash(client_secret)

    def _matches(
        self, client_secret: str, stored: StoredSecret, before_bcrypt: Callable[[], None]
    ) -> bool:
        """Compare digests if one of our keys made the stored one; otherwise compare by bcrypt."""
        matches = self.hasher.matches_digest(client_secret, stored)
        if matches is None:
            before_bcrypt()
            return self._matches_hash(client_secret, stored)
        if matches and not self.hasher.is_current(stored):
            digest = self.hasher.digest(client_secret)
            self.writer.renew_digest(stored.client_secret_id, digest)
        return matches

    def _matches_hash(self, client_secret: str, stored: StoredSecret) -> bool:
        """Compare by bcrypt. If it matches, store a digest by the current key."""
        if not self.hasher.matches_hash(client_secret, stored):
            return False
        digest = self.hasher.digest(client_secret)
        with self.database.connection_for(self.bulkheads.verification) as connection:
            # False if the client secret has ended while bcrypt was comparing
            return repository.update_digest(
                connection, client_secret_id=stored.client_secret_id, digest=digest
            )

    def _connection(self) -> AbstractContextManager[Connection]:
        return self.database.connection(self.bulkheads.management.seconds)

    def _transaction(self) -> AbstractContextManager[Connection]:
        return self.database.transaction(self.bulkheads.management.seconds)


def _or_not_found(credential: AnyCredential | None) -> AnyCredential:
    if credential is None:
        raise CredentialNotFound
    return credential


def _new_value(current: Value, requested: Value | None) -> Value:
    return current if requested is None else requested


def _lock(connection: Connection, caller: Caller, secret_id: str) -> LockedCredential:
    """Return the unit's credential, locked. Raises CredentialNotFound."""
    return _or_not_found(
        repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
    )


def _read_detailed(connection: Connection, *, unit_id: str, secret_id: str) -> DetailedCredential:
    # in this order, a credential that is revoked between the two reads is not found
    secrets = repository.select_client_secrets(connection, unit_id=unit_id, secret_id=secret_id)
    credential = repository.find_credential(connection, unit_id=unit_id, secret_id=secret_id)
    return replace(_or_not_found(credential), secrets=secrets)


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
    detail = _changes(current, updated)
    if detail:
        events["updated"] = detail
    if _availability(updated) != _availability(current):
        events["enabled" if updated.enabled else "disabled"] = {}
    return events


def _changes(current: LockedCredential, updated: LockedCredential) -> dict[str, Any]:
    """Return the old and new value of each changed field, as the detail of an event."""
    fields = ("name", "trust_upstream_consent")
    values = {each: (getattr(current, each), getattr(updated, each)) for each in fields}
    return {
        each: {"from": before, "to": after}
        for each, (before, after) in values.items()
        if before != after
    }


def _availability(credential: LockedCredential) -> tuple[bool, bool]:
    return credential.enabled, credential.disabled_with_unit


def _expiry_detail(expires_at: datetime | None) -> dict[str, str]:
    """Return the part of an event's detail that says when a new client secret expires."""
    return {} if expires_at is None else {"expires_at": format_time(expires_at)}


def _page(
    rows: list[Item], limit: int, place_of: Callable[[Item], Position]
) -> Page[Item, Position]:
    """Return the first `limit` rows as a page. A further row means that there is a next page."""
    if len(rows) <= limit:
        return Page(items=rows, next=None)
    return Page(items=rows[:limit], next=place_of(rows[limit - 1]))
