"""What a verification leaves to be written after its answer."""

import logging
from threading import Lock, Timer

from app.credentials import repository
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Database
from app.places import NoPlace, Work

_FLUSH_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class DeferredWrites:
    """Records last uses and renews digests in the background, a second later.

    A verification neither waits for it nor fails with it. What is remembered is lost if the process
    dies or the database is down within that second.
    """

    def __init__(self, database: Database, work: Work) -> None:
        self._database = database
        self._work = work
        self._lock = Lock()
        self._used: dict[int, str] = {}
        self._digests: dict[int, bytes] = {}
        self._is_scheduled = False

    def record_use(self, client_secret_id: int, secret_id: str) -> None:
        """Remember that the client secret of this credential was used now."""
        with self._lock:
            self._used[client_secret_id] = secret_id
        self._schedule()

    def renew_digest(self, client_secret_id: int, digest: bytes) -> None:
        """Remember the digest by the current key for a client secret that has a former key's."""
        with self._lock:
            self._digests[client_secret_id] = digest
        self._schedule()

    def flush(self) -> None:
        """Write what is remembered: by the timer, and when the process stops."""
        with self._lock:
            used, self._used = self._used, {}
            digests, self._digests = self._digests, {}
        if not (used or digests):
            return
        try:
            with (
                self._work.places.take(),
                self._database.connection(self._work.seconds) as connection,
            ):
                repository.update_last_use(connection, used)
                repository.update_digests(connection, digests)
        except (DatabaseUnavailable, DatabaseFault, NoPlace):
            _logger.warning("last uses and digests not recorded")

    def _flush_and_go_on(self) -> None:
        self.flush()
        with self._lock:
            self._is_scheduled = False
            is_empty = not (self._used or self._digests)
        if not is_empty:
            self._schedule()

    def _schedule(self) -> None:
        with self._lock:
            if self._is_scheduled:
                return
            timer = Timer(_FLUSH_SECONDS, self._flush_and_go_on)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:
                return  # no more threads; the next use tries again
            self._is_scheduled = True
