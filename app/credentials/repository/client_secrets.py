"""The table `client_secrets`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row
from psycopg.sql import SQL

from app.credentials.errors import Refusal
from app.credentials.model import (
    ClientSecret,
    ExpiringSecrets,
    FoundSecret,
    HashedSecret,
    RecordedUse,
    StoredSecret,
    Use,
    VerifiedCredential,
)
from app.credentials.repository.ended_secrets import REMEMBER_ENDED
from app.database.connection import PreparedSelect
from app.database.pool import Database

# A last use is recorded at most once in this time, so the true one may be later by as much.
LAST_USE_SECONDS = 60


def select_client_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> list[ClientSecret]:
    """Return the credential's live client secrets, newest first.

    It compares with the clock and not with the transaction's time: the transaction may have waited
    for the credential's lock since it began.
    """
    query = """
        SELECT client_secret_id, hint, client_secrets.created_at, client_secrets.last_used_at,
               last_used_from, expires_at
        FROM client_secrets JOIN credentials USING (secret_id)
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND (expires_at IS NULL OR expires_at > clock_timestamp())
        ORDER BY client_secret_id DESC
    """
    with connection.cursor(row_factory=class_row(ClientSecret)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchall()


STORED_SECRETS = PreparedSelect(f"""
    SELECT coalesce(client_secret_id, 0), coalesce(secret_hash, ''), digest, coalesce(hint, ''),
           extract(epoch FROM expires_at)::float8,
           coalesce(
               client_secrets.last_used_at < now() - interval '{LAST_USE_SECONDS} seconds', true
           ),
           CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
                WHEN expires_at <= now() THEN 'expired' END,
           array_to_string(scopes, ','), array_to_string(addresses, ','),
           secret_id, unit_id, client_id, name, trust_upstream_consent
    FROM credentials LEFT JOIN client_secrets USING (secret_id)
    WHERE client_id = $1
""")  # noqa: S608  the number is ours


def select_stored_secrets(
    database: Database, *, client_id: str, seconds: float
) -> list[StoredSecret]:
    """Return the client secrets of the client ID: the only read of a verification.

    Expired ones and those of a disabled credential are included, with their `refusal`. A credential
    without any has one that nothing matches, so that its owner learns of refusals. The query
    returns `expires_at` as a number, because psycopg looks up a time zone for each result with
    times. Raises what `Database.connection` raises.
    """
    return stored_secrets(database.select(STORED_SECRETS, client_id, seconds=seconds))


def stored_secrets(rows: Iterable[TupleRow]) -> list[StoredSecret]:
    """Return the client secrets in the rows of STORED_SECRETS."""
    return [_stored_secret(*row) for row in rows]


def _stored_secret(  # noqa: PLR0913, PLR0917  each is a column
    client_secret_id: int,
    secret_hash: str,
    digest: bytes | None,
    hint: str,
    expires_at: float | None,
    last_used_is_stale: bool,  # noqa: FBT001  a column
    refusal: Refusal | None,
    scopes: str | None,
    addresses: str | None,
    *credential: Any,
) -> StoredSecret:
    return StoredSecret(
        VerifiedCredential(*credential),
        client_secret_id,
        secret_hash,
        digest,
        hint,
        None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        last_used_is_stale,
        refusal,
        scopes,
        addresses,
    )


def count_expiring_secrets(connection: Connection[TupleRow]) -> ExpiringSecrets:
    """Count the client secrets, in all units, that expire soon and have no successor.

    For operators. A successor is a client secret of the same credential that expires later. Only
    the 20,000 that expire first are looked at, each in the index: with NOT EXISTS, Postgres would
    read the whole table.
    """
    query = """
        WITH ending AS (
            SELECT client_secret_id, secret_id, expires_at
            FROM client_secrets
            WHERE expires_at > now() AND expires_at <= now() + interval '30 days'
            ORDER BY expires_at
            LIMIT 20000
        )
        SELECT count(*) FILTER (
                   WHERE expires_at <= now() + interval '7 days'
               ) AS within_7_days,
               count(*) AS within_30_days
        FROM ending
        WHERE 0 = (
            SELECT count(*) FROM client_secrets AS successor
            WHERE successor.secret_id = ending.secret_id
              AND (successor.expires_at IS NULL
                   OR (successor.expires_at, successor.client_secret_id)
                      > (ending.expires_at, ending.client_secret_id))
        )
    """
    with connection.cursor(row_factory=class_row(ExpiringSecrets)) as cursor:
        return cursor.execute(query).fetchone() or ExpiringSecrets(0, 0)


def update_digest(
    connection: Connection[TupleRow], *, client_secret_id: int, digest: bytes
) -> bool:
    """Store the digest. Return whether the client secret is live and its credential enabled."""
    query = """
        UPDATE client_secrets SET digest = %(digest)s
        FROM credentials
        WHERE credentials.secret_id = client_secrets.secret_id
          AND client_secret_id = %(client_secret_id)s AND disabled_at IS NULL
          AND (expires_at IS NULL OR expires_at > now())
    """
    parameters = {"client_secret_id": client_secret_id, "digest": digest}
    return connection.execute(query, parameters).rowcount == 1


def update_last_use(connection: Connection[TupleRow], uses: Sequence[Use]) -> list[RecordedUse]:
    """Record when client secrets were used and from where, each at most once a minute.

    The first use of each has its event, exactly once: its row is locked while it has no use, and so
    is the credential's, so that the event does not follow the credential's end. Uses whose row is
    locked, or has been deleted, are not returned. A client secret that is used has reached its
    owner, so the stored response that contains it is erased; a use is not settled while that is
    locked.
    """
    query = """
        WITH used AS (
            SELECT client_secret_id, clock_timestamp() - make_interval(secs => seconds_ago) AS at,
                   address, request_id
            FROM unnest(
                %(client_secret_ids)s::bigint[], %(seconds_ago)s::float8[], %(addresses)s::text[],
                %(request_ids)s::text[]
            ) AS used (client_secret_id, seconds_ago, address, request_id)
        ), first_use AS (
            SELECT client_secret_id, hint, secret_id, unit_id, client_id, name, used.address,
                   used.request_id
            FROM used
            JOIN client_secrets USING (client_secret_id)
            JOIN credentials USING (secret_id)
            WHERE last_used_at IS NULL
            ORDER BY client_secret_id
            FOR NO KEY UPDATE OF credentials, client_secrets SKIP LOCKED
        ), taken AS (
            SELECT client_secret_id, used.at, used.address
            FROM client_secrets JOIN used USING (client_secret_id)
            WHERE last_used_at IS NOT NULL
               OR client_secret_id IN (SELECT client_secret_id FROM first_use)
            ORDER BY client_secret_id
            FOR NO KEY UPDATE OF client_secrets SKIP LOCKED
        ), event AS (
            INSERT INTO credential_events (
                secret_id, unit_id, client_id, name, event, actor, via, address, at, request_id,
                detail
            )
            SELECT secret_id, unit_id, client_id, name, 'first_used', client_id, 'verify', address,
                   clock_timestamp(), request_id, json_build_object('hint', hint)
            FROM first_use
        ), recorded AS (
            UPDATE client_secrets SET last_used_at = taken.at, last_used_from = taken.address
            FROM taken
            WHERE client_secrets.client_secret_id = taken.client_secret_id
              AND coalesce(last_used_at < taken.at - make_interval(secs => %(seconds)s), true)
        ), stored AS (
            SELECT key_hash, client_secret_id
            FROM sealed_answers JOIN taken USING (client_secret_id)
        ), erased AS (
            DELETE FROM sealed_answers
            WHERE key_hash IN (
                SELECT key_hash FROM sealed_answers
                WHERE key_hash IN (SELECT key_hash FROM stored)
                FOR UPDATE SKIP LOCKED
            )
            RETURNING key_hash
        )
        SELECT client_secret_id,
               client_secret_id IN (SELECT client_secret_id FROM first_use) AS is_first,
               client_secret_id NOT IN (
                   SELECT client_secret_id FROM stored
                   WHERE key_hash NOT IN (SELECT key_hash FROM erased)
               ) AS is_settled
        FROM taken
    """
    parameters = {
        "client_secret_ids": [each.client_secret_id for each in uses],
        "seconds_ago": [each.seconds_ago for each in uses],
        "addresses": [each.address for each in uses],
        "request_ids": [each.request_id for each in uses],
        "seconds": LAST_USE_SECONDS,
    }
    with connection.cursor(row_factory=class_row(RecordedUse)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def update_ended_last_use(connection: Connection[TupleRow], uses: Sequence[Use]) -> set[int]:
    """Let credentials keep the uses of those client secrets that have been deleted.

    Call it after `update_last_use`: it is a statement of its own, because it has to see a deletion
    that was committed during that one. Returns the `client_secret_id` of each that needs no other
    attempt: not those that still exist, or whose credential is locked.
    """
    query = """
        WITH ended AS (
            SELECT client_secret_id, secret_id,
                   clock_timestamp() - make_interval(secs => seconds_ago) AS at
            FROM unnest(
                %(client_secret_ids)s::bigint[], %(secret_ids)s::text[], %(seconds_ago)s::float8[]
            ) AS used (client_secret_id, secret_id, seconds_ago)
            WHERE NOT EXISTS (
                SELECT FROM client_secrets
                WHERE client_secrets.client_secret_id = used.client_secret_id
            )
        ), taken AS (
            SELECT secret_id FROM credentials
            WHERE secret_id IN (SELECT secret_id FROM ended)
            ORDER BY secret_id
            FOR NO KEY UPDATE SKIP LOCKED
        ), kept AS (
            UPDATE credentials
            SET ended_secrets_last_used_at = greatest(ended_secrets_last_used_at, latest.at)
            FROM (
                SELECT secret_id, max(at) AS at FROM ended JOIN taken USING (secret_id)
                GROUP BY secret_id
            ) AS latest
            WHERE credentials.secret_id = latest.secret_id
        )
        SELECT client_secret_id FROM ended
        WHERE secret_id IN (SELECT secret_id FROM taken)
           OR NOT EXISTS (SELECT FROM credentials WHERE credentials.secret_id = ended.secret_id)
    """
    parameters = {
        "client_secret_ids": [each.client_secret_id for each in uses],
        "secret_ids": [each.secret_id for each in uses],
        "seconds_ago": [each.seconds_ago for each in uses],
    }
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(query, parameters).fetchall())


def update_digests(connection: Connection[TupleRow], digests: Mapping[int, bytes]) -> set[int]:
    """Store each client secret's digest, by `client_secret_id`.

    Returns the `client_secret_id` of each that needs no other attempt: not those that are locked.
    """
    query = """
        WITH renewed AS (
            SELECT client_secret_id, digest
            FROM unnest(%(client_secret_ids)s::bigint[], %(digests)s::bytea[])
                AS renewed (client_secret_id, digest)
        ), taken AS (
            SELECT client_secret_id, renewed.digest
            FROM client_secrets JOIN renewed USING (client_secret_id)
            ORDER BY client_secret_id
            FOR NO KEY UPDATE OF client_secrets SKIP LOCKED
        ), stored AS (
            UPDATE client_secrets SET digest = taken.digest
            FROM taken
            WHERE client_secrets.client_secret_id = taken.client_secret_id
        )
        SELECT client_secret_id FROM renewed
        WHERE client_secret_id IN (SELECT client_secret_id FROM taken)
           OR NOT EXISTS (
               SELECT FROM client_secrets
               WHERE client_secrets.client_secret_id = renewed.client_secret_id
           )
    """
    parameters = {"client_secret_ids": list(digests), "digests": list(digests.values())}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(query, parameters).fetchall())


def delete_client_secrets(
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    secret_id: str,
    keep: Sequence[ClientSecret],
) -> None:
    """Delete the client secrets of the credential, except those to keep.

    An ended client secret must be deleted, not only dated: if the database's clock were set back,
    it would be live again. The credential keeps its last use.
    """
    query = f"""
        WITH ended AS (
            DELETE FROM client_secrets
            USING credentials
            WHERE credentials.secret_id = client_secrets.secret_id
              AND unit_id = %(unit_id)s AND credentials.secret_id = %(secret_id)s
              AND client_secret_id <> ALL(%(keep)s::bigint[])
            RETURNING client_secrets.secret_id, client_secrets.last_used_at, digest, hint,
                      expires_at
        ), {REMEMBER_ENDED}
        SELECT count(*) FROM ended
    """  # noqa: S608  the part is ours
    parameters = {
        "unit_id": unit_id,
        "secret_id": secret_id,
        "keep": [each.client_secret_id for each in keep],
    }
    connection.execute(query, parameters)


def delete_expired_secrets_of(
    connection: Connection[TupleRow], *, unit_id: str, secret_ids: Sequence[str]
) -> None:
    """Delete the expired client secrets of these credentials of the unit, which are locked."""
    query = f"""
        WITH ended AS (
            DELETE FROM client_secrets
            USING credentials
            WHERE credentials.secret_id = client_secrets.secret_id
              AND unit_id = %(unit_id)s
              AND credentials.secret_id = ANY(%(secret_ids)s::text[])
              AND expires_at <= clock_timestamp()
            RETURNING client_secrets.secret_id, client_secrets.last_used_at, digest, hint,
                      expires_at
        ), {REMEMBER_ENDED}
        SELECT count(*) FROM ended
    """  # noqa: S608  the part is ours
    connection.execute(query, {"unit_id": unit_id, "secret_ids": list(secret_ids)})


def delete_expired_secrets(connection: Connection[TupleRow], *, limit: int) -> int:
    """Delete at most `limit` client secrets, in all units, that have expired. Return how many.

    Otherwise they would be live again if the database's clock were set back. Their credentials
    keep their last use. Those that are locked are left for the next time.
    """
    query = f"""
        WITH credential AS (
            SELECT secret_id FROM credentials
            WHERE secret_id IN (
                SELECT secret_id FROM client_secrets
                WHERE expires_at <= now()
                ORDER BY expires_at
                LIMIT %(limit)s
            )
            ORDER BY secret_id
            FOR NO KEY UPDATE SKIP LOCKED
        ), expired AS (
            SELECT client_secret_id
            FROM client_secrets JOIN credential USING (secret_id)
            WHERE expires_at <= now()
            ORDER BY client_secret_id
            LIMIT %(limit)s
            FOR UPDATE OF client_secrets SKIP LOCKED
        ), ended AS (
            DELETE FROM client_secrets
            WHERE client_secret_id IN (SELECT client_secret_id FROM expired)
              AND expires_at <= now()
            RETURNING secret_id, last_used_at, digest, hint, expires_at
        ), {REMEMBER_ENDED}
        SELECT count(*) FROM ended
    """  # noqa: S608  the part is ours
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, {"limit": limit}).fetchone() or 0


def expire_client_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str, overlap_seconds: int
) -> None:
    """Let the client secrets expire after the overlap, or earlier if they would anyway."""
    query = """
        UPDATE client_secrets
        SET expires_at = least(
            expires_at, clock_timestamp() + make_interval(secs => %(overlap_seconds)s)
        )
        FROM credentials
        WHERE credentials.secret_id = client_secrets.secret_id
          AND unit_id = %(unit_id)s AND credentials.secret_id = %(secret_id)s
    """
    parameters = {
        "unit_id": unit_id,
        "secret_id": secret_id,
        "overlap_seconds": overlap_seconds,
    }
    connection.execute(query, parameters)


def update_expiry(
    connection: Connection[TupleRow], *, client_secret_id: int, expires_at: datetime
) -> None:
    """Set when the client secret expires."""
    query = """
        UPDATE client_secrets SET expires_at = %(expires_at)s
        WHERE client_secret_id = %(client_secret_id)s
    """
    parameters = {"client_secret_id": client_secret_id, "expires_at": expires_at}
    connection.execute(query, parameters)


def insert_client_secret(
    connection: Connection[TupleRow],
    *,
    secret_id: str,
    secret: HashedSecret,
    expires_at: datetime | None,
) -> None:
    """Store another client secret, with the clock's time (see `insert_event`)."""
    query = """
        INSERT INTO client_secrets (secret_id, secret_hash, digest, hint, created_at, expires_at)
        VALUES (
            %(secret_id)s, %(secret_hash)s, %(digest)s, %(hint)s, clock_timestamp(),
            %(expires_at)s
        )
    """
    parameters = {"secret_id": secret_id, **asdict(secret), "expires_at": expires_at}
    connection.execute(query, parameters)


_FOUND = SQL("""
    SELECT client_secret_id, hint, client_secrets.last_used_at, last_used_from, secret_hash, digest,
           leak_reported_at, unit_id, secret_id, client_id, name
    FROM client_secrets JOIN credentials USING (secret_id)
    WHERE {condition} AND (expires_at IS NULL OR expires_at > clock_timestamp())
""")


def select_secrets_by_digest(
    connection: Connection[TupleRow], *, digests: Sequence[bytes]
) -> list[FoundSecret]:
    """Return the live client secrets with these digests, in any unit."""
    query = _FOUND.format(condition=SQL("digest = ANY(%(digests)s::bytea[])"))
    with connection.cursor(row_factory=class_row(FoundSecret)) as cursor:
        return cursor.execute(query, {"digests": list(digests)}).fetchall()


def select_secrets_without_digest(
    connection: Connection[TupleRow], *, key_ids: Sequence[bytes], hints: Sequence[str]
) -> list[FoundSecret]:
    """Return the live client secrets with these hints that have no digest under any of the keys.

    In any unit: for operators. A digest begins with its key's identifier, so those under other keys
    are between those under ours: unless a key was lost, the index shows that there are none.
    """
    query = _FOUND.format(
        condition=SQL("""
            hint = ANY(%(hints)s::text[]) AND client_secret_id IN (
                SELECT client_secret_id FROM client_secrets WHERE digest IS NULL
                UNION ALL
                SELECT client_secret_id
                FROM unnest(%(starts)s::bytea[], %(ends)s::bytea[]) AS between_keys (start, stop)
                JOIN client_secrets ON digest >= start AND digest < stop
            )
        """)
    )
    keys = sorted(key_ids)
    parameters = {
        "hints": list(hints),
        "starts": [b"", *(key + b"\xff" * 33 for key in keys)],
        "ends": [*keys, b"\xff" * 41],
    }
    with connection.cursor(row_factory=class_row(FoundSecret)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def select_secrets(
    connection: Connection[TupleRow], *, client_secret_ids: Sequence[int]
) -> list[FoundSecret]:
    """Return those of the client secrets that are live, in the order in which they were made."""
    condition = SQL("client_secret_id = ANY(%(client_secret_ids)s::bigint[])")
    query = _FOUND.format(condition=condition) + SQL("ORDER BY client_secret_id")
    with connection.cursor(row_factory=class_row(FoundSecret)) as cursor:
        return cursor.execute(query, {"client_secret_ids": list(client_secret_ids)}).fetchall()


def delete_leaked_secrets(
    connection: Connection[TupleRow], *, client_secret_ids: Sequence[int]
) -> None:
    """Delete these client secrets, whose credentials are locked, and keep their last use."""
    query = f"""
        WITH ended AS (
            DELETE FROM client_secrets WHERE client_secret_id = ANY(%(client_secret_ids)s::bigint[])
            RETURNING secret_id, last_used_at, digest, hint, expires_at
        ), {REMEMBER_ENDED}
        SELECT count(*) FROM ended
    """  # noqa: S608  the part is ours
    connection.execute(query, {"client_secret_ids": list(client_secret_ids)})


def update_leak_reported(
    connection: Connection[TupleRow], *, client_secret_ids: Sequence[int]
) -> None:
    """Record that these client secrets, whose credentials are locked, were reported as leaked."""
    query = """
        UPDATE client_secrets SET leak_reported_at = clock_timestamp()
        WHERE client_secret_id = ANY(%(client_secret_ids)s::bigint[])
    """
    connection.execute(query, {"client_secret_ids": list(client_secret_ids)})
