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
    Credential,
    DetailedCredential,
    Event,
    IssuedCredential,
    Origin,
    Page,
    Position,
    StoredSecret,
    T,
    VerifiedCredential,
)
from app.credentials.usage import UsageRecorder
from app.database.pool import Database

DEFAULT_OVERLAP_SECONDS = 24 * 60 * 60
MAX_OVERLAP_SECONDS = 30 * 24 * 60 * 60

C = TypeVar("C", bound=Credential)


@dataclass(frozen=True, slots=True)
class CredentialService:
    """What can be done with credentials: the contract's verbs.

    Every method may raise DatabaseUnavailable, and then has changed nothing that it told of. Those
    that take a `secret_id` raise CredentialNotFound when the unit has no such credential.
    """

    database: Database
    hasher: Hasher
    usage: UsageRecorder

    def issue(self, *, unit_id: str, name: str, origin: Origin) -> IssuedCredential:
        """Make a credential for the unit, and hand out its client secret this once.

        `name` is as `parse_name` returns it.
        """
        self.database.require()  # before the hash, which takes its time
        client_secret = generate_client_secret()
        secret = self.hasher.hash(client_secret)
        with self.database.connection() as connection:
            credential = repository.insert_credential(
                connection,
                secret_id=generate_secret_id(),
                unit_id=unit_id,
                client_id=generate_client_id(),
                name=name,
                secret=secret,
                origin=origin,
            )
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def list(
        self, *, unit_id: str, limit: int | None = None, after: Position | None = None
    ) -> Page[Credential]:
        """Return the unit's credentials, newest first: all, or `limit` of those behind `after`."""
        with self.database.connection() as connection:
            credentials = repository.select_credentials(
                connection, unit_id=unit_id, limit=_one_more(limit), after=after
            )
        return _page(credentials, limit)

    def get(self, *, unit_id: str, secret_id: str) -> DetailedCredential:
        """Return the credential with its live client secrets."""
        with self.database.connection() as connection:
            credential = _found(
                repository.find_credential(connection, unit_id=unit_id, secret_id=secret_id)
            )
            secrets = repository.select_client_secrets(
                connection, unit_id=unit_id, secret_id=secret_id
            )
        if not secrets:
            raise CredentialNotFound  # revoked between the two statements
        return replace(credential, secrets=secrets)

    def update(
        self,
        *,
        unit_id: str,
        secret_id: str,
        trust_upstream_consent: bool,
        name: str | None,
        origin: Origin,
    ) -> None:
        """Change the consent flag, and the name unless it is None.

        What is already as asked for is no change, and leaves no event.
        """
        with self.database.transaction() as connection:
            former = _found(
                repository.lock_credential(connection, unit_id=unit_id, secret_id=secret_id)
            )
            updated = replace(
                former,
                trust_upstream_consent=trust_upstream_consent,
                name=former.name if name is None else name,
            )
            if updated == former:
                return
            repository.update_credential(connection, updated)
            repository.insert_event(
                connection, former, "updated", detail=_changes(former, updated), origin=origin
            )

    def rotate(
        self, *, unit_id: str, secret_id: str, overlap_seconds: int, origin: Origin
    ) -> IssuedCredential:
        """Hand out a new client secret, and let the former one work until the overlap ends.

        At most two client secrets are live: during an earlier overlap the oldest ends at once.
        """
        self.database.require()  # before the hash, which takes its time
        client_secret = generate_client_secret()
        secret = self.hasher.hash(client_secret)
        with self.database.transaction() as connection:
            credential = _found(
                repository.lock_credential(connection, unit_id=unit_id, secret_id=secret_id)
            )
            repository.expire_client_secrets(
                connection,
                unit_id=unit_id,
                secret_id=secret_id,
                overlap_seconds=overlap_seconds,
            )
            repository.insert_client_secret(connection, secret_id=secret_id, secret=secret)
            repository.insert_event(
                connection,
                credential,
                "rotated",
                detail={"overlap_seconds": overlap_seconds},
                origin=origin,
            )
        return IssuedCredential(**asdict(credential), client_secret=client_secret)

    def revoke(self, *, unit_id: str, secret_id: str, origin: Origin) -> None:
        """End the credential and its client secrets, on every instance; its trail stays."""
        with self.database.transaction() as connection:
            credential = _found(
                repository.lock_credential(connection, unit_id=unit_id, secret_id=secret_id)
            )
            repository.delete_credential(connection, unit_id=unit_id, secret_id=secret_id)
            repository.insert_event(connection, credential, "revoked", detail={}, origin=origin)

    def verify(self, *, client_id: str, client_secret: str) -> VerifiedCredential:
        """Return the credential that the pair is of, as it is stored at this moment.

        Raises VerificationRefused for a pair that is unknown, wrong, expired or revoked, and
        HashingBusy when bcrypt would have to decide and cannot now.
        """
        if not (is_client_id(client_id) and is_client_secret(client_secret)):
            raise VerificationRefused
        with self.database.connection() as connection:
            stored_secrets = repository.select_stored_secrets(connection, client_id=client_id)
        digest = self.hasher.digest(client_secret)
        for stored in stored_secrets:
            if self._matches(client_secret, digest, stored):
                if stored.is_use_unrecorded:
                    self.usage.record(stored.client_secret_id)
                return stored
        raise VerificationRefused

    def events(
        self, *, unit_id: str, secret_id: str, limit: int | None = None, before: int | None = None
    ) -> Page[Event]:
        """Return the trail of a credential, live or revoked, newest first.

        All of it, or `limit` events of those behind the event `before`.
        """
        with self.database.connection() as connection:
            events = repository.select_events(
                connection,
                unit_id=unit_id,
                secret_id=secret_id,
                limit=_one_more(limit),
                before=before,
            )
        if not events:
            raise CredentialNotFound  # every credential has been issued
        return _page(events, limit)

    def _matches(self, client_secret: str, digest: bytes, stored: StoredSecret) -> bool:
        """Compare by the digest if it is by our key, else by bcrypt, and then learn the digest."""
        own_digest = self.hasher.own_digest(stored)
        if own_digest is not None:
            return self.hasher.is_same(digest, own_digest)
        if not self.hasher.matches_hash(client_secret, stored):
            return False
        self.hasher.learn(stored, digest)
        with self.database.connection() as connection:
            # tells too whether the secret has ended while bcrypt was at work
            return repository.update_digest(
                connection, client_secret_id=stored.client_secret_id, digest=digest
            )


def _found(credential: C | None) -> C:
    if credential is None:
        raise CredentialNotFound
    return credential


def _changes(former: Credential, updated: Credential) -> dict[str, Any]:
    """Say of each field that differs from what to what it went."""
    before, after = asdict(former), asdict(updated)
    return {
        name: {"from": before[name], "to": after[name]}
        for name in before
        if before[name] != after[name]
    }


def _one_more(limit: int | None) -> int | None:
    """Return how many rows to ask for, to know whether more follow."""
    return None if limit is None else limit + 1


def _page(rows: list[T], limit: int | None) -> Page[T]:
    return Page(items=rows[:limit], more=limit is not None and len(rows) > limit)
