"""The only SQL about credentials. A function is one statement."""

from psycopg import Connection
from psycopg.rows import TupleRow, class_row

from app.credentials.model import Credential, Origin


def insert_credential(  # noqa: PLR0913  each is a column
    connection: Connection[TupleRow],
    *,
    secret_id: str,
    unit_id: str,
    client_id: str,
    name: str,
    secret_hash: str,
    digest: bytes,
    hint: str,
    origin: Origin,
) -> Credential:
    """Store a new credential, its first client secret and its audit event, all or nothing."""
    query = """
        WITH credential AS (
            INSERT INTO credentials (secret_id, unit_id, client_id, name)
            VALUES (%(secret_id)s, %(unit_id)s, %(client_id)s, %(name)s)
            RETURNING secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        ), client_secret AS (
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
            VALUES (%(secret_id)s, %(secret_hash)s, %(digest)s, %(hint)s)
        ), event AS (
            INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id)
            VALUES (%(secret_id)s, %(unit_id)s, 'issued', %(actor)s, %(request_id)s)
        )
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credential
    """
    parameters = {
        "secret_id": secret_id,
        "unit_id": unit_id,
        "client_id": client_id,
        "name": name,
        "secret_hash": secret_hash,
        "digest": digest,
        "hint": hint,
        "actor": origin.actor,
        "request_id": origin.request_id,
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchall()[0]


def select_credentials(connection: Connection[TupleRow], *, unit_id: str) -> list[Credential]:
    """Return the unit's credentials, newest first."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credentials
        WHERE unit_id = %(unit_id)s
        ORDER BY created_at DESC, secret_id DESC
    """
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id}).fetchall()
