"""The verification of a client ID and client secret: the hot path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from app.addresses import is_within, limit_key
from app.credentials import repository
from app.credentials.errors import (
    MalformedPair,
    ScopeMissing,
    TooManyFailures,
    VerificationRefused,
)
from app.credentials.generator import hint_of, is_client_id, is_client_secret
from app.credentials.hashing import matches_digest
from app.credentials.model import Verification
from app.database.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from selectors import BaseSelector

    from app.bulkheads import Bulkheads
    from app.credentials.background import BackgroundWriter
    from app.credentials.errors import Refusal
    from app.credentials.hashing import Hasher
    from app.credentials.model import StoredSecret
    from app.database.pool import Database
    from app.rate_limits import RateLimit

    Judge = Callable[..., Verification]
    Row = tuple[Any, ...]

# Then something is wrong with its connection, and half of the time for the database is left.
_PIPELINE_PATIENCE_SECONDS = 0.25

Caller = TypeVar("Caller")


class MustWait(Exception):
    """The judgement needs a comparison of hashes, or a counter outside this process."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies pairs of a client ID and a client secret."""

    database: Database
    hasher: Hasher
    writer: BackgroundWriter
    bulkheads: Bulkheads
    failure_limit: RateLimit  # by the client's `limit_key` and client ID
    scopes: frozenset[str]  # those that can be asked for

    def verify(  # noqa: PLR0913  each is a part of the question
        self,
        *,
        client_id: str,
        client_secret: str,
        address: str | None = None,
        scope: str | None = None,
        request_id: str | None = None,
        started_at: float | None = None,
    ) -> Verification:
        """Return the credential that the pair belongs to, as stored at this moment.

        `address` is the client's, if it is known. `scope`, one of `scopes`, is what the credential
        must be allowed to do; without it, the credential must not be restricted to scopes.
        `request_id` is recorded with a first use. `started_at` is when the time for the database
        began (`monotonic`), by default now. Raises VerificationRefused for an unknown, wrong,
        expired, disabled or revoked pair, and for one that must not be used from the address; its
        subclass MalformedPair if the pair does not have the format of one; its subclass
        ScopeMissing for a pair that is valid otherwise. Beyond the failure limit, TooManyFailures
        replaces VerificationRefused, except ScopeMissing; a valid pair gets it only where its hash
        has to be compared, so that guesses cost little. Raises DatabaseUnavailable, and
        BulkheadFull if the process is too busy.
        """
        if not is_pair(client_id, client_secret):
            raise MalformedPair
        work = self.bulkheads.verification
        with work.bulkhead:
            passed = 0.0 if started_at is None else monotonic() - started_at
            stored_secrets = repository.select_stored_secrets(
                self.database, client_id=client_id, seconds=work.seconds - passed
            )
        return self.judge(
            stored_secrets,
            client_id=client_id,
            client_secret=client_secret,
            address=address,
            scope=scope,
            request_id=request_id,
        )

    def judge(  # noqa: PLR0913  each is a part of the question
        self,
        stored_secrets: Sequence[StoredSecret],
        *,
        client_id: str,
        client_secret: str,
        address: str | None,
        scope: str | None,
        request_id: str | None = None,
        may_wait: bool = True,
    ) -> Verification:
        """Compare the client secret with the stored ones of its client ID. Raises as `verify`.

        Unless it `may_wait`, it raises MustWait instead of waiting, and has had no effect then. A
        client ID that does not exist costs the same digests as one that does.
        """
        reason: Refusal = "wrong" if stored_secrets else "unknown"
        restriction = _restriction(stored_secrets, address)
        digests = self.hasher.digests(client_secret)
        hint = hint_of(client_secret)
        undecided = []
        for stored in stored_secrets:
            matches = matches_digest(digests, stored)
            refusal = stored.refusal or restriction
            if refusal is not None:
                reason = refusal if matches else reason
            elif matches:
                if not self.hasher.is_current(stored):
                    digest = self.hasher.digest(client_secret)
                    self.writer.renew_digest(stored.client_secret_id, digest)
                return self._accept(stored, scope, address, request_id)
            elif matches is None and stored.hint == hint:
                undecided.append(stored)
        if not may_wait and (undecided or self.failure_limit.is_remote):
            raise MustWait
        client = limit_key(address)
        if undecided:
            _raise_if_limited(self.failure_limit.check(client, client_id))
            matching = self._find_by_hash(client_secret, undecided, client)
            if matching is not None:
                return self._accept(matching, scope, address, request_id)
        if stored_secrets:
            self.writer.record_refusal(
                stored_secrets[0].credential.secret_id,
                reason,
                None if reason == "wrong" else hint,
                digests,
                address,
            )
        _raise_if_limited(self.failure_limit.count(client, client_id))
        raise VerificationRefused(reason)

    def _find_by_hash(
        self, client_secret: str, undecided: Sequence[StoredSecret], client: str
    ) -> StoredSecret | None:
        """Return the one whose hash matches, or None, and store a digest by the current key."""
        turns = self.bulkheads.comparison
        with turns.turn(client, undecided[0].credential.client_id):
            for stored in undecided:
                if self.hasher.matches_hash(client_secret, stored):
                    break
            else:
                turns.note_failure(client)
                return None
        digest = self.hasher.digest(client_secret)
        with self.database.connection_for(self.bulkheads.verification) as connection:
            # False if the client secret has ended during the comparison
            is_live = repository.update_digest(
                connection, client_secret_id=stored.client_secret_id, digest=digest
            )
        return stored if is_live else None

    def _accept(
        self,
        stored: StoredSecret,
        scope: str | None,
        address: str | None,
        request_id: str | None,
    ) -> Verification:
        """Record the use. Raises ScopeMissing, which is neither a use nor a failure."""
        if stored.scopes is not None and scope not in stored.scopes.split(","):
            self.writer.record_refusal(
                stored.credential.secret_id, "scope", stored.hint, {}, address
            )
            raise ScopeMissing(scope)
        if stored.last_used_is_stale:
            self.writer.record_use(
                stored.client_secret_id, stored.credential.secret_id, address, request_id
            )
        return Verification(stored.credential, stored.expires_at)

    def pipeline(
        self, poller: BaseSelector, settle: Callable[[Caller, Judge | None], None]
    ) -> Pipeline[Caller]:
        """Return a pipeline of the SELECT of a verification. Its parameter is the client ID.

        It settles a query with a function that does the rest: `judge` with the rows.
        """

        def settle_rows(caller: Caller, rows: list[Row] | None) -> None:
            settle(caller, None if rows is None else partial(self._judge_rows, rows))

        return Pipeline(
            self.database,
            repository.STORED_SECRETS,
            poller,
            settle_rows,
            patience=_PIPELINE_PATIENCE_SECONDS,
        )

    def _judge_rows(self, rows: list[Row], **arguments: Any) -> Verification:
        return self.judge(repository.stored_secrets(rows), **arguments)


def is_pair(client_id: str, client_secret: str) -> bool:
    """Tell whether both have the format of one of ours."""
    return is_client_id(client_id) and is_client_secret(client_secret)


def _restriction(stored_secrets: Sequence[StoredSecret], address: str | None) -> Refusal | None:
    """Return why the credential must not be used from the address, or None if it may be.

    It is asked before the client secret is compared, and whatever it is: otherwise the time would
    tell somebody elsewhere whether the client secret is right.
    """
    addresses = stored_secrets[0].addresses if stored_secrets else None
    return None if addresses is None or is_within(addresses, address) else "address"


def _raise_if_limited(retry_after: int | None) -> None:
    if retry_after is not None:
        raise TooManyFailures(retry_after)
