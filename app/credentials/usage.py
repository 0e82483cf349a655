"""When client secrets were last used."""

import logging
from threading import Lock, Timer

from app.credentials import repository
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Database

_FLUSH_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class UsageRecorder:
    """Records the last use of client secrets in the background, a second later.

    A verification neither waits for it nor fails with it. A use is lost if the process dies or the
    database is down within that second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._used: set[int] = set()

    def record(self, client_secret_id: int) -> None:
        """Remember the use, and write it within about a second."""
        with self._lock:
            is_first = not self._used
            self._used.add(client_secret_id)
        if is_first:
            timer = Timer(_FLUSH_SECONDS, self.flush)
            timer.daemon = True
            timer.start()

    def flush(self) -> None:
        """Write what is remembered: by the timer, and when the process stops (`Services.close`)."""
        with self._lock:
            used, self._used = self._used, set()
        if not used:
            return
        try:
            with self._database.connection() as connection:
                repository.update_last_use(connection, sorted(used))
        except (DatabaseUnavailable, DatabaseFault):
            _logger.warning("last use not recorded")
