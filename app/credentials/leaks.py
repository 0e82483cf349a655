"""From a client secret alone to its credential, and to its end: what a leak begins with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from app.addresses import limit_key
from app.counters import Counter
from app.credentials import repository
from app.credentials.errors import TooManyReports
from app.credentials.generator import hint_of, is_client_secret
from app.credentials.hashing import Hasher
from app.credentials.model import Caller, EndedSecret, EventName, FoundSecret, LeakReport
from app.database.pool import Database
from app.rate_limits import RateLimit


@dataclass(frozen=True, slots=True)
class LeakService:
    """Finds the credentials of leaked client secrets, in any unit, and ends the client secrets.

    Any method may raise DatabaseUnavailable: a change may or may not have been committed then.
    `caller` returns the caller to record in the events of a unit. A
    report may use the database for `seconds`.
    """

    database: Database
    hasher: Hasher
    seconds: float
    report_limit: RateLimit  # by the client's `limit_key`
    events_written: Counter[EventName]

    def report(
        self,
        reports: Iterable[LeakReport],
        caller: Callable[[str], Caller],
        *,
        address: str | None,
        ends: bool,
    ) -> None:
        """Record which client secrets have leaked. If `ends`, end them too, on every instance.

        A client secret that was recorded before is not recorded again. What does not have the
        format of a client secret is not one. No hash is compared, so that reports cost little: a
        client secret without a digest under a known key is not found. Raises TooManyReports for the
        client's `address`.
        """
        retry_after = self.report_limit.count(limit_key(address))
        if retry_after is not None:
            raise TooManyReports(retry_after)
        by_digest: dict[bytes, LeakReport] = {}
        for report in reports:
            if is_client_secret(report.client_secret):
                for digest in self.hasher.digests(report.client_secret).values():
                    by_digest.setdefault(digest, report)
        if not by_digest:
            return
        give_up_at = monotonic() + self.seconds
        found = self._select(list(by_digest), self.seconds)
        reported = {each: by_digest[digest] for digest, each in found}
        self._record(reported, caller, ends=ends, seconds=give_up_at - monotonic())

    def find(self, client_secrets: Sequence[str]) -> dict[str, FoundSecret]:
        """Return those that are live, by the client secret: for operators.

        Where there is no digest under a known key, bcrypt decides, which takes a moment for each.
        """
        of_digest = self._of_digest(client_secrets)
        by_digest = self._select(list(of_digest), self.seconds)
        found = {of_digest[digest]: each for digest, each in by_digest}
        missing = [each for each in client_secrets if each not in found]
        return found | self._find_by_hash(missing)

    def find_ended(self, client_secrets: Sequence[str]) -> dict[str, EndedSecret]:
        """Return those that are known to have ended, by the client secret: for operators.

        Known are those that had a digest under a known key, for 90 days.
        """
        of_digest = self._of_digest(client_secrets)
        with self.database.confirmed(self.seconds) as connection:
            ended = repository.select_ended_secrets(connection, digests=list(of_digest))
        return {of_digest[each.digest]: each for each in ended}

    def end(self, found: Iterable[FoundSecret], caller: Callable[[str], Caller]) -> set[int]:
        """End the client secrets on every instance: for operators.

        Return the `client_secret_id` of each, without those that somebody else has ended meanwhile.
        """
        no_place = {each: LeakReport("") for each in found}
        return self._record(no_place, caller, ends=True, seconds=self.seconds)

    def _of_digest(self, client_secrets: Iterable[str]) -> dict[bytes, str]:
        """Return the client secrets by their digests under each key."""
        return {
            digest: each for each in client_secrets for digest in self.hasher.digests(each).values()
        }

    def _select(self, digests: Sequence[bytes], seconds: float) -> list[tuple[bytes, FoundSecret]]:
        with self.database.confirmed(seconds) as connection:
            found = repository.select_secrets_by_digest(connection, digests=digests)
        return [(each.digest, each) for each in found if each.digest is not None]

    def _find_by_hash(self, client_secrets: Sequence[str]) -> dict[str, FoundSecret]:
        if not client_secrets:
            return {}
        with self.database.confirmed(self.seconds) as connection:
            candidates = repository.select_secrets_without_digest(
                connection,
                key_ids=self.hasher.key_ids,
                hints=[hint_of(each) for each in client_secrets],
            )
        return {
            client_secret: candidate
            for candidate in candidates
            for client_secret in client_secrets
            if hint_of(client_secret) == candidate.hint
            and self.hasher.matches_hash(client_secret, candidate)
        }

    def _record(
        self,
        reported: Mapping[FoundSecret, LeakReport],
        caller: Callable[[str], Caller],
        *,
        ends: bool,
        seconds: float,
    ) -> set[int]:
        """Record the reports in one transaction, and return whose client secrets are new to it."""
        if not reported:
            return set()
        report_of = {found.client_secret_id: report for found, report in reported.items()}
        with self.database.transaction(seconds) as connection:
            for unit_id in sorted({each.unit_id for each in reported}):
                repository.lock_unit_shared(connection, unit_id=unit_id)
            credentials = repository.lock_credentials(
                connection, secret_ids=[each.secret_id for each in reported]
            )
            # once more, because others may have changed them before they were locked
            live = repository.select_secrets(connection, client_secret_ids=list(report_of))
            new = [each for each in live if ends or each.leak_reported_at is None]
            ids = [each.client_secret_id for each in new]
            if ends:
                repository.delete_leaked_secrets(connection, client_secret_ids=ids)
            else:
                repository.update_leak_reported(connection, client_secret_ids=ids)
            for each in new:
                report = report_of[each.client_secret_id]
                place = {"url": report.url, "source": report.source}
                detail = {"hint": each.hint, "ended": ends}
                repository.insert_event(
                    connection,
                    caller(each.unit_id),
                    credentials[each.secret_id],
                    "leaked",
                    detail=detail | {name: text for name, text in place.items() if text},
                )
        self.events_written.add("leaked", len(new))
        return set(ids)
