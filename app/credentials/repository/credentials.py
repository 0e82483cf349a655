"""The table `credentials`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row
from psycopg.sql import SQL
from psycopg.types.json import Json

from app.credentials.cases import pattern_in_any_case
from app.credentials.model import (
    Caller,
    ClientSecret,
    Credential,
    CredentialFilter,
    CredentialPosition,
    DetailedCredential,
    FinishedRotation,
    HashedSecret,
    LastRefusal,
    LockedCredential,
    RecentUse,
    Restriction,
)
from app.credentials.repository.client_secrets import LAST_USE_SECONDS
from app.database.connection import BoundedConnection, PreparedSelect

UnitChange = Literal["disabled", "enabled", "revoked"]

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


def insert_credential(  # noqa: PLR0913  each is a column
    connection: Connection[TupleRow],
    caller: Caller,
    *,
    secret_id: str,
    client_id: str,
    name: str,
    secret: HashedSecret,
    expires_at: datetime | None,
    scopes: Restriction,
    addresses: Restriction,
    detail: dict[str, Any],
    max_credentials: int,
) -> Credential | None:
    """Store a new credential, its first client secret and its audit event, all or nothing.

    Returns None if the unit already has `max_credentials`.
    """
    query = """
        WITH credential AS (
            INSERT INTO credentials (secret_id, unit_id, client_id, name, scopes, addresses)
            SELECT %(secret_id)s, %(unit_id)s, %(client_id)s, %(name)s, %(scopes)s::text[],
                   %(addresses)s::text[]
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
        "scopes": scopes,
        "addresses": addresses,
        "max_credentials": max_credentials,
        **asdict(caller),
        "detail": Json(detail),
    }
    with connection.cursor(row_factory=class_row(Credential)) as cursor:
        return cursor.execute(query, parameters).fetchone()


_LISTED = """
    SELECT {columns}
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
    "unrestricted": "(scopes IS NULL) = {value}::boolean",
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
    "refused_since": "last_refused_at >= {value}::timestamptz",
}


_FIELDS = "secret_id, unit_id, client_id, name, trust_upstream_consent, created_at"

_DETAILED = """
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
           last_refused_at, last_refused_reason, last_refused_from, last_refused_hint,
           scopes, addresses,
           client_secret_id, hint, live.created_at, live.last_used_at, last_used_from, expires_at
    FROM ({credentials}) AS credentials
    LEFT JOIN client_secrets AS live
        ON live.secret_id = credentials.secret_id
        AND (expires_at IS NULL OR expires_at > clock_timestamp())
    ORDER BY credentials.created_at DESC, credentials.secret_id DESC, client_secret_id DESC
"""
_ONE_DETAILED = PreparedSelect(
    _DETAILED.format(credentials="SELECT * FROM credentials WHERE unit_id = $1 AND secret_id = $2")
)


@cache
def _list_of(conditions: tuple[str, ...]) -> PreparedSelect:
    """Return the SELECT with these conditions, so that each combination has its own plan."""
    return PreparedSelect(_listed(_FIELDS, conditions))


@cache
def _detailed_list_of(conditions: tuple[str, ...]) -> PreparedSelect:
    return PreparedSelect(_DETAILED.format(credentials=_listed("*", conditions)))


def _listed(columns: str, conditions: tuple[str, ...]) -> str:
    texts = [_CONDITIONS[name].format(value=f"${5 + n}") for n, name in enumerate(conditions)]
    return _LISTED.format(columns=columns, conditions="".join(f"AND {each} " for each in texts))


def select_credentials(
    connection: BoundedConnection,
    *,
    unit_id: str,
    only: CredentialFilter,
    limit: int,
    after: CredentialPosition | None,
) -> list[Credential]:
    """Return the unit's credentials that pass the filter, newest first, starting after `after`."""
    rows = _select_page(connection, _list_of, unit_id, only, limit, after)
    return [Credential(*row) for row in rows]


def select_detailed_credentials(
    connection: BoundedConnection,
    *,
    unit_id: str,
    only: CredentialFilter,
    limit: int,
    after: CredentialPosition | None,
) -> list[DetailedCredential]:
    """Return what `select_credentials` returns, each credential as `find_credential` does."""
    rows = _select_page(connection, _detailed_list_of, unit_id, only, limit, after)
    return [_detailed(list(each)) for _, each in groupby(rows, key=itemgetter(0))]


def _select_page(  # noqa: PLR0913, PLR0917  each is a part of the query
    connection: BoundedConnection,
    select_with: Callable[[tuple[str, ...]], PreparedSelect],
    unit_id: str,
    only: CredentialFilter,
    limit: int,
    after: CredentialPosition | None,
) -> list[TupleRow]:
    """Return the rows of a page of the SELECT that has the filter's conditions."""
    values = {name: value for name, value in asdict(only).items() if value is not None}
    if only.name is not None:
        values["name"] = pattern_in_any_case(only.name)
    return connection.select(
        select_with(tuple(values)),
        unit_id,
        str(after.created_at) if after else "infinity",
        after.secret_id if after else "",
        str(limit),
        *map(str, values.values()),
    )


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


def count_unrestricted(connection: Connection[TupleRow]) -> int:
    """Count the credentials, in all units, without scopes: at most 100,000. For operators."""
    query = """
        SELECT count(*) FROM (
            SELECT FROM credentials WHERE scopes IS NULL ORDER BY unit_id LIMIT 100000
        ) AS unrestricted
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query).fetchone() or 0


def find_credential(
    connection: BoundedConnection, *, unit_id: str, secret_id: str
) -> DetailedCredential | None:
    """Return the credential with its live client secrets, or None if the unit has no such one."""
    rows = connection.select(_ONE_DETAILED, unit_id, secret_id)
    return _detailed(rows) if rows else None


def _detailed(rows: Sequence[TupleRow]) -> DetailedCredential:
    """Return the credential of the rows, of which each has one of its live client secrets."""
    of_secret, of_refusal = len(fields(ClientSecret)), len(fields(LastRefusal))
    secrets = [ClientSecret(*row[-of_secret:]) for row in rows if row[-of_secret] is not None]
    *row, scopes, addresses = rows[0][:-of_secret]
    refused = None if row[-of_refusal] is None else LastRefusal(*row[-of_refusal:])
    shown = (*row[:-of_refusal], refused, scopes, addresses, secrets)
    return DetailedCredential(*shown)


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


_LOCKED = SQL("""
    SELECT secret_id, unit_id, client_id, name, trust_upstream_consent, created_at,
           disabled_at IS NULL AS enabled, disabled_with_unit, scopes, addresses
    FROM credentials
    WHERE {}
    ORDER BY secret_id
    FOR UPDATE
""")


def lock_credential(
    connection: Connection[TupleRow], *, unit_id: str, secret_id: str
) -> LockedCredential | None:
    """Return the credential, and make other changes to it wait until the transaction ends."""
    query = _LOCKED.format(SQL("unit_id = %(unit_id)s AND secret_id = %(secret_id)s"))
    with connection.cursor(row_factory=class_row(LockedCredential)) as cursor:
        return cursor.execute(query, {"unit_id": unit_id, "secret_id": secret_id}).fetchone()


def lock_credentials(
    connection: Connection[TupleRow], *, secret_ids: Sequence[str]
) -> dict[str, LockedCredential]:
    """Return the credentials, of any unit, by their `secret_id`, locked as by `lock_credential`."""
    query = _LOCKED.format(SQL("secret_id = ANY(%(secret_ids)s)"))
    with connection.cursor(row_factory=class_row(LockedCredential)) as cursor:
        locked = cursor.execute(query, {"secret_ids": list(secret_ids)}).fetchall()
    return {each.secret_id: each for each in locked}


def find_recent_use(  # noqa: PLR0913  each is a part of the question
    connection: Connection[TupleRow],
    *,
    unit_id: str,
    secret_id: str,
    client_secret_id: int | None,
    within_seconds: int,
    seconds_ago: float | None,
) -> RecentUse:
    """Return whether the locked credential was used, or got a client secret, `within_seconds`.

    With a `client_secret_id`, only that client secret counts. `seconds_ago` is a use that may not
    be recorded yet. It locks the client secrets too: any other use is recorded only after the
    transaction.
    """
    query = """
        WITH locked AS (
            SELECT client_secrets.last_used_at, client_secrets.created_at
            FROM client_secrets JOIN credentials USING (secret_id)
            WHERE unit_id = %(unit_id)s AND secret_id = %(secret_id)s
              AND client_secret_id = coalesce(%(client_secret_id)s::bigint, client_secret_id)
            ORDER BY client_secret_id
            FOR UPDATE OF client_secrets
        ), latest AS (
            SELECT greatest(
                       CASE WHEN %(client_secret_id)s::bigint IS NULL
                            THEN ended_secrets_last_used_at END,
                       (SELECT max(last_used_at) FROM locked),
                       clock_timestamp() - make_interval(secs => %(seconds_ago)s::float8)
                   ) AS used_at,
                   greatest(
                       CASE WHEN %(client_secret_id)s::bigint IS NULL
                            THEN credentials.created_at END,
                       (SELECT max(locked.created_at) FROM locked)
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
        "client_secret_id": client_secret_id,
        "within_seconds": within_seconds,
        "last_use_seconds": LAST_USE_SECONDS,
        "seconds_ago": seconds_ago,
    }
    with connection.cursor(row_factory=class_row(RecentUse)) as cursor:
        return cursor.execute(query, parameters).fetchone() or RecentUse(None, has_new_secret=False)


def select_finished_rotations(
    connection: Connection[TupleRow], *, unit_id: str, unused_seconds: int
) -> list[FinishedRotation]:
    """Return the unit's live client secrets whose successor is used, and which are not any more.

    What another process has not recorded yet is not considered.
    """
    query = """
        SELECT previous.client_secret_id, secret_id, client_id, name, previous.hint,
               previous.last_used_at
        FROM credentials JOIN client_secrets AS previous USING (secret_id)
        WHERE unit_id = %(unit_id)s
          AND (previous.expires_at IS NULL OR previous.expires_at > clock_timestamp())
          AND greatest(
                  previous.created_at,
                  previous.last_used_at + make_interval(secs => %(last_use_seconds)s)
              ) <= clock_timestamp() - make_interval(secs => %(unused_seconds)s)
          AND 0 < (
              SELECT count(*) FROM client_secrets AS successor
              WHERE successor.secret_id = previous.secret_id
                AND successor.client_secret_id > previous.client_secret_id
                AND (successor.expires_at IS NULL OR successor.expires_at > clock_timestamp())
                AND successor.last_used_at IS NOT NULL
          )
        ORDER BY previous.client_secret_id
    """
    parameters = {
        "unit_id": unit_id,
        "unused_seconds": unused_seconds,
        "last_use_seconds": LAST_USE_SECONDS,
    }
    with connection.cursor(row_factory=class_row(FinishedRotation)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def update_credential(connection: Connection[TupleRow], credential: LockedCredential) -> None:
    """Store the fields of the credential that can be changed."""
    query = """
        UPDATE credentials
        SET name = %(name)s,
            trust_upstream_consent = %(trust_upstream_consent)s,
            disabled_at = CASE WHEN NOT %(enabled)s
                               THEN coalesce(disabled_at, clock_timestamp()) END,
            disabled_with_unit = %(disabled_with_unit)s,
            scopes = %(scopes)s::text[],
            addresses = %(addresses)s::text[],
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
