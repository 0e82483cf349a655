"""What can be done with credentials: the contract's verbs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from app.credentials import repository
from app.credentials.errors import CredentialNotFound, VerificationRefused
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
    IssuedCredential,
    Item,
    Page,
    Place,
    Position,
    StoredSecret,
    VerifiedCredential,
)
from app.credentials.usage import UsageRecorder
from app.database.pool import Database

DEFAULT_OVERLAP_SECONDS = 24 * 60 * 60
MAX_OVERLAP_SECONDS = 30 * 24 * 60 * 60

AnyCredential = TypeVar("AnyCredential", bound=Credential)


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Issues, lists, updates, rotates, revokes and verifies credentials.

    Any method may raise DatabaseUnavailable. A change may or may not have been committed then, and
    no client secret has been shown for it. Methods that take a `secret_id` raise CredentialNotFound
    if the caller's unit has no such credential.
    """

    database: Database
    hasher: Hasher
    usage: UsageRecorder

    def issue(self, caller: Caller, *, name: str) -> IssuedCredential:
        """Make a credential for the unit, and show its client secret once.

        `name` is what `parse_name` returned.
        """
        self.database.require()  # before the hash, which takes its time
        client_secret = generate_client_secret()
        secret = self.hasher.hash(client_secret)
        with self.database.connection() as connection:
            credential = repository.insert_credential(
                connection,
                caller,
                secret_id=generate_secret_id(),
                client_id=generate_client_id(),
                name=name,
                secret=secret,
            )
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def list(
        self, caller: Caller, *, limit: int | None = None, after: Position | None = None
    ) -> Page[Credential, Position]:
        """Return the unit's credentials, newest first: all, or at most `limit` behind `after`."""
        with self.database.connection() as connection:
            credentials = repository.select_credentials(
                connection, unit_id=caller.unit_id, limit=_with_lookahead(limit), after=after
            )
        return _page(credentials, limit, lambda each: Position(each.created_at, each.secret_id))

    def get(self, caller: Caller, secret_id: str) -> DetailedCredential:
        """Return the credential with its live client secrets."""
        with self.database.connection() as connection:
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
        with self.database.transaction() as connection:
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
            repository.update_credential(connection, updated)
            repository.insert_event(
                connection, caller, secret_id, "updated", detail=_changes(current, updated)
            )

    def rotate(self, caller: Caller, secret_id: str, *, overlap_seconds: int) -> IssuedCredential:
        """Make and show a new client secret; the previous one works until the overlap ends.

        At most two client secrets are live: during an earlier overlap the oldest ends at once.
        """
        self.database.require()  # before the hash, which takes its time
        client_secret = generate_client_secret()
        secret = self.hasher.hash(client_secret)
        with self.database.transaction() as connection:
            credential = _or_not_found(
                repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
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
        with self.database.transaction() as connection:
            _or_not_found(
                repository.lock_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            )
            repository.delete_credential(connection, unit_id=caller.unit_id, secret_id=secret_id)
            repository.insert_event(connection, caller, secret_id, "revoked", detail={})

    def verify(self, *, client_id: str, client_secret: str) -> VerifiedCredential:
        """Return the credential that the pair belongs to, as stored at this moment.

        Raises VerificationRefused for an unknown, wrong, expired or revoked pair, and HashingBusy
        if bcrypt would have to decide and cannot now.
        """
        if not (is_client_id(client_id) and is_client_secret(client_secret)):
            raise VerificationRefused
        with self.database.connection() as connection:
            stored_secrets = repository.select_stored_secrets(connection, client_id=client_id)
        digest = self.hasher.digest(client_secret)
        for stored in stored_secrets:
            if self._matches(client_secret, digest, stored):
                if stored.last_used_is_stale:
                    self.usage.record(stored.client_secret_id)
                return stored.credential
        raise VerificationRefused

    def events(
        self, caller: Caller, secret_id: str, *, limit: int | None = None, before: int | None = None
    ) -> Page[Event, int]:
        """Return the trail of a credential, live or revoked, newest first.

        Either all of it, or at most `limit` events older than the event `before`.
        """
        with self.database.connection() as connection:
            events = repository.select_events(
                connection,
                unit_id=caller.unit_id,
                secret_id=secret_id,
                limit=_with_lookahead(limit),
                before=before,
            )
        if not events:
            raise CredentialNotFound  # every credential has been issued
        return _page(events, limit, lambda each: each.event_id)

    def _matches(self, client_secret: str, digest: bytes, stored: StoredSecret) -> bool:
        """Compare digests if the stored one is by our key; else ask bcrypt and store ours."""
        own_digest = self.hasher.own_digest(stored)
        if own_digest is not None:
            return self.hasher.digests_match(digest, own_digest)
        if not self.hasher.matches_hash(client_secret, stored):
            return False
        self.hasher.learn(stored, digest)
        with self.database.connection() as connection:
            # also tells whether the secret has ended while bcrypt was at work
            return repository.update_digest(
                connection, client_secret_id=stored.client_secret_id, digest=digest
            )


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


def _with_lookahead(limit: int | None) -> int | None:
    """Return how many rows to read to know whether more follow."""
    return None if limit is None else limit + 1


def _page(
    rows: list[Item], limit: int | None, place_of: Callable[[Item], Place]
) -> Page[Item, Place]:
    if limit is None or len(rows) <= limit:
        return Page(items=rows, next=None)
    return Page(items=rows[:limit], next=place_of(rows[limit - 1]))
