"""The advisory locks of units and of requests."""

from psycopg import Connection
from psycopg.rows import TupleRow, scalar_row


def lock_unit(connection: Connection[TupleRow], *, unit_id: str) -> None:
    """Make every other change in the unit wait until the transaction ends.

    Take this lock, or the shared one, before any statement that writes or locks a row. A
    transaction gets its ID then, and the IDs must be in the order of the changes: they are the
    order of the unit's trail.
    """
    query = "SELECT pg_advisory_xact_lock(hashtextextended(%(unit_id)s, 0))"
    connection.execute(query, {"unit_id": unit_id})


def lock_unit_shared(connection: Connection[TupleRow], *, unit_id: str) -> None:
    """Make changes to the whole unit wait until the transaction ends. See `lock_unit`."""
    query = "SELECT pg_advisory_xact_lock_shared(hashtextextended(%(unit_id)s, 0))"
    connection.execute(query, {"unit_id": unit_id})


def lock_quota(connection: Connection[TupleRow], *, unit_id: str) -> None:
    """Make other issues of the unit wait until the transaction ends."""
    query = "SELECT pg_advisory_xact_lock(hashtextextended(%(unit_id)s, 1))"
    connection.execute(query, {"unit_id": unit_id})


def try_lock_request(connection: Connection[TupleRow], *, lock_id: int) -> bool:
    """Take the lock until the transaction ends. Return False if another request holds it."""
    query = "SELECT pg_try_advisory_xact_lock(%(lock_id)s)"
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(query, {"lock_id": lock_id}).fetchone())
