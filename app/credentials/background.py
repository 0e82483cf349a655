"""Writes in the background: record last uses, renew digests, and erase old responses."""

import logging
from collections.abc import Mapping
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple

from app.bulkheads import BulkheadFull, WorkClass
from app.credentials import repository
from app.credentials.model import Use
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Database

# Within this time, every process writes its pending uses, unless the database is slow.
SETTLE_SECONDS = 0.2

_PAUSE_SECONDS = 0.1  # between two writes
_RETRY_SECONDS = 1.0
_ERASE_SECONDS = 60.0

# Of each kind, while the database cannot be written to. More would use too much memory.
_MAX_PENDING = 50_000

_logger = logging.getLogger(__name__)


class _PendingUse(NamedTuple):
    secret_id: str
    at: float  # of the monotonic clock


class BackgroundWriter:
    """Records last uses and renews digests in the background, within about a tenth of a second.

    A verification neither waits for this nor fails with it. Writes stay pending until the database
    accepts them; they are lost if the process ends first. Every minute, old responses are erased.
    """

    def __init__(self, database: Database, work: WorkClass) -> None:
        self._database = database
        self._work = work
        self._lock = Lock()
        self._used: dict[int, _PendingUse] = {}
        self._digests: dict[int, bytes] = {}
        self._failing = False
        self._wanted = Event()  # something is pending
        self._stopping = Event()
        self._thread: Thread | None = None

    def open(self) -> None:
        """Start the background thread. Call it after the fork."""
        # made only here: from Python 3.13 on, a fork ends threads that have not started
        self._thread = Thread(target=self._run, name="background writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and write what is still pending."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def record_use(self, client_secret_id: int, secret_id: str) -> None:
        """Remember that this client secret of the credential was used just now."""
        self._add(self._used, client_secret_id, _PendingUse(secret_id, monotonic()))

    def uses_of(self, secret_id: str) -> list[Use]:
        """Return the uses of the credential that may not have been written yet."""
        with self._lock:
            used = self._used.copy()
        return [each for each in _uses(used) if each.secret_id == secret_id]

    def renew_digest(self, client_secret_id: int, digest: bytes) -> None:
        """Remember the digest by the current key, to replace one by a previous key."""
        self._add(self._digests, client_secret_id, digest)

    def flush(self) -> None:
        """Write what is pending. If the database cannot be written to now, it stays pending."""
        with self._lock:
            used, digests = self._used.copy(), self._digests.copy()
        if not (used or digests):
            return
        try:
            with self._database.connection_for(self._work) as connection:
                repository.update_last_use(connection, _uses(used))
                repository.update_digests(connection, digests)
        except (DatabaseUnavailable, BulkheadFull):
            if not self._failing:
                _logger.warning("last uses and digests not recorded yet")
            self._failing = True
            self._wanted.set()
            return
        except DatabaseFault:  # a bug: another attempt would fail too
            _logger.warning("last uses and digests not recorded")
        self._failing = False
        with self._lock:
            _forget(self._used, used)
            _forget(self._digests, digests)

    def erase_old_responses(self) -> None:
        """Erase the stored responses that are too old to be replayed."""
        try:
            with self._database.connection_for(self._work) as connection:
                repository.delete_old_responses(connection)
        except (DatabaseUnavailable, DatabaseFault, BulkheadFull):
            _logger.warning("old answers not erased")

    def _add(self, pending: dict[int, Any], client_secret_id: int, value: Any) -> None:
        with self._lock:
            if client_secret_id in pending or len(pending) < _MAX_PENDING:
                pending[client_secret_id] = value
        self._wanted.set()

    def _run(self) -> None:
        erase_at = monotonic()
        while not self._stopping.wait(_RETRY_SECONDS if self._failing else _PAUSE_SECONDS):
            self._wanted.wait(max(0.0, erase_at - monotonic()))
            self._wanted.clear()
            self.flush()
            if monotonic() >= erase_at:
                self.erase_old_responses()
                erase_at = monotonic() + _ERASE_SECONDS


def _uses(used: Mapping[int, _PendingUse]) -> list[Use]:
    now = monotonic()
    return [Use(each, secret_id, now - at) for each, (secret_id, at) in used.items()]


def _forget(pending: dict[int, Any], written: Mapping[int, Any]) -> None:
    """Remove what has been written, unless it has changed in the meantime."""
    for client_secret_id, value in written.items():
        if pending.get(client_secret_id) == value:
            del pending[client_secret_id]
