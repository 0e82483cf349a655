"""All SQL about credentials. Each function runs one statement.

The order in which rows are locked, so that no two transactions wait for each other:

1. the unit (an advisory lock), 2. credentials, 3. their client secrets, by `client_secret_id`,
4. their stored responses (`sealed_answers`). A deletion cascades in this order too.

A change to a credential locks its row before the others, so it may wait for all of these. Whoever
locks client secrets or stored responses without the credential's row skips those that are locked
(`SKIP LOCKED`) and tries again later: the background writer, and what it deletes every minute.
`update_digest` locks a single row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Json

from app.credentials.cases import pattern_in_any_case
from app.credentials.errors import Refusal
from app.credentials.model import (
    START_OF_TRAIL,
    Caller,
    ClientSecret,
    Credential,
    CredentialFilter,
    CredentialPosition,
    DetailedCredential,
    Event,
    EventFilter,
    EventKey,
    EventName,
    ExpiringSecrets,
    HashedSecret,
    LockedCredential,
    Order,
    RecentUse,
    StoredResponse,
    StoredSecret,
    Survival,
    TrailPosition,
    TrailWindow,
    UnitEvent,
    Use,
    VerifiedCredential,
    WriterState,
)
from app.database.connection import BoundedConnection, PreparedSelect
from app.database.pool import Database

# A last use is recorded at most once in this time, so the true one may be later by as much.
LAST_USE_SECONDS = 60

RESPONSE_SECONDS = 24 * 60 * 60  # how long a response can be replayed

_SEEN_SECONDS = 10  # how often a writer records that it lives
_FORGET_SECONDS = 60  # after which a writer that was killed stops no conditional revocation

UnitChange = Literal["disabled", "enabled", "revoked"]

MAX_EVENT_ID = 2**63 - 1  # bigint's

_END_OF_TRAIL = TrailPosition(transaction_id=2**64 - 1, event_id=MAX_EVENT_ID)

_NOTHING = SQL("")

_UNKNOWN_WRITER = WriterState(asked=0, is_asked=False, is_due=True)

_UNIT_CHANGES: Mapping[UnitChange, SQL] = {
    "disabled": SQL("""
        UPDATE credentials
        SET disabled_at = clock_timestamp(), disabled_with_unit = true,
            updated_at = clock_timestamp()
        WHERE unit_id = %(unit_id)s AND disabled_at IS NULL
    """),
    "enabled": SQL("""
        UPDATE credentials
        SET disabled_at = NULL, disabled_with_unit = false, updated_at = clock_timestamp()
        WHERE unit_id = %(unit_id)s AND disabled_with_unit
    """),
    "revoked": SQL("DELETE FROM credentials WHERE unit_id = %(unit_id)s"),
}


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


def insert_credential(  # noqa: PLR0913  each is a column
    connection: Connection[TupleRow],
    caller: Caller,
    *,
    secret_id: str,
    client_id: str,
    name: str,
    secret: HashedSecret,
    expires_at: datetime | None,
    detail: dict[str, Any],
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
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint, expires_at)
            SELECT secret_id, %(secret_hash)s, %(digest)s, %(hint)s, %(expires_at)s
            FROM credential
        ), event AS (
            INSERT INTO credential_events (
                secret_id, unit_id, client_id, name, event, actor, via, address, request_id, detail
            )
            SELECT secret_id, unit_id, client_id, name, 'issued', %(actor)s, %(via)s, %(address)s,
                   %(request_id)s, %(detail)s
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
        "expires_at": expires_at,
        "max_credentials": max_credentials,
        **asdict(caller),
        "detail": Json(detail),
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchone()


_LISTED = """
    SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
    FROM credentials
    WHERE unit_id = $1
      AND (created_at, secret_id) < ($2::timestamptz, $3)
      {conditions}
    ORDER BY created_at DESC, secret_id DESC
    LIMIT $4::bigint
"""
# The condition of each field of CredentialFilter. They count, because for NOT EXISTS Postgres may
# read the client secrets of all units.
_CONDITIONS = {
    "client_id": "client_id = {value}",
    "name": "name ~ {value}",
    "enabled": "(disabled_at IS NULL) = {value}::boolean",
    "expiring_before": """0 = (
          SELECT count(*) FROM client_secrets
          WHERE client_secrets.secret_id = credentials.secret_id
            AND (expires_at IS NULL OR expires_at > greatest({value}::timestamptz, now()))
      )""",
    "unused_since": """greatest(created_at, ended_secrets_last_used_at) < {value}::timestamptz
      AND 0 = (
          SELECT count(*) FROM client_secrets
          WHERE client_secrets.secret_id = credentials.secret_id
            AND greatest(client_secrets.created_at, client_secrets.last_used_at)
                >= {value}::timestamptz
      )""",
}


@cache
def _list_of(conditions: tuple[str, ...]) -> PreparedSelect:
    """Return the SELECT with these conditions, so that each combination has its own plan."""
    texts = [_CONDITIONS[name].format(value=f"${5 + n}") for n, name in enumerate(conditions)]
    return PreparedSelect(_LISTED.format(conditions="".join(f"AND {each} " for each in texts)))


def select_credentials(
    connection: BoundedConnection,
    *,
    unit_id: str,
    only: CredentialFilter,
    limit: int,
    after: CredentialPosition | None,
) -> list[Credential]:
    """Return the unit's credentials that pass the filter, newest first, starting after `after`."""
    values = {name: value for name, value in asdict(only).items() if value is not None}
    if only.name is not None:
        values["name"] = pattern_in_any_case(only.name)
    rows = connection.select(
        _list_of(tuple(values)),
        unit_id,
        str(after.created_at) if after else "infinity",
        after.secret_id if after else "",
        str(limit),
        *map(str, values.values()),
    )
    return [Credential(*row) for row in rows]


def count_credentials(
    connection: Connection[TupleRow], *, unit_id: str, enabled: bool | None
) -> int:
    """Count the credentials of the unit, or only those that are enabled or not."""
    query = """
        SELECT count(*) FROM credentials
        WHERE unit_id = %(unit_id)s
          AND (%(enabled)s::boolean IS NULL OR (disabled_at IS NULL) = %(enabled)s)
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        [count] = cursor.execute(query, {"unit_id": unit_id, "enabled": enabled}).fetchall()
    return int(count)


_DETAILED = PreparedSelect("""
    SELECT credentials.secret_id, unit_id, client_id, name, trust_upstream_consent,
           credentials.created_at, (
               SELECT actor FROM credential_events
               WHERE credential_events.unit_id = credentials.unit_id
                 AND credential_events.secret_id = credentials.secret_id
                 AND event = 'issued'
           ) AS created_by,
           updated_at,
           greatest(ended_secrets_last_used_at, (
               SELECT max(client_secrets.last_used_at) FROM client_secrets
               WHERE client_secrets.secret_id = credentials.secret_id
           )) AS last_used_at,
           disabled_at,
           client_secret_id, hint, live.created_at, live.last_used_at, expires_at
    FROM credentials
    LEFT JOIN client_secrets AS live
        ON live.secret_id = credentials.secret_id
        AND (expires_at IS NULL OR expires_at > clock_timestamp())
    WHERE unit_id = $1 AND credentials.secret_id = $2
    ORDER BY client_secret_id DESC
""")


def find_credential(
    connection: BoundedConnection, *, unit_id: str, secret_id: str
) -> DetailedCredential | None:
    """Return the credential with its live client secrets, or None if the unit has no such one."""
    rows = connection.select(_DETAILED, unit_id, secret_id)
    if not rows:
        return None
    of_secret = len(fields(ClientSecret))
    secrets = [ClientSecret(*row[-of_secret:]) for row in rows if row[-of_secret] is not None]
    return replace(DetailedCredential(*rows[0][:-of_secret]), secrets=secrets)


def find_owner(connection: Connection[TupleRow], *, client_id: str) -> tuple[str, str] | None:
    """Return the `unit_id` and `secret_id` of the client ID, in any unit: for operators only."""
    query = "SELECT unit_id, secret_id FROM credentials WHERE client_id = %(client_id)s"
    with connection.cursor() as cursor:
        return cursor.execute(query, {"client_id": client_id}).fetchone()


def select_units(connection: Connection[TupleRow], *, secret_ids: Sequence[str]) -> dict[str, str]:
    """Return the `unit_id` of each of the credentials that exists: for operators only."""
    query = "SELECT secret_id, unit_id FROM credentials WHERE secret_id = ANY(%(secret_ids)s)"
    with connection.cursor() as cursor:
        return dict(cursor.execute(query, {"secret_ids": list(secret_ids)}).fetchall())


def lock_credential(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> LockedCredential | None:
    """Return the credential, and make other changes to it wait until the transaction ends."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at,
               disabled_at IS NULL AS enabled, disabled_with_unit
        FROM credentials
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
        FOR UPDATE
    """
    with connection.cursor(row_factory=class_row(LockedCredential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchone()


def find_recent_use(
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    secret_id: str,
    within_seconds: int,
    seconds_ago: float | None,
) -> RecentUse:
    """Return whether the locked credential was used, or got a client secret, `within_seconds`.

    `seconds_ago` is a use that may not be recorded yet. It locks the client secrets too: any other
    use is recorded only after the transaction.
    """
    query = """
        WITH locked AS (
            SELECT client_secrets.last_used_at, client_secrets.created_at
            FROM client_secrets JOIN credentials USING (secret_id)
            WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
            ORDER BY client_secret_id
            FOR UPDATE OF client_secrets
        ), latest AS (
            SELECT greatest(
                       ended_secrets_last_used_at,
                       (SELECT max(last_used_at) FROM locked),
                       clock_timestamp() - make_interval(secs => %(seconds_ago)s::float8)
                   ) AS used_at,
                   greatest(
                       credentials.created_at, (SELECT max(locked.created_at) FROM locked)
                   ) AS created_at
            FROM credentials
            WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
        )
        SELECT CASE WHEN used_at > clock_timestamp() - make_interval(
                        secs => %(within_seconds)s + %(last_use_seconds)s
                    ) THEN used_at END AS last_used_at,
               created_at > clock_timestamp() - make_interval(
                   secs => %(within_seconds)s
               ) AS has_new_secret
        FROM latest
    """
    parameters = {
        "unit_id": unit_id,
        "secret_id": secret_id,
        "within_seconds": within_seconds,
        "last_use_seconds": LAST_USE_SECONDS,
        "seconds_ago": seconds_ago,
    }
    with connection.cursor(row_factory=class_row(RecentUse)) as cursor:
        return cursor.execute(query, parameters).fetchone() or RecentUse(None, has_new_secret=False)


def update_credential(connection: Connection[TupleRow], credential: LockedCredential) -> None:
    """Store the fields of the credential that can be changed."""
    query = """
        UPDATE credentials
        SET name = %(name)s,
            trust_upstream_consent = %(trust_upstream_consent)s,
            disabled_at = CASE WHEN NOT %(enabled)s
                               THEN coalesce(disabled_at, clock_timestamp()) END,
            disabled_with_unit = %(disabled_with_unit)s,
            updated_at = clock_timestamp()
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
    """
    connection.execute(query, asdict(credential))


def change_unit(connection: Connection[TupleRow], caller: Caller, event: UnitChange) -> list[str]:
    """Disable, enable or revoke all credentials of the unit, with an event for each.

    Returns the `secret_id` of each that was changed. Only credentials that were disabled with the
    unit are enabled.
    """
    query = SQL("""
        WITH changed AS (
            {change} RETURNING secret_id, unit_id, client_id, name
        )
        INSERT INTO credential_events (
            secret_id, unit_id, client_id, name, event, actor, via, address, at, request_id, detail
        )
        SELECT secret_id, unit_id, client_id, name, %(event)s, %(actor)s, %(via)s, %(address)s,
               clock_timestamp(), %(request_id)s, %(detail)s
        FROM changed
        RETURNING secret_id
    """).format(change=_UNIT_CHANGES[event])
    parameters = {"event": event, **asdict(caller), "detail": Json({"all": True})}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def delete_credential(connection: Connection[TupleRow], *, unit_id: str, secret_id: str) -> None:
    """Remove the credential and its client secrets; its trail stays."""
    query = "DELETE FROM credentials WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s"
    connection.execute(query, {"unit_id": unit_id, "secret_id": secret_id})


def select_client_secrets(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> list[ClientSecret]:
    """Return the credential's live client secrets, newest first.

    It compares with the clock and not with the transaction's time: the transaction may have waited
    for the credential's lock since it began.
    """
    query = """
        SELECT client_secret_id, hint, client_secrets.created_at, client_secrets.last_used_at,
               expires_at
        FROM client_secrets JOIN credentials USING (secret_id)
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND (expires_at IS NULL OR expires_at > clock_timestamp())
        ORDER BY client_secret_id DESC
    """
    with connection.cursor(row_factory=class_row(ClientSecret)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchall()


STORED_SECRETS = PreparedSelect(f"""
    SELECT client_secret_id, secret_hash, digest, hint, extract(epoch FROM expires_at)::float8,
           coalesce(
               client_secrets.last_used_at < now() - interval '{LAST_USE_SECONDS} seconds', true
           ),
           CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
                WHEN expires_at <= now() THEN 'expired' END,
           secret_id, unit_id, client_id, name, trust_upstream_consent
    FROM credentials JOIN client_secrets USING (secret_id)
    WHERE client_id = $1
""")  # noqa: S608  the number is ours


def select_stored_secrets(
    database: Database, *, client_id: str, seconds: float
) -> list[StoredSecret]:
    """Return the client secrets of the client ID: the only read of a verification.

    Expired ones and those of a disabled credential are included, with their `refusal`. The query
    returns `expires_at` as a number, because psycopg looks up a time zone for each result with
    times. Raises what `Database.connection` raises.
    """
    return stored_secrets(database.select(STORED_SECRETS, client_id, seconds=seconds))


def stored_secrets(rows: Iterable[TupleRow]) -> list[StoredSecret]:
    """Return the client secrets in the rows of STORED_SECRETS."""
    return [_stored_secret(*row) for row in rows]


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


def update_last_use(connection: Connection[TupleRow], uses: Sequence[Use]) -> set[int]:
    """Record when client secrets were used, each at most once a minute.

    Returns the `client_secret_id` of each that needs no other attempt: not those whose row is
    locked, or has been deleted. A client secret that is used has reached its owner, so the stored
    response that contains it is erased.
    """
    query = """
        WITH used AS (
            SELECT client_secret_id, clock_timestamp() - make_interval(secs => seconds_ago) AS at
            FROM unnest(%(client_secret_ids)s::bigint[], %(seconds_ago)s::float8[])
                AS used (client_secret_id, seconds_ago)
        ), taken AS (
            SELECT client_secret_id, at
            FROM client_secrets JOIN used USING (client_secret_id)
            ORDER BY client_secret_id
            FOR NO KEY UPDATE OF client_secrets SKIP LOCKED
        ), recorded AS (
            UPDATE client_secrets SET last_used_at = taken.at
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
        SELECT client_secret_id FROM taken
        WHERE client_secret_id NOT IN (
            SELECT client_secret_id FROM stored
            WHERE key_hash NOT IN (SELECT key_hash FROM erased)
        )
    """
    parameters = {
        "client_secret_ids": [each.client_secret_id for each in uses],
        "seconds_ago": [each.seconds_ago for each in uses],
        "seconds": LAST_USE_SECONDS,
    }
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(query, parameters).fetchall())


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
    query = """
        WITH ended AS (
            DELETE FROM client_secrets
            USING credentials
            WHERE credentials.secret_id = client_secrets.secret_id
              AND unit_id = %(unit_id)s AND credentials.secret_id = %(secret_id)s
              AND client_secret_id <> ALL(%(keep)s::bigint[])
            RETURNING client_secrets.last_used_at
        )
        UPDATE credentials
        SET ended_secrets_last_used_at = greatest(
            ended_secrets_last_used_at, (SELECT max(last_used_at) FROM ended)
        )
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND EXISTS (SELECT FROM ended)
    """
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
    query = """
        WITH ended AS (
            DELETE FROM client_secrets
            USING credentials
            WHERE credentials.secret_id = client_secrets.secret_id
              AND unit_id = %(unit_id)s
              AND credentials.secret_id = ANY(%(secret_ids)s::text[])
              AND expires_at <= clock_timestamp()
            RETURNING client_secrets.secret_id, client_secrets.last_used_at
        )
        UPDATE credentials
        SET ended_secrets_last_used_at = greatest(ended_secrets_last_used_at, latest.last_used_at)
        FROM (
            SELECT secret_id, max(last_used_at) AS last_used_at FROM ended GROUP BY secret_id
        ) AS latest
        WHERE unit_id = %(unit_id)s AND credentials.secret_id = latest.secret_id
    """
    connection.execute(query, {"unit_id": unit_id, "secret_ids": list(secret_ids)})


def delete_expired_secrets(connection: Connection[TupleRow], *, limit: int) -> int:
    """Delete at most `limit` client secrets, in all units, that have expired. Return how many.

    Otherwise they would be live again if the database's clock were set back. Their credentials
    keep their last use. Those that are locked are left for the next time.
    """
    query = """
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
            RETURNING secret_id, last_used_at
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
        SELECT count(*) FROM ended
    """
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


def insert_event(
    connection: Connection[TupleRow],
    caller: Caller,
    credential: Credential,
    event: EventName,
    *,
    detail: dict[str, Any],
) -> None:
    """Add an event to the audit trail. Call it in the transaction of the change.

    The event has the clock's time, not the transaction's: a transaction that waited for a lock may
    have begun before the one that held it.
    """
    query = """
        INSERT INTO credential_events (
            secret_id, unit_id, client_id, name, event, actor, via, address, at, request_id, detail
        )
        VALUES (
            %(secret_id)s, %(unit_id)s, %(client_id)s, %(name)s, %(event)s, %(actor)s, %(via)s,
            %(address)s, clock_timestamp(), %(request_id)s, %(detail)s
        )
    """
    parameters = {
        "secret_id": credential.secret_id,
        "client_id": credential.client_id,
        "name": credential.name,
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
    """Return the credential's events that are older than the event `before`, newest first.

    The sub-select hides the value from the planner. Where a credential has many events, the planner
    would look for them in the whole table, or in the trail of the whole unit.
    """
    query = """
        SELECT event_id, event, actor, at, request_id, detail
        FROM credential_events
        WHERE unit_id = %(unit_id)s AND secret_id = (SELECT %(secret_id)s) AND event_id < %(before)s
        ORDER BY event_id DESC
        LIMIT %(limit)s
    """
    parameters = {
        "unit_id": unit_id,
        "secret_id": secret_id,
        "before": MAX_EVENT_ID if before is None else before,
        "limit": limit,
    }
    with connection.cursor(binary=True, row_factory=class_row(Event)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def find_newest_event_time(connection: Connection[TupleRow]) -> datetime | None:
    """Return the time of the newest event, in any unit, that was not reapplied: for operators."""
    query = """
        SELECT at FROM credential_events
        WHERE detail->'reapplied' IS NULL
        ORDER BY event_id DESC
        LIMIT 1
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query).fetchone()


def select_event_keys(connection: Connection[TupleRow], *, since: datetime) -> set[EventKey]:
    """Return the keys of all changes since then, and of all events that were reapplied since.

    In all units: for operators. The times of two events may be in another order than their IDs, but
    never by an hour.
    """
    query = """
        WITH recent AS (
            SELECT secret_id, event, request_id, at, detail->'reapplied' AS reapplied
            FROM credential_events
            WHERE event <> 'issued' AND event_id > coalesce((
                SELECT event_id FROM credential_events
                WHERE at < %(since)s - interval '1 hour'
                ORDER BY event_id DESC
                LIMIT 1
            ), 0)
        )
        SELECT secret_id, event, request_id, date_trunc('second', at) AS at
        FROM recent
        UNION ALL
        SELECT secret_id, reapplied->>'event', reapplied->>'request_id',
               (reapplied->>'at')::timestamptz
        FROM recent
        WHERE reapplied IS NOT NULL
    """
    with connection.cursor(row_factory=class_row(EventKey)) as cursor:
        return set(cursor.execute(query, {"since": since}).fetchall())


def find_trail_window(
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    since: datetime | None,
    until: datetime | None,
) -> TrailWindow:
    """Return where the unit's events between the times are, and the last one that can be followed.

    An event can be followed once no running transaction can still add an earlier one. The trail is
    not quite in the order of its times: a transaction may take long, and the server's clock may be
    set back. So the window is a day wider on both sides.
    """
    query = """
        SELECT earlier.transaction_id::text::bigint, earlier.event_id,
               later.transaction_id::text::bigint, later.event_id,
               newest.transaction_id::text::bigint, newest.event_id
        FROM trail_horizon() AS horizon
        LEFT JOIN LATERAL (
            SELECT transaction_id, event_id FROM credential_events
            WHERE unit_id = %(unit_id)s AND at < %(since)s::timestamptz - interval '1 day'
            ORDER BY at DESC
            LIMIT 1
        ) AS earlier ON true
        LEFT JOIN LATERAL (
            SELECT transaction_id, event_id FROM credential_events
            WHERE unit_id = %(unit_id)s AND at >= %(until)s::timestamptz + interval '1 day'
            ORDER BY at
            LIMIT 1
        ) AS later ON true
        LEFT JOIN LATERAL (
            SELECT transaction_id, event_id FROM credential_events
            WHERE unit_id = %(unit_id)s AND transaction_id < horizon
            ORDER BY transaction_id DESC, event_id DESC
            LIMIT 1
        ) AS newest ON true
    """
    parameters = {"unit_id": unit_id, "since": since, "until": until}
    [found] = connection.execute(query, parameters).fetchall()
    positions = [
        None if event_id is None else TrailPosition(transaction_id, event_id)
        for transaction_id, event_id in zip(found[::2], found[1::2], strict=True)
    ]
    return TrailWindow(*positions)


def select_unit_events(  # noqa: PLR0913  each is a part of the query
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    only: EventFilter,
    order: Order,
    limit: int,
    after: TrailPosition | None,
    window: TrailWindow,
) -> list[UnitEvent]:
    """Return the unit's events in the window that pass the filter, starting after `after`.

    In ascending order, only events that can be followed are shown. So a client that follows the
    trail never misses an event, however late it is committed.

    For one credential, the order and the bounds begin with it, and there is no equality: so only
    the index of a credential's events is in order. By its statistics, the planner might read the
    unit's whole trail for a credential that has no events there.
    """
    start, end = window.earlier or START_OF_TRAIL, window.later or _END_OF_TRAIL
    if order == "asc":
        direction, before = SQL("ASC"), SQL("<=")
        start = max(start, after or START_OF_TRAIL)
        end = min(end, window.newest or START_OF_TRAIL)
    else:
        direction, before = SQL("DESC"), SQL("<")
        end = min(end, after or _END_OF_TRAIL)
    page = _bounds(before)
    credential_first = _NOTHING.format()
    if only.secret_id is not None:
        of_credential = _bounds(before, SQL("secret_id,"), SQL("%(secret_id)s,"))
        page = SQL("{} AND {}").format(page, of_credential)
        credential_first = SQL("secret_id {},").format(direction)
    query = SQL("""
        SELECT event_id, event, actor, at, request_id, detail,
               transaction_id::text::bigint AS transaction_id, secret_id,
               coalesce(client_id, (
                   SELECT issued.detail->>'client_id' FROM credential_events AS issued
                   WHERE issued.unit_id = credential_events.unit_id
                     AND issued.secret_id = credential_events.secret_id
                     AND issued.event = 'issued'
               )) AS client_id,
               coalesce(name, (
                   SELECT issued.detail->>'name' FROM credential_events AS issued
                   WHERE issued.unit_id = credential_events.unit_id
                     AND issued.secret_id = credential_events.secret_id
                     AND issued.event = 'issued'
               )) AS name,
               via, address
        FROM credential_events
        WHERE unit_id = %(unit_id)s AND {page}
          AND (%(event)s::text IS NULL OR event = %(event)s)
          AND (%(actor)s::text IS NULL OR actor = %(actor)s)
          AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
          AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
        ORDER BY {credential_first}
                 credential_events.transaction_id {direction}, event_id {direction}
        LIMIT %(limit)s
    """).format(page=page, direction=direction, credential_first=credential_first)
    parameters = {
        "unit_id": unit_id,
        **asdict(only),
        "start": str(start.transaction_id),
        "start_event_id": start.event_id,
        "end": str(end.transaction_id),
        "end_event_id": end.event_id,
        "limit": limit,
    }
    with connection.cursor(binary=True, row_factory=class_row(UnitEvent)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _bounds(before: SQL, column: SQL = _NOTHING, value: SQL = _NOTHING) -> Composed:
    """Return the condition that the event lies after `start` and before `end`."""
    return SQL("""
        ({column} transaction_id, event_id)
            > ({value} %(start)s::xid8, %(start_event_id)s::bigint)
        AND ({column} transaction_id, event_id)
            {before} ({value} %(end)s::xid8, %(end_event_id)s::bigint)
    """).format(column=column, value=value, before=before)


def find_survival(
    connection: Connection[TupleRow], *, unit_id: str, position: TrailPosition
) -> Survival:
    """Tell what a failover or a restore has left of the position in the unit's trail.

    An event is lost if its history has ended before it: the next history tells where, or the whole
    trail, if nothing has been written on this server yet.
    """
    query = """
        SELECT EXISTS (SELECT FROM trail_histories WHERE base = %(base)s) AS has_history,
               coalesce(%(event_id)s < coalesce((
                   SELECT first_event_id FROM trail_histories
                   WHERE base > %(base)s ORDER BY base LIMIT 1
               ), (
                   SELECT (SELECT coalesce(max(event_id), 0) + 1 FROM credential_events)
                   FROM (SELECT server FROM trail_histories ORDER BY base DESC LIMIT 1) AS newest
                   WHERE server <> trail_server()
               )), true) AS has_event,
               EXISTS (
                   SELECT FROM credential_events
                   WHERE unit_id = %(unit_id)s AND event_id = %(event_id)s AND transaction_id = '0'
               ) AS is_first
    """
    parameters = {"unit_id": unit_id, "base": position.history, "event_id": position.event_id}
    with connection.cursor(row_factory=class_row(Survival)) as cursor:
        [survival] = cursor.execute(query, parameters).fetchall()
        return survival


def try_lock_request(connection: Connection[TupleRow], *, lock_id: int) -> bool:
    """Take the lock until the transaction ends. Return False if another request holds it."""
    query = "SELECT pg_try_advisory_xact_lock(%(lock_id)s)"
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(query, {"lock_id": lock_id}).fetchone())


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


def find_time(connection: Connection[TupleRow]) -> datetime:
    """Return the database's time: the only clock that decides when a client secret expires."""
    time: datetime
    [(time,)] = connection.execute("SELECT clock_timestamp()").fetchall()
    return time.astimezone(UTC)


def _stored_secret(  # noqa: PLR0913, PLR0917  each is a column
    client_secret_id: int,
    secret_hash: str,
    digest: bytes | None,
    hint: str,
    expires_at: float | None,
    last_used_is_stale: bool,  # noqa: FBT001  a column
    refusal: Refusal | None,
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
    )
