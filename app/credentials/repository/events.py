"""The table `credential_events`, and the histories of the trail."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Json

from app.credentials.model import (
    START_OF_TRAIL,
    Caller,
    Credential,
    Event,
    EventFilter,
    EventKey,
    EventName,
    Order,
    Survival,
    TrailPosition,
    TrailWindow,
    UnitEvent,
)

MAX_EVENT_ID = 2**63 - 1  # bigint's
_END_OF_TRAIL = TrailPosition(transaction_id=2**64 - 1, event_id=MAX_EVENT_ID)
_NOTHING = SQL("")


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


def find_time(connection: Connection[TupleRow]) -> datetime:
    """Return the database's time: the only clock that decides when a client secret expires."""
    time: datetime
    [(time,)] = connection.execute("SELECT clock_timestamp()").fetchall()
    return time.astimezone(UTC)
