"""The tables `sealed_answers` and `answered_requests`."""

from collections.abc import Sequence
from dataclasses import asdict

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row

from app.credentials.model import StoredResponse

RESPONSE_SECONDS = 24 * 60 * 60  # how long a response can be replayed


def find_stored_response(
    connection: Connection[TupleRow], *, key_hashes: Sequence[bytes]
) -> StoredResponse | None:
    """Return the response that is stored under one of the hashes, or None.

    Its request is remembered for as long as the response could be replayed, even if it was erased.
    """
    query = """
        SELECT key_hash, fingerprint, sealed AS encrypted
        FROM unnest(%(key_hashes)s::bytea[]) AS wanted (key_hash)
        LEFT JOIN answered_requests USING (key_hash)
        LEFT JOIN sealed_answers USING (key_hash)
        WHERE greatest(answered_requests.created_at, sealed_answers.created_at)
              > now() - make_interval(secs => %(seconds)s)
    """
    parameters = {"key_hashes": list(key_hashes), "seconds": RESPONSE_SECONDS}
    with connection.cursor(row_factory=class_row(StoredResponse)) as cursor:
        return cursor.execute(query, parameters).fetchone()


def insert_stored_response(
    connection: Connection[TupleRow], response: StoredResponse, *, secret_id: str
) -> None:
    """Store the response, which ends with the credential's newest client secret or after a day.

    The fingerprint of its request stays for the whole day. Both replace what is too old to be
    found.
    """
    query = """
        WITH request AS (
            INSERT INTO answered_requests (key_hash, fingerprint)
            VALUES (%(key_hash)s, %(fingerprint)s)
            ON CONFLICT (key_hash) DO UPDATE
            SET fingerprint = excluded.fingerprint, created_at = excluded.created_at
        )
        INSERT INTO sealed_answers (key_hash, sealed, client_secret_id)
        SELECT %(key_hash)s, %(encrypted)s, max(client_secret_id)
        FROM client_secrets WHERE secret_id = %(secret_id)s
        ON CONFLICT (key_hash) DO UPDATE
        SET sealed = excluded.sealed,
            client_secret_id = excluded.client_secret_id,
            created_at = excluded.created_at
    """
    connection.execute(query, {**asdict(response), "secret_id": secret_id})


def delete_old_responses(connection: Connection[TupleRow], *, limit: int) -> int:
    """Erase at most `limit` requests that are too old to be repeated, with their responses.

    Returns how many. Those that are locked are left for the next time.
    """
    query = """
        WITH old_response AS (
            SELECT key_hash FROM sealed_answers
            WHERE created_at <= now() - make_interval(secs => %(seconds)s)
            ORDER BY created_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ), old_request AS (
            SELECT key_hash FROM answered_requests
            WHERE created_at <= now() - make_interval(secs => %(seconds)s)
            ORDER BY created_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ), response AS (
            DELETE FROM sealed_answers WHERE key_hash IN (SELECT key_hash FROM old_response)
            RETURNING key_hash
        ), request AS (
            DELETE FROM answered_requests WHERE key_hash IN (SELECT key_hash FROM old_request)
            RETURNING key_hash
        )
        SELECT greatest((SELECT count(*) FROM response), (SELECT count(*) FROM request))
    """
    parameters = {"seconds": RESPONSE_SECONDS, "limit": limit}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, parameters).fetchone() or 0
