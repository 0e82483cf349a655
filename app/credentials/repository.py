"""All SQL about credentials. Each function runs one statement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row
from psycopg.sql import SQL
from psycopg.types.json import Json

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
    StoredResponse,
    StoredSecret,
    TrailPosition,
    TrailWindow,
    UnitEvent,
    Use,
    VerifiedCredential,
)
from app.database.connection import PreparedSelect
from app.database.pool import Database

# A last use is recorded at most once in this time, so the true one may be later by as much.
LAST_USE_SECONDS = 60

RESPONSE_SECONDS = 24 * 60 * 60  # how long a response can be replayed

UnitChange = Literal["disabled", "enabled", "revoked"]

MAX_EVENT_ID = 2**63 - 1  # bigint's

_END_OF_TRAIL = TrailPosition(transaction_id=2**64 - 1, event_id=MAX_EVENT_ID)

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
    """Make other issues of the unit, and changes to all of it, wait until the transaction ends."""
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


def select_credentials(
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    only: CredentialFilter,
    limit: int,
    after: CredentialPosition | None,
) -> list[Credential]:
    """Return the unit's credentials that pass the filter, newest first, starting after `after`.

    It counts, because for NOT EXISTS Postgres may read the client secrets of all units.
    """
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at
        FROM credentials
        WHERE unit_id = %(unit_id)s
          AND (created_at, secret_id) < (%(created_at)s::timestamptz, %(secret_id)s)
          AND (%(client_id)s::text IS NULL OR client_id = %(client_id)s)
          AND (%(name)s::text IS NULL OR name ILIKE %(name)s)
          AND (%(enabled)s::boolean IS NULL OR (disabled_at IS NULL) = %(enabled)s)
          AND (%(expiring_before)s::timestamptz IS NULL OR 0 = (
              SELECT count(*) FROM client_secrets
              WHERE client_secrets.secret_id = credentials.secret_id
                AND (expires_at IS NULL OR expires_at > greatest(%(expiring_before)s, now()))
          ))
          AND (%(unused_since)s::timestamptz IS NULL OR (
              coalesce(ended_secrets_last_used_at < %(unused_since)s, true)
              AND 0 = (
                  SELECT count(*) FROM client_secrets
                  WHERE client_secrets.secret_id = credentials.secret_id
                    AND client_secrets.last_used_at >= %(unused_since)s
              )
          ))
        ORDER BY created_at DESC, secret_id DESC
        LIMIT %(limit)s
    """
    parameters = {
        **asdict(only),
        "name": None if only.name is None else _like_pattern(only.name),
        "unit_id": unit_id,
        "created_at": after.created_at if after else "infinity",
        "secret_id": after.secret_id if after else "",
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchall()


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


def find_credential(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> DetailedCredential | None:
    """Return the credential without its client secrets, or None if the unit has no such one."""
    query = """
        SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at, (
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
               disabled_at
        FROM credentials
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
    """
    with connection.cursor(row_factory=class_row(DetailedCredential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchone()


def find_owner(connection: Connection[TupleRow], *, client_id: str) -> tuple[str, str] | None:
    """Return the `unit_id` and `secret_id` of the client ID, in any unit: for operators only."""
    query = "SELECT unit_id, secret_id FROM credentials WHERE client_id = %(client_id)s"
    with connection.cursor() as cursor:
        return cursor.execute(query, {"client_id": client_id}).fetchone()


def find_unit(connection: Connection[TupleRow], *, secret_id: str) -> str | None:
    """Return the `unit_id` of the credential, in any unit: for operators only."""
    query = "SELECT unit_id FROM credentials WHERE secret_id = %(secret_id)s"
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, {"secret_id": secret_id}).fetchone()


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


def find_last_use(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str, within_seconds: int
) -> datetime | None:
    """Return when the locked credential was last used, or None if it was not `within_seconds`.

    It locks the client secrets too: a use is recorded only after the transaction.
    """
    query = """
        WITH locked AS (
            SELECT client_secrets.last_used_at
            FROM client_secrets JOIN credentials USING (secret_id)
            WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
            FOR UPDATE OF client_secrets
        ), last_use AS (
            SELECT greatest(
                ended_secrets_last_used_at, (SELECT max(last_used_at) FROM locked)
            ) AS at
            FROM credentials
            WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
        )
        SELECT at FROM last_use
        WHERE at > clock_timestamp() - make_interval(secs => %(within_seconds)s)
    """
    parameters = {"unit_id": unit_id, "secret_id": secret_id, "within_seconds": within_seconds}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, parameters).fetchone()


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


def change_unit(connection: Connection[TupleRow], caller: Caller, event: UnitChange) -> int:
    """Disable, enable or revoke all credentials of the unit, with an event for each.

    Returns how many were changed. Only credentials that were disabled with the unit are enabled.
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
    """).format(change=_UNIT_CHANGES[event])
    parameters = {"event": event, **asdict(caller), "detail": Json({"all": True})}
    return connection.execute(query, parameters).rowcount


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


_STORED_SECRETS = PreparedSelect(f"""
    SELECT client_secret_id, secret_hash, digest, extract(epoch FROM expires_at)::float8,
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
    rows = database.select(_STORED_SECRETS, client_id, seconds=seconds)
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


def update_last_use(connection: Connection[TupleRow], uses: Sequence[Use]) -> None:
    """Record when client secrets were used, each at most once a minute.

    If a client secret has been deleted since, the credential keeps the last use. A client secret
    that is used has reached its owner, so the stored response that contains it is erased.
    """
    query = """
        WITH used AS (
            SELECT client_secret_id, secret_id,
                   clock_timestamp() - make_interval(secs => seconds_ago) AS at
            FROM unnest(
                %(client_secret_ids)s::bigint[], %(secret_ids)s::text[], %(seconds_ago)s::float8[]
            ) AS used (client_secret_id, secret_id, seconds_ago)
        ), recorded AS (
            UPDATE client_secrets SET last_used_at = used.at
            FROM used
            WHERE client_secrets.client_secret_id = used.client_secret_id
              AND coalesce(last_used_at < used.at - make_interval(secs => %(seconds)s), true)
        ), erased AS (
            DELETE FROM sealed_answers
            USING used
            WHERE sealed_answers.client_secret_id = used.client_secret_id
        )
        UPDATE credentials
        SET ended_secrets_last_used_at = greatest(ended_secrets_last_used_at, ended.at)
        FROM (
            SELECT used.secret_id, max(used.at) AS at
            FROM used LEFT JOIN client_secrets USING (client_secret_id)
            WHERE client_secrets.client_secret_id IS NULL
            GROUP BY used.secret_id
        ) AS ended
        WHERE credentials.secret_id = ended.secret_id
    """
    parameters = {
        "client_secret_ids": [each.client_secret_id for each in uses],
        "secret_ids": [each.secret_id for each in uses],
        "seconds_ago": [each.seconds_ago for each in uses],
        "seconds": LAST_USE_SECONDS,
    }
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
    with connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def select_event_keys(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> set[EventKey]:
    """Return the keys of the credential's events, and of the events that were reapplied to it."""
    query = """
        SELECT event, request_id, date_trunc('second', at) AS at
        FROM credential_events
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
        UNION ALL
        SELECT detail->'reapplied'->>'event', detail->'reapplied'->>'request_id',
               (detail->'reapplied'->>'at')::timestamptz
        FROM credential_events
        WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
          AND detail->'reapplied' IS NOT NULL
    """
    with connection.cursor(row_factory=class_row(EventKey)) as cursor:
        return set(cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchall())


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
        FROM pg_current_snapshot() AS snapshot
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
            WHERE unit_id = %(unit_id)s AND transaction_id < pg_snapshot_xmin(snapshot)
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
    trail never misses an event, however late it is committed. A position from before the database
    was restored from a dump counts as the position of an event in the dump (docs/operations.md).
    The sub-select is that of `select_events`.
    """
    start, end = window.earlier or START_OF_TRAIL, window.later or _END_OF_TRAIL
    if order == "asc":
        direction = SQL("ASC")
        start = max(start, after or START_OF_TRAIL)
        end = min(end, window.newest or START_OF_TRAIL)
        page = SQL("""
            (transaction_id, event_id) > (
                CASE WHEN %(start)s::xid8 < pg_snapshot_xmax(pg_current_snapshot())
                     THEN %(start)s::xid8 ELSE '0'::xid8 END,
                %(start_event_id)s::bigint
            )
            AND (transaction_id, event_id) <= (%(end)s::xid8, %(end_event_id)s::bigint)
        """)
    else:
        direction = SQL("DESC")
        end = min(end, after or _END_OF_TRAIL)
        page = SQL("""
            (transaction_id, event_id) > (%(start)s::xid8, %(start_event_id)s::bigint)
            AND (transaction_id, event_id) < (%(end)s::xid8, %(end_event_id)s::bigint)
        """)
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
          AND (%(secret_id)s::text IS NULL OR secret_id = (SELECT %(secret_id)s::text))
          AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
          AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
        ORDER BY credential_events.transaction_id {direction}, event_id {direction}
        LIMIT %(limit)s
    """).format(page=page, direction=direction)
    parameters = {
        "unit_id": unit_id,
        **asdict(only),
        "start": str(start.transaction_id),
        "start_event_id": start.event_id,
        "end": str(end.transaction_id),
        "end_event_id": end.event_id,
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(UnitEvent)) as cursor:
        return cursor.execute(query, parameters).fetchall()


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


def delete_old_responses(connection: Connection[TupleRow]) -> None:
    """Erase the stored responses, and the fingerprints, that are too old to be found."""
    query = """
        WITH erased AS (
            DELETE FROM sealed_answers
            WHERE created_at <= now() - make_interval(secs => %(seconds)s)
        )
        DELETE FROM answered_requests
        WHERE created_at <= now() - make_interval(secs => %(seconds)s)
    """
    connection.execute(query, {"seconds": RESPONSE_SECONDS})


def _like_pattern(text: str) -> str:
    """Return the LIKE pattern of every text that contains this one."""
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def _stored_secret(  # noqa: PLR0913, PLR0917  each is a column
    client_secret_id: int,
    secret_hash: str,
    digest: bytes | None,
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
        None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        last_used_is_stale,
        refusal,
    )
