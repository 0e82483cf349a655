"""The table `ended_secrets`: digests of client secrets that no longer exist."""

from collections.abc import Sequence

from psycopg import Connection
from psycopg.rows import TupleRow, class_row

from app.credentials.model import EndedSecret, RecordedRefusal, RefusedVerification

_MAX_ENDED = 20  # of each credential
_KEPT_DAYS = 90

# The part of a statement that deletes client secrets, RETURNING them as `ended`, and whose
# credentials are locked: they keep their last use, and what they had is remembered.
REMEMBER_ENDED = f"""
        remembered AS (
            INSERT INTO ended_secrets (secret_id, digest, hint, reason)
            SELECT secret_id, digest, hint,
                   CASE WHEN expires_at <= clock_timestamp() THEN 'expired' ELSE 'ended' END
            FROM ended
            WHERE digest IS NOT NULL
            ON CONFLICT DO NOTHING
        ), surplus AS (
            DELETE FROM ended_secrets
            USING (
                SELECT secret_id, digest,
                       row_number() OVER (PARTITION BY secret_id ORDER BY ended_at DESC) AS place
                FROM ended_secrets
                WHERE secret_id IN (SELECT secret_id FROM ended)
            ) AS earlier
            WHERE ended_secrets.secret_id = earlier.secret_id
              AND ended_secrets.digest = earlier.digest
              AND place > {_MAX_ENDED} - (
                  SELECT count(*) FROM ended WHERE ended.secret_id = earlier.secret_id
              )
        ), kept AS (
            UPDATE credentials
            SET ended_secrets_last_used_at = greatest(
                ended_secrets_last_used_at, latest.last_used_at
            )
            FROM (
                SELECT secret_id, max(last_used_at) AS last_used_at FROM ended
                GROUP BY secret_id
            ) AS latest
            WHERE credentials.secret_id = latest.secret_id
        )
"""  # noqa: S608  the number is ours


def update_last_refused(
    connection: Connection[TupleRow], refusals: Sequence[RefusedVerification]
) -> list[RecordedRefusal]:
    """Record when, why and from where senders were refused, unless a later refusal is recorded.

    A client secret that the credential had is recognised by its digest. Returns what needs no other
    attempt, with the reason that was recorded: not those whose credential is locked. It is None if
    nothing was recorded, because the credential is gone or a later refusal is there.
    """
    query = """
        WITH refused AS (
            SELECT secret_id, reason, hint, address,
                   clock_timestamp() - make_interval(secs => seconds_ago) AS at
            FROM unnest(
                %(secret_ids)s::text[], %(reasons)s::text[], %(hints)s::text[],
                %(addresses)s::text[], %(seconds_ago)s::float8[]
            ) AS refused (secret_id, reason, hint, address, seconds_ago)
        ), known AS (
            SELECT secret_id, reason, hint
            FROM unnest(%(presented_to)s::text[], %(digests)s::bytea[])
                AS presented (secret_id, digest)
            JOIN ended_secrets USING (secret_id, digest)
            WHERE ended_at > now() - make_interval(days => %(days)s)
        ), taken AS (
            SELECT secret_id, refused.at, refused.address,
                   coalesce(known.reason, refused.reason) AS reason,
                   coalesce(known.hint, refused.hint) AS hint
            FROM credentials
            JOIN refused USING (secret_id)
            LEFT JOIN known USING (secret_id)
            ORDER BY secret_id
            FOR NO KEY UPDATE OF credentials SKIP LOCKED
        ), recorded AS (
            UPDATE credentials
            SET last_refused_at = taken.at, last_refused_reason = taken.reason,
                last_refused_from = taken.address, last_refused_hint = taken.hint
            FROM taken
            WHERE credentials.secret_id = taken.secret_id
              AND coalesce(last_refused_at < taken.at, true)
            RETURNING credentials.secret_id, taken.reason
        )
        SELECT secret_id, recorded.reason
        FROM refused LEFT JOIN recorded USING (secret_id)
        WHERE secret_id IN (SELECT secret_id FROM taken)
           OR NOT EXISTS (SELECT FROM credentials WHERE credentials.secret_id = refused.secret_id)
    """
    parameters = {
        "secret_ids": [each.secret_id for each in refusals],
        "reasons": [each.reason for each in refusals],
        "hints": [each.hint for each in refusals],
        "addresses": [each.address for each in refusals],
        "seconds_ago": [each.seconds_ago for each in refusals],
        "presented_to": [each.secret_id for each in refusals for _ in each.digests],
        "digests": [digest for each in refusals for digest in each.digests],
        "days": _KEPT_DAYS,
    }
    with connection.cursor(row_factory=class_row(RecordedRefusal)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def select_ended_secrets(
    connection: Connection[TupleRow], *, digests: Sequence[bytes]
) -> list[EndedSecret]:
    """Return the ended client secrets with these digests, in any unit: for operators only."""
    query = """
        SELECT digest, ended_at, unit_id, secret_id, client_id, name
        FROM ended_secrets JOIN credentials USING (secret_id)
        WHERE digest = ANY(%(digests)s::bytea[])
    """
    with connection.cursor(row_factory=class_row(EndedSecret)) as cursor:
        return cursor.execute(query, {"digests": list(digests)}).fetchall()


def delete_old_ended_secrets(connection: Connection[TupleRow], *, limit: int) -> int:
    """Forget at most `limit` client secrets that ended long ago. Return how many.

    Those that are locked are left for the next time.
    """
    query = """
        WITH old AS (
            SELECT secret_id, digest FROM ended_secrets
            WHERE ended_at <= now() - make_interval(days => %(days)s)
            ORDER BY ended_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        DELETE FROM ended_secrets USING old
        WHERE ended_secrets.secret_id = old.secret_id AND ended_secrets.digest = old.digest
    """
    return connection.execute(query, {"days": _KEPT_DAYS, "limit": limit}).rowcount
