"""The table `writers`."""

from collections.abc import Mapping
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row

from app.credentials.model import WriterState

_SEEN_SECONDS = 10  # how often a writer records that it lives
_FORGET_SECONDS = 60  # after which a writer that was killed stops no conditional revocation
_UNKNOWN_WRITER = WriterState(asked=0, is_asked=False, is_due=True)


def find_writer(connection: Connection[TupleRow], *, writer_id: UUID) -> WriterState:
    """Return what the writer has to do. It only reads, because it runs several times a second."""
    query = """
        SELECT coalesce(asked, 0) AS asked,
               coalesce(asked > answered, false) AS is_asked,
               coalesce(
                   seen_at < now() - make_interval(secs => %(seconds)s), true
               ) AS is_due
        FROM (SELECT %(writer_id)s::uuid AS writer_id) AS mine
        LEFT JOIN writers USING (writer_id)
    """
    parameters = {"writer_id": writer_id, "seconds": _SEEN_SECONDS}
    with connection.cursor(row_factory=class_row(WriterState)) as cursor:
        return cursor.execute(query, parameters).fetchone() or _UNKNOWN_WRITER


def upsert_writer(connection: Connection[TupleRow], *, writer_id: UUID) -> None:
    """Record that the writer lives, and forget those that have not been seen for a minute.

    The minute ends when this writer was last seen: after an outage for all, everybody has time to
    return.
    """
    query = """
        WITH forgotten AS (
            SELECT writer_id FROM writers
            WHERE seen_at < (SELECT seen_at FROM writers WHERE writer_id = %(writer_id)s)
                            - make_interval(secs => %(seconds)s)
            ORDER BY writer_id
            FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM writers WHERE writer_id IN (SELECT writer_id FROM forgotten)
        )
        INSERT INTO writers (writer_id) VALUES (%(writer_id)s)
        ON CONFLICT (writer_id) DO UPDATE SET seen_at = now()
    """
    connection.execute(query, {"writer_id": writer_id, "seconds": _FORGET_SECONDS})


def update_answered(connection: Connection[TupleRow], *, writer_id: UUID, answered: int) -> None:
    """Record that the writer has recorded what it knew of when it was asked."""
    query = "UPDATE writers SET answered = %(answered)s WHERE writer_id = %(writer_id)s"
    connection.execute(query, {"writer_id": writer_id, "answered": answered})


def delete_writer(connection: Connection[TupleRow], *, writer_id: UUID) -> None:
    """Forget the writer: it has recorded everything, and knows of nothing more."""
    query = "DELETE FROM writers WHERE writer_id = %(writer_id)s"
    connection.execute(query, {"writer_id": writer_id})


def ask_writers(connection: Connection[TupleRow], *, except_for: UUID) -> dict[UUID, int]:
    """Ask all other writers to record what they know of. Return the number of each question."""
    query = """
        WITH asked AS (
            SELECT writer_id FROM writers WHERE writer_id <> %(except_for)s
            ORDER BY writer_id
            FOR UPDATE
        )
        UPDATE writers SET asked = asked + 1
        WHERE writer_id IN (SELECT writer_id FROM asked)
        RETURNING writer_id, asked
    """
    return dict(connection.execute(query, {"except_for": except_for}).fetchall())


def count_unanswered(connection: Connection[TupleRow], asked: Mapping[UUID, int]) -> int:
    """Count the questions without an answer, of writers that have not ended since."""
    query = """
        SELECT count(*)
        FROM unnest(%(writer_ids)s::uuid[], %(asked)s::bigint[]) AS question (writer_id, number)
        JOIN writers USING (writer_id)
        WHERE answered < number
    """
    parameters = {"writer_ids": list(asked), "asked": list(asked.values())}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, parameters).fetchone() or 0
