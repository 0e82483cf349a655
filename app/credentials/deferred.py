"""Writes in the background: record last uses, renew digests, and erase old answers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic

from app.credentials import repository
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Connection, Database
from app.places import NoPlace, Work

_FLUSH_SECONDS = 1.0
_ERASE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class DeferredWrites:
    """Records last uses and renews digests in the background, about a second later.

    A verification neither waits for this nor fails with it. Pending writes are lost if the process
    dies or the database is down at that moment. Every minute, old answers are erased.
    """

    def __init__(self, database: Database, work: Work) -> None:
        self._database = database
        self._work = work
        self._lock = Lock()
        self._used: dict[int, str] = {}
        self._digests: dict[int, bytes] = {}
        self._stopping = Event()
        self._thread: Thread | None = None

    def open(self) -> None:
        """Start the background thread. Call it after the fork."""
        # made only here: from Python 3.13 on, a fork ends threads that have not started
        self._thread = Thread(target=self._run, name="deferred writes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and write what is still pending."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def record_use(self, client_secret_id: int, secret_id: str) -> None:
        """Remember that this client secret of the credential was used just now."""
        with self._lock:
            self._used[client_secret_id] = secret_id

    def renew_digest(self, client_secret_id: int, digest: bytes) -> None:
        """Remember the digest by the current key, to replace one by a previous key."""
        with self._lock:
            self._digests[client_secret_id] = digest

    def flush(self) -> None:
        """Write what is pending."""
        with self._lock:
            used, self._used = self._used, {}
            digests, self._digests = self._digests, {}
        if not (used or digests):
            return
        try:
            with self._connection() as connection:
                repository.update_last_use(connection, used)
                repository.update_digests(connection, digests)
        except (DatabaseUnavailable, DatabaseFault, NoPlace):
            _logger.warning("last uses and digests not recorded")

    def erase_old_answers(self) -> None:
        """Erase the sealed answers that are too old to be repeated."""
        try:
            with self._connection() as connection:
                repository.delete_old_answers(connection)
        except (DatabaseUnavailable, DatabaseFault, NoPlace):
            _logger.warning("old answers not erased")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        work = self._work
        with work.places.take(), self._database.connection(work.seconds) as connection:
            yield connection

    def _run(self) -> None:
        erase_at = monotonic()
        while not self._stopping.wait(_FLUSH_SECONDS):
            self.flush()
            if monotonic() >= erase_at:
                self.erase_old_answers()
                erase_at = monotonic() + _ERASE_SECONDS
