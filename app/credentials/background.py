"""Writes in the background: record uses and refusals, renew digests, delete what has ended."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from app.bulkheads import BulkheadFull, WorkClass
from app.counters import Counter
from app.credentials import repository
from app.credentials.errors import LastUseUnknown
from app.credentials.model import EventName, RefusedVerification, Use
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Connection, Database
from app.identifiers import new_request_id

_PAUSE_SECONDS = 0.1  # between two turns
_RETRY_SECONDS = 1.0
_CLEAN_UP_SECONDS = 60.0
_CLOSE_SECONDS = 3.0

# Another process answers within about a tenth of a second, unless it cannot record its uses.
_ANSWER_SECONDS = 1.0

# A credential's refusals are recorded at most once in this time, unless their reason changes.
_REFUSAL_SECONDS = 60.0

# Of each kind, while the database cannot be written to. More would use too much memory.
_MAX_PENDING = 50_000

_CHUNK = 1000  # for one statement, which then takes a tenth of a second or less

_logger = logging.getLogger(__name__)


Key = TypeVar("Key", int, str)


class _PendingUse(NamedTuple):
    secret_id: str
    at: float  # of the monotonic clock
    address: str | None
    request_id: str


class _PendingRefusal(NamedTuple):
    reason: str
    hint: str | None
    digests: tuple[bytes, ...]
    address: str | None
    at: float


class BackgroundWriter:
    """Records uses and refusals and renews digests, within about a tenth of a second.

    A verification neither waits for this nor fails with it. A write stays pending until the
    database has accepted it, and is lost if the process ends first. A row that somebody else has
    locked delays no other. Every minute, old responses and expired client secrets are deleted, and
    what is remembered of those that ended long ago.

    The processes know of each other through the database (ADR 23).
    """

    def __init__(self, database: Database, work: WorkClass) -> None:
        self._database = database
        self._work = work
        self._writer_id = uuid4()
        self._lock = Lock()
        self.events_written: Counter[EventName] = Counter()
        self.refusals_recorded: Counter[str] = Counter()  # by their reason
        self._used: dict[int, _PendingUse] = {}
        self._refused: dict[str, _PendingRefusal] = {}
        # by `secret_id`, the reason of the latest refusal to record, and when the next one is due
        self._next_refusals: dict[str, tuple[str, float]] = {}
        self._digests: dict[int, bytes] = {}
        self._failing = False
        self._stopping = Event()
        self._thread: Thread | None = None

    def open(self) -> None:
        """Start the background thread. Call it after the fork."""
        # made only here: from Python 3.13 on, a fork ends threads that have not started
        self._thread = Thread(target=self._run, name="background writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and write what is still pending, for at most a few seconds.

        If something could not be written, others notice that this process no longer answers.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        give_up_at = monotonic() + _CLOSE_SECONDS
        while not self.flush():
            if monotonic() >= give_up_at:
                return
            sleep(_PAUSE_SECONDS)
        if self._thread is not None:
            self._attempt(self._unregister)

    def record_use(
        self,
        client_secret_id: int,
        secret_id: str,
        address: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Remember that this client secret of the credential was used just now.

        `request_id` is that of the request that verified it.
        """
        use = _PendingUse(secret_id, monotonic(), address, request_id or new_request_id())
        self._add(self._used, client_secret_id, use)

    def record_refusal(
        self,
        secret_id: str,
        reason: str,
        hint: str | None,
        digests: Mapping[bytes, bytes],
        address: str | None,
    ) -> None:
        """Remember that a sender of this credential was refused just now, if that is due.

        The first refusal is due, then one a minute, and each one whose reason differs from the one
        before. `hint` is that of the client secret, if the credential has it; otherwise the
        `digests` may show that it had it before.
        """
        now = monotonic()
        last_reason, due_at = self._next_refusals.get(secret_id, ("", 0.0))
        if reason == last_reason and now < due_at:
            return
        kept = tuple(digests.values()) if hint is None else ()
        self._add(self._next_refusals, secret_id, (reason, now + _REFUSAL_SECONDS))
        self._add(self._refused, secret_id, _PendingRefusal(reason, hint, kept, address, now))

    def seconds_since_use(self, secret_id: str) -> float | None:
        """Return how long ago the credential was last used, as far as it may not be recorded."""
        with self._lock:
            used = list(self._used.values())
        times = [each.at for each in used if each.secret_id == secret_id]
        return monotonic() - max(times) if times else None

    def seconds_since_use_of(self, client_secret_id: int) -> float | None:
        """Return how long ago the client secret was last used, as far as it may not be recorded."""
        with self._lock:
            used = self._used.get(client_secret_id)
        return None if used is None else monotonic() - used.at

    def renew_digest(self, client_secret_id: int, digest: bytes) -> None:
        """Remember the digest by the current key, to replace one by a previous key."""
        self._add(self._digests, client_secret_id, digest)

    def flush(self) -> bool:
        """Write what is pending, and return whether all of it could be written."""
        return self._attempt(self._write)

    def clean_up(self) -> bool:
        """Delete some of what is too old or has expired. Return whether there may be more."""
        try:
            with self._connection() as connection:
                deleted = (
                    repository.delete_old_responses(connection, limit=_CHUNK),
                    repository.delete_expired_secrets(connection, limit=_CHUNK),
                    repository.delete_old_ended_secrets(connection, limit=_CHUNK),
                )
        except (DatabaseUnavailable, DatabaseFault, BulkheadFull):
            _logger.warning("old responses and expired client secrets not deleted")
            return False
        return max(deleted) == _CHUNK

    def await_others(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        while_waiting: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Wait until every other process has recorded the uses that it has answered so far.

        It holds no connection meanwhile, and enters `while_waiting`. Raises LastUseUnknown if one
        of them does not answer.
        """
        with connect() as connection:
            asked = repository.ask_writers(connection, except_for=self._writer_id)
        give_up_at = monotonic() + _ANSWER_SECONDS
        while asked:
            with while_waiting():
                sleep(_PAUSE_SECONDS)
            with connect() as connection:
                if not repository.count_unanswered(connection, asked):
                    return
            if monotonic() >= give_up_at:
                raise LastUseUnknown

    def _connection(self) -> AbstractContextManager[Connection]:
        return self._database.connection_for(self._work)

    def _add(self, pending: dict[Key, Any], key: Key, value: Any) -> None:
        with self._lock:
            if key in pending or len(pending) < _MAX_PENDING:
                pending[key] = value

    def _forget_refusals(self) -> None:
        """Make room for refusals of other credentials."""
        now = monotonic()
        with self._lock:
            later = {each: due for each, due in self._next_refusals.items() if now < due[1]}
            self._next_refusals = later

    def _run(self) -> None:
        clean_up_at = monotonic()
        while not self._stopping.wait(_RETRY_SECONDS if self._failing else _PAUSE_SECONDS):
            self._attempt(self._take_turn)
            if monotonic() >= clean_up_at and not self.clean_up():
                self._forget_refusals()
                clean_up_at = monotonic() + _CLEAN_UP_SECONDS

    def _attempt(self, work: Callable[[], bool]) -> bool:
        """Do the work and return its result, or False if the database cannot be written to now."""
        try:
            done = work()
        except (DatabaseUnavailable, DatabaseFault, BulkheadFull):
            if not self._failing:
                _logger.warning("uses, refusals and digests not recorded yet")
            self._failing = True
            return False
        if self._failing:
            _logger.info("uses, refusals and digests recorded again")
        self._failing = False
        return done

    def _take_turn(self) -> bool:
        """Write what is pending. Then answer the process that asked before, if one did."""
        with self._connection() as connection:
            state = repository.find_writer(connection, writer_id=self._writer_id)
            if state.is_due:
                repository.upsert_writer(connection, writer_id=self._writer_id)
        all_written = self._write()
        if all_written and state.is_asked:
            with self._connection() as connection:
                repository.update_answered(
                    connection, writer_id=self._writer_id, answered=state.asked
                )
        return all_written

    def _unregister(self) -> bool:
        with self._connection() as connection:
            repository.delete_writer(connection, writer_id=self._writer_id)
        return True

    def _write(self) -> bool:
        """Write what is pending now. Return whether all of it could be written.

        A chunk that fails holds up no other. Its error is raised at the end.
        """
        all_written = True
        failure: DatabaseUnavailable | BulkheadFull | None = None
        kinds: tuple[tuple[dict[Any, Any], Callable[[Connection, Any], set[Any]]], ...] = (
            (self._used, self._write_uses),
            (self._refused, self._write_refusals),
            (self._digests, repository.update_digests),
        )
        for pending, write in kinds:
            for chunk in self._chunks(pending):
                try:
                    all_written &= self._write_chunk(pending, chunk, write)
                except (DatabaseUnavailable, BulkheadFull) as error:
                    failure = error
        if failure is not None:
            raise failure
        return all_written

    def _chunks(self, pending: dict[Key, Any]) -> Iterator[dict[Key, Any]]:
        with self._lock:
            remaining = iter(sorted(pending.items()))
        while chunk := dict(islice(remaining, _CHUNK)):
            yield chunk

    def _write_chunk(
        self,
        pending: dict[Key, Any],
        chunk: dict[Key, Any],
        write: Callable[[Connection, dict[Key, Any]], set[Key]],
    ) -> bool:
        """Write the chunk, and forget what needs no other attempt. Return whether that is all."""
        try:
            with self._connection() as connection:
                written = write(connection, chunk)
        except DatabaseFault:  # a bug: another attempt would fail too
            _logger.warning("uses, refusals and digests not recorded")
            written = set(chunk)
        with self._lock:
            for each in written:
                if pending.get(each) == chunk[each]:  # not used again meanwhile
                    del pending[each]
        return len(written) == len(chunk)

    def _write_uses(self, connection: Connection, used: dict[int, _PendingUse]) -> set[int]:
        """Record the uses. Return those that need no other attempt."""
        now = monotonic()
        uses = [
            Use(each, use.secret_id, now - use.at, use.address, use.request_id)
            for each, use in used.items()
        ]
        recorded = repository.update_last_use(connection, uses)
        self.events_written.add("first_used", sum(each.is_first for each in recorded))
        settled = {each.client_secret_id for each in recorded if each.is_settled}
        others = [each for each in uses if each.client_secret_id not in settled]
        if others:
            settled |= repository.update_ended_last_use(connection, others)
        return settled

    def _write_refusals(
        self, connection: Connection, refused: dict[str, _PendingRefusal]
    ) -> set[str]:
        """Record the refusals. Return the credentials that need no other attempt."""
        now = monotonic()
        refusals = [
            RefusedVerification(
                each, refusal.reason, refusal.hint, refusal.digests, refusal.address,
                now - refusal.at,
            )
            for each, refusal in refused.items()
        ]  # fmt: skip
        recorded = repository.update_last_refused(connection, refusals)
        for each in recorded:
            if each.reason is not None:
                self.refusals_recorded.add(each.reason)
        return {each.secret_id for each in recorded}
