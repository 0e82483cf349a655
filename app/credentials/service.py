"""What can be done with credentials: the contract's verbs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from app.credentials import repository
from app.credentials.deferred import DeferredWrites
from app.credentials.errors import (
    CredentialLimitReached,
    CredentialNotFound,
    MalformedPair,
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
from app.credentials.model import (
    Caller,
    Credential,
    DetailedCredential,
    Event,
    HashedSecret,
    IssuedCredential,
    Item,
    Page,
    Place,
    Position,
    StoredSecret,
    VerifiedCredential,
)
from app.database.pool import Connection, Database
from app.places import Workload

DEFAULT_OVERLAP_SECONDS = 24 * 60 * 60
MAX_OVERLAP_SECONDS = 30 * 24 * 60 * 60

_MAX_LIVE_SECRETS = 2

MAX_ITEMS = 1000  # in one answer, however long the list is

AnyCredential = TypeVar("AnyCredential", bound=Credential)


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Issues, lists, updates, rotates, revokes and verifies credentials.

    Any method may raise DatabaseUnavailable: a change may or may not have been committed then, and
    no client secret has been shown for it. `issue`, `rotate` and `verify` may raise NoPlace: the
    process is too busy, and nothing has changed. Methods that take a `secret_id` raise
    CredentialNotFound if the caller's unit has no such credential.
    """

    database: Database
    hasher: Hasher
    deferred: DeferredWrites
    workload: Workload
    max_credentials: int  # for each unit

    def issue(self, caller: Caller, *, name: str) -> IssuedCredential:
        """Make a credential for the unit, and show its client secret once.

        `name` is what `parse_name` returned. Raises CredentialLimitReached.
        """
        client_secret, secret = self._new_secret()
        with self._transaction() as connection:
            repository.lock_unit(connection, unit_id=caller.unit_id)
            credential = repository.insert_credential(
                connection,
                caller,
                secret_id=generate_secret_id(),
                client_id=generate_client_id(),
                name=name,
                secret=secret,
                max_credentials=self.max_credentials,
            )
        if credential is None:
            raise CredentialLimitReached
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def list(
        self, caller: Caller, *, limit: int = MAX_ITEMS, after: Position | None = None
    ) -> Page[Credential, Position]:
        """Return at most `limit` of the unit's credentials, newest first, from behind `after`."""
        with self._connection() as connection:
            credentials = repository.select_credentials(
                connection, unit_id=caller.unit_id, limit=limit + 1, after=after
            )
        return _page(credentials, limit, lambda each: Position(each.created_at, each.secret_id))

    def get(self, caller: Caller, secret_id: str) -> DetailedCredential:
        """Return the credential with its live client secrets."""
        with self._connection() as connection:
            credential = _or_not_found(
                repository.find_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )
            secrets = repository.select_client_secrets(
                connection, unit_id=caller.unit_id, secret_id=secret_id
            )
        if not secrets:
            raise CredentialNotFound  # revoked between the two statements
        return replace(credential, secrets=secrets)

    def update(
        self,
        caller: Caller,
        secret_id: str,
        *,
        trust_upstream_consent: bool,
        name: str | None = None,
    ) -> None:
        """Change the consent flag, and the name unless it is None.

        Values that are already set count as no change and leave no event.
        """
        with self._transaction() as connection:
            current = _or_not_found(
                repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )
            updated = replace(
                current,
                trust_upstream_consent=trust_upstream_consent,
                name=current.name if name is None else name,
            )
            if updated == current:
                return
            repository.delete_ended_secrets(
                connection, unit_id=caller.unit_id, secret_id=secret_id, keep=_MAX_LIVE_SECRETS
            )
            repository.update_credential(connection, updated)
            repository.insert_event(
                connection, caller, secret_id, "updated", detail=_changes(current, updated)
            )

    def rotate(self, caller: Caller, secret_id: str, *, overlap_seconds: int) -> IssuedCredential:
        """Make and show a new client secret; the previous one works until the overlap ends.

        At most two client secrets are live: during an earlier overlap the oldest ends at once.
        """
        client_secret, secret = self._new_secret()
        with self._transaction() as connection:
            credential = _or_not_found(
                repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )
            repository.delete_ended_secrets(
                connection,
                unit_id=caller.unit_id,
                secret_id=secret_id,
                keep=_MAX_LIVE_SECRETS - 1 if overlap_seconds else 0,
            )
            repository.expire_client_secrets(
                connection,
                unit_id=caller.unit_id,
                secret_id=secret_id,
                overlap_seconds=overlap_seconds,
            )
            repository.insert_client_secret(connection, secret_id=secret_id, secret=secret)
            repository.insert_event(
                connection,
                caller,
                secret_id,
                "rotated",
                detail={"overlap_seconds": overlap_seconds},
            )
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def revoke(self, caller: Caller, secret_id: str) -> None:
        """End the credential and its client secrets on every instance. Its trail stays."""
        with self._transaction() as connection:
            _or_not_found(
                repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )
            repository.delete_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            repository.insert_event(connection, caller, secret_id, "revoked", detail={})

    def verify(
        self, *, client_id: str, client_secret: str, before_bcrypt: Callable[[], None]
    ) -> VerifiedCredential:
        """Return the credential that the pair belongs to, as stored at this moment.

        Raises VerificationRefused for an unknown, wrong, expired or revoked pair (MalformedPair if
        it does not even have the format of one). Where bcrypt has to decide, `before_bcrypt` is
        called first and may raise, to keep those who guess from buying it.
        """
        if not (is_client_id(client_id) and is_client_secret(client_secret)):
            raise MalformedPair
        with self._verification() as connection:
            stored_secrets = repository.select_stored_secrets(connection, client_id=client_id)
        for stored in stored_secrets:
            if self._matches(client_secret, stored, before_bcrypt):
                if stored.last_used_is_stale:
                    self.deferred.record_use(stored.client_secret_id, stored.credential.secret_id)
                return stored.credential
        raise VerificationRefused

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

    def _new_secret(self) -> tuple[str, HashedSecret]:
        """Generate a client secret and hash it, before any connection is held."""
        self.database.raise_if_down()  # the hash takes its time
        client_secret = generate_client_secret()
        return client_secret, self.hasher.hash(client_secret)

    def _matches(
        self, client_secret: str, stored: StoredSecret, before_bcrypt: Callable[[], None]
    ) -> bool:
        """Compare digests if one of our keys made the stored one; else ask bcrypt."""
        matches = self.hasher.matches_digest(client_secret, stored)
        if matches is None:
            before_bcrypt()
            return self._matches_hash(client_secret, stored)
        if matches and not self.hasher.is_current(stored):
            digest = self.hasher.digest(client_secret)
            self.deferred.renew_digest(stored.client_secret_id, digest)
        return matches

    def _matches_hash(self, client_secret: str, stored: StoredSecret) -> bool:
        """Compare by bcrypt, and if it matches, store a digest by our key."""
        if not self.hasher.matches_hash(client_secret, stored):
            return False
        digest = self.hasher.digest(client_secret)
        with self._verification() as connection:
            # also tells whether the secret has ended while bcrypt was at work
            return repository.update_digest(
                connection, client_secret_id=stored.client_secret_id, digest=digest
            )

    @contextmanager
    def _verification(self) -> Iterator[Connection]:
        work = self.workload.verification
        with work.places.take(), self.database.connection(work.seconds) as connection:
            yield connection

    def _connection(self) -> AbstractContextManager[Connection]:
        return self.database.connection(self.workload.management.seconds)

    def _transaction(self) -> AbstractContextManager[Connection]:
        return self.database.transaction(self.workload.management.seconds)


def _or_not_found(credential: AnyCredential | None) -> AnyCredential:
    if credential is None:
        raise CredentialNotFound
    return credential


def _changes(current: Credential, updated: Credential) -> dict[str, Any]:
    """Return the old and the new value of each changed field."""
    before, after = asdict(current), asdict(updated)
    return {
        name: {"from": before[name], "to": after[name]}
        for name in before
        if before[name] != after[name]
    }


def _page(rows: list[Item], limit: int, place_of: Callable[[Item], Place]) -> Page[Item, Place]:
    """Make a page of `limit` rows; one row more tells that more follow."""
    if len(rows) <= limit:
        return Page(items=rows, next=None)
    return Page(items=rows[:limit], next=place_of(rows[limit - 1]))
