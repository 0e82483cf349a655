"""Refuse the previous primary after a failover (ADR 19)."""

import logging
from threading import Lock

import psycopg

from app.database.connection import BoundedConnection
from app.database.errors import describe, is_transient

# The control file's timeline lags behind a promotion until the next checkpoint; the WAL's does not.
_TIMELINE = """
    SELECT system_identifier::text,
           CASE WHEN NOT pg_is_in_recovery()
                THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END
    FROM pg_control_system()
"""

_logger = logging.getLogger(__name__)


class SupersededPrimary(psycopg.OperationalError):
    """The server has missed a failover: it still has credentials that were revoked since."""


class Failovers:
    """The newest timeline of Postgres that this process has seen.

    Each promotion begins a timeline with a higher number. A primary that was frozen meanwhile still
    writes on the old timeline, until somebody demotes it.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._lock = Lock()
        self._newest = ("", 0)  # the cluster's identifier, and its timeline

    def admit(self, connection: BoundedConnection) -> None:
        """Check and remember the timeline of the new connection's server.

        Raises SupersededPrimary if it is older than the newest of its cluster. A standby is not
        checked.
        """
        cluster, timeline = _read_timeline(connection)
        with self._lock:
            known_cluster, newest = self._newest
            if timeline and cluster == known_cluster and timeline < newest:
                raise SupersededPrimary(f"it is on timeline {timeline}, and one on {newest} exists")
            if timeline and (cluster, timeline) != self._newest:
                self._newest = (cluster, timeline)
                self.seen += 1
            connection.failovers = self.seen


def _read_timeline(connection: BoundedConnection) -> tuple[str, int]:
    """Return the cluster's identifier and the timeline; 0 for a standby, or if it cannot be read.

    Some services that speak Postgres' protocol lack these functions. This is only a second line of
    defence, so it must not lock out a database for that.
    """
    try:
        [(cluster, timeline)] = connection.execute(_TIMELINE).fetchall()
    except psycopg.Error as error:
        if is_transient(error):
            raise
        _logger.warning("the server's timeline cannot be read: %s", describe(error))
        return "", 0
    return cluster, int(timeline, 16) if timeline else 0
