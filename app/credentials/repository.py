"""All SQL about credentials. A function is one statement."""

from dataclasses import asdict
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, kwargs_row
from psycopg.types.json import Json

from app.credentials.model import (
    Caller,
    ClientSecret,
    Credential,
    DetailedCredential,
    Event,
    HashedSecret,
    Position,
    StoredSecret,
    VerifiedCredential,
)

MAX_EVENT_ID = 2**63 - 1  # bigint's


def lock_unit(connection: Connection[TupleRow], *, unit_id: str) -> None:
    """Make other issues of the unit wait until the transaction ends."""
    query = "SELECT pg_advisory_xact_lock(hashtextextended(%(unit_id)s, 0))"
    connection.execute(query, {"unit_id": unit_id})


def insert_credential(  # noqa: PLR0913  each is a column
    connection: Connection[TupleRow],
    caller: Caller,
    *,
    secret_id: str,
    client_id: str,
    name: str,
    secret: HashedSecret,
    max_credentials: int,
) -> Credential | None:
    """Store a new credential, its first client secret and its audit event, all or nothing.

    Returns None if the unit already has `max_credentials`.
    """
    query = """
        WITH credential AS (
            INSERT INTO credentials (secret_id, unit_id, client_id, name)
            SELECT %(secret_id)s, %(unit_id)s, %(client_id)s, %(name)s
            WHERE (SELECT count(*) FROM credentials WHERE unit_id = %(unit_id)s)
                  < %(max_credentials)s
            RETURNING secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        ), client_secret AS (
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
            SELECT secret_id, %(secret_hash)s, %(digest)s, %(hint)s FROM credential
        ), event AS (
            INSERT INTO credential_events (
                secret_id, unit_id, event, actor, via, request_id, detail
            )
            SELECT secret_id, unit_id, 'issued', %(actor)s, %(via)s, %(request_id)s, %(detail)s
            FROM credential
        )
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credential
    """
    parameters = {
        "secret_id": secret_id,
        "client_id": client_id,
        "name": name,
        **asdict(secret),
        "max_credentials": max_credentials,
        **asdict(caller),
        "detail": Json({"client_id": client_id, "name": name}),
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchone()


def select_credentials(
    connection: Connection[TupleRow], *, unit_id: str, limit: int, after: Position | None
) -> list[Credential]:
    """Return the unit's credentials, newest first; starting behind `after`."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credentials
        WHERE unit_id = %(unit_id)s
          AND (created_at, secret_id) < (%(created_at)s::timestamptz, %(secret_id)s)
        ORDER BY created_at DESC, secret_id DESC
        LIMIT %(limit)s
    """
    parameters = {
        "unit_id": unit_id,
        "created_at": after.created_at if after else "infinity",
        "secret_id": after.secret_id if after else "",
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def find_credential(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> DetailedCredential | None:
    """Return the credential without its client secrets, or None if the unit has none such."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at, updated_at,
               greatest(ended_secrets_last_used_at, (
                   SELECT max(client_secrets.last_used_at) FROM client_secrets
                   WHERE client_secrets.secret_id = credentials.secret_id
               )) AS last_used_at
        FROM credentials
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
    """
    with connection.cursor(row_factory=class_row(DetailedCredential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchone()


def lock_credential(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> Credential | None:
    """Return the credential, and make other changes to it wait until the transaction ends."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credentials
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
        FOR UPDATE
    """
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchone()


def update_credential(connection: Connection[TupleRow], credential: Credential) -> None:
    """Store the credential's name and trust_upstream_consent."""
    query = """
        UPDATE credentials
        SET name = %(name)s,
            trust_upstream_consent = %(trust_upstream_consent)s,
            updated_at = clock_timestamp()
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
    """
    connection.execute(query, asdict(credential))


def delete_credential(connection: Connection[TupleRow], *, unit_id: str, secret_id: str) -> None:
    """Remove the credential and its client secrets; its trail stays."""
    query = "DELETE FROM credentials WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s"
    connection.execute(query, {"unit_id": unit_id, "secret_id": secret_id})


def select_client_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> list[ClientSecret]:
    """Return the credential's live client secrets, newest first."""
    query = """
        SELECT hint, client_secrets.created_at, client_secrets.last_used_at, expires_at
        FROM client_secrets JOIN credentials USING (secret_id)
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND (expires_at IS NULL OR expires_at > now())
        ORDER BY client_secret_id DESC
    """
    with connection.cursor(row_factory=class_row(ClientSecret)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchall()


def select_stored_secrets(
    connection: Connection[TupleRow], *, client_id: str
) -> list[StoredSecret]:
    """Return the client ID's live client secrets: the only read of a verification."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent,
               client_secret_id, secret_hash, digest,
               coalesce(
                   client_secrets.last_used_at < now() - interval '1 minute', true
               ) AS last_used_is_stale
        FROM credentials JOIN client_secrets USING (secret_id)
        WHERE client_id = %(client_id)s AND (expires_at IS NULL OR expires_at > now())
    """
    with connection.cursor(row_factory=kwargs_row(_stored_secret)) as cursor:
        return cursor.execute(query, {"client_id": client_id}).fetchall()


def update_digest(
    connection: Connection[TupleRow], *, client_secret_id: int, digest: bytes
) -> bool:
    """Store the digest, and tell whether the client secret is still live."""
    query = """
        UPDATE client_secrets SET digest = %(digest)s
        WHERE client_secret_id = %(client_secret_id)s
          AND (expires_at IS NULL OR expires_at > now())
    """
    parameters = {"client_secret_id": client_secret_id, "digest": digest}
    return connection.execute(query, parameters).rowcount == 1


def update_last_use(connection: Connection[TupleRow], used: dict[int, str]) -> None:
    """Record that client secrets were used now, but not twice in a minute.

    `used` has the `secret_id` of each `client_secret_id`: where a client secret has been deleted
    since, the credential keeps its last use.
    """
    query = """
        WITH used AS (
            SELECT client_secret_id, secret_id
            FROM unnest(%(client_secret_ids)s::bigint[], %(secret_ids)s::text[])
                AS used (client_secret_id, secret_id)
        ), recorded AS (
            UPDATE client_secrets SET last_used_at = now()
            FROM used
            WHERE client_secrets.client_secret_id = used.client_secret_id
              AND coalesce(last_used_at < now() - interval '1 minute', true)
        )
        UPDATE credentials SET ended_secrets_last_used_at = now()
        FROM used
        WHERE credentials.secret_id = used.secret_id
          AND NOT EXISTS (
              SELECT FROM client_secrets
              WHERE client_secrets.client_secret_id = used.client_secret_id
          )
    """
    parameters = {"client_secret_ids": list(used), "secret_ids": list(used.values())}
    connection.execute(query, parameters)


def update_digests(connection: Connection[TupleRow], digests: dict[int, bytes]) -> None:
    """Store each client secret's digest, by `client_secret_id`."""
    query = """
        UPDATE client_secrets SET digest = renewed.digest
        FROM unnest(%(client_secret_ids)s::bigint[], %(digests)s::bytea[])
            AS renewed (client_secret_id, digest)
        WHERE client_secrets.client_secret_id = renewed.client_secret_id
    """
    parameters = {"client_secret_ids": list(digests), "digests": list(digests.values())}
    connection.execute(query, parameters)


def delete_ended_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str, keep: int
) -> None:
    """Delete the client secrets that have expired, and all but the newest `keep` of the others.

    Once ended, a client secret must be gone and not only dated: a step back of the database's clock
    would revive it. The credential keeps its last use. The clock is read while the credential is
    locked, so a transaction that waited for the lock also ends what was made in the meantime.
    """
    query = """
        WITH ended AS (
            DELETE FROM client_secrets
            USING credentials
            WHERE credentials.secret_id = client_secrets.secret_id
              AND unit_id = %(unit_id)s AND credentials.secret_id = %(secret_id)s
              AND (
                  expires_at <= clock_timestamp()
                  OR client_secret_id NOT IN (
                      SELECT client_secret_id FROM client_secrets
                      WHERE secret_id = %(secret_id)s
                        AND (expires_at IS NULL OR expires_at > clock_timestamp())
                      ORDER BY client_secret_id DESC
                      LIMIT %(keep)s
                  )
              )
            RETURNING client_secrets.last_used_at
        )
        UPDATE credentials
        SET ended_secrets_last_used_at = greatest(
            ended_secrets_last_used_at, (SELECT max(last_used_at) FROM ended)
        )
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND EXISTS (SELECT FROM ended)
    """
    connection.execute(query, {"unit_id": unit_id, "secret_id": secret_id, "keep": keep})


def expire_client_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str, overlap_seconds: int
) -> None:
    """Let the client secrets live for the overlap, but no longer than they would have."""
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


def insert_client_secret(
    connection: Connection[TupleRow], *, secret_id: str, secret: HashedSecret
) -> None:
    """Store another client secret, created at the clock's time (see `insert_event`)."""
    query = """
        INSERT INTO client_secrets (secret_id, secret_hash, digest, hint, created_at)
        VALUES (%(secret_id)s, %(secret_hash)s, %(digest)s, %(hint)s, clock_timestamp())
    """
    connection.execute(query, {"secret_id": secret_id, **asdict(secret)})


def insert_event(
    connection: Connection[TupleRow],
    caller: Caller,
    secret_id: str,
    event: str,
    *,
    detail: dict[str, Any],
) -> None:
    """Add to the audit trail, in the same transaction as the change that it records.

    It takes the clock's time, not the transaction's: a transaction that waited for a lock began
    earlier than the one that it waited for.
    """
    query = """
        INSERT INTO credential_events (
            secret_id, unit_id, event, actor, via, at, request_id, detail
        )
        VALUES (
            %(secret_id)s, %(unit_id)s, %(event)s, %(actor)s, %(via)s, clock_timestamp(),
            %(request_id)s, %(detail)s
        )
    """
    parameters = {
        "secret_id": secret_id,
        "event": event,
        **asdict(caller),
        "detail": Json(detail),
    }
    connection.execute(query, parameters)


def select_events(
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    secret_id: str,
    limit: int,
    before: int | None,
) -> list[Event]:
    """Return the credential's events, newest first, older than the event `before`."""
    query = """
        SELECT event_id, event, actor, at, request_id, detail
        FROM credential_events
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s AND event_id < %(before)s
        ORDER BY event_id DESC
        LIMIT %(limit)s
    """
    parameters = {
        "unit_id": unit_id,
        "secret_id": secret_id,
        "before": MAX_EVENT_ID if before is None else before,
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _stored_secret(
    *,
    client_secret_id: int,
    secret_hash: str,
    digest: bytes | None,
    last_used_is_stale: bool,
    **credential: Any,
) -> StoredSecret:
    return StoredSecret(
        VerifiedCredential(**credential), client_secret_id, secret_hash, digest, last_used_is_stale
    )
