"""A database with a million rows in each table, made by SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

BIG_UNIT = "unit_big"
BIG_UNIT_SIZE = 50_000
BUSY = "sec_" + str(1).zfill(20)  # a credential of the big unit, with 300,000 events

SMALL_UNIT = "unit_500"  # of a thousand credentials
NUMBER_OF_QUIET = 500_500
QUIET = "sec_" + str(NUMBER_OF_QUIET).zfill(20)  # a credential of the small unit

TABLES = ["credentials", "client_secrets", "credential_events"]

# The first 50,000 belong to one unit, and the others to units of a thousand.
_CREDENTIALS = """
    INSERT INTO credentials (secret_id, unit_id, client_id, name, created_at)
    SELECT 'sec_' || lpad(i::text, 20, '0'),
           CASE WHEN i <= 50000 THEN 'unit_big' ELSE 'unit_' || i / 1000 END,
           'lv_ci_' || lpad(i::text, 20, '0'), 'name ' || i,
           now() - i * interval '1 minute'
    FROM generate_series(1, 1000000) AS i
"""

# A third of them expire, the first ones tomorrow.
_CLIENT_SECRETS = """
    INSERT INTO client_secrets (
        secret_id, secret_hash, digest, hint, created_at, last_used_at, expires_at
    )
    SELECT 'sec_' || lpad(i::text, 20, '0'), '$2b$10$' || repeat('x', 53),
           decode(lpad(to_hex(i), 80, '0'), 'hex'), lpad(i % 10000 || '', 4, '0'),
           now() - i % 365 * interval '1 day',
           CASE WHEN i % 3 > 0 THEN now() - i % 100 * interval '1 day' END,
           CASE WHEN i % 3 = 0 THEN now() + (i % 400 + 1) * interval '1 day' END
    FROM generate_series(1, 1000000) AS i
"""

# All but a tenth belong to one unit. A third, the oldest ones, belong to its first credential. The
# last days have the events of others only, so whoever reads backwards reads all of them first.
_EVENTS = """
    INSERT INTO credential_events (secret_id, unit_id, event, actor, at, request_id)
    SELECT 'sec_' || lpad(n::text, 20, '0'),
           CASE WHEN n <= 50000 THEN 'unit_big' ELSE 'unit_' || n / 1000 END,
           CASE WHEN i <= 50000 OR n > 50000 THEN 'issued'
                WHEN i % 3 = 0 THEN 'rotated' ELSE 'updated' END,
           CASE WHEN i % 50000 = 11 THEN 'rare' WHEN i % 2 = 0 THEN 'ada' ELSE 'bob' END,
           now() - (1000000 - i) * interval '30 seconds', 'req-' || i
    FROM (
        SELECT i, CASE WHEN i <= 50000 THEN i
                       WHEN i <= 350000 THEN 1
                       WHEN i % 10 = 0 THEN i
                       ELSE i % 49999 + 2 END AS n
        FROM generate_series(1, 1000000) AS i
    ) AS numbered
"""


# The trail is in the order of the transactions that wrote it, and only shows events of transactions
# that have ended. So 20,000 end first, and each is said to have written fifty events.
_SPREAD_OVER_TRANSACTIONS = """
    DO $$ BEGIN
        FOR i IN 1..20001 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
        EXECUTE format(
            'CREATE SEQUENCE written MINVALUE 0 START %1$s;
             ALTER TABLE credential_events ALTER transaction_id
                 SET DEFAULT (nextval(''written'') / 50)::text::xid8',
            (pg_current_xact_id()::text::bigint - 20001) * 50
        );
    END $$
"""
_DEFAULT = """
    SELECT column_default FROM information_schema.columns
    WHERE table_name = 'credential_events' AND column_name = 'transaction_id'
"""


def fill(connection: psycopg.Connection[Any]) -> None:
    """Make a million credentials, client secrets and events, as a superuser in autocommit mode.

    It works at any schema from the first one on.
    """
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET session_replication_role = replica")  # no foreign keys
    default = connection.execute(_DEFAULT).fetchone()
    if default:  # before 0004 there is no such column
        connection.execute(_SPREAD_OVER_TRANSACTIONS)
    with _unindexed(connection):
        for statement in (_CREDENTIALS, _CLIENT_SECRETS, _EVENTS):
            connection.execute(statement)
    if default:
        connection.execute(
            f"ALTER TABLE credential_events ALTER transaction_id SET DEFAULT {default[0]}"
        )
        connection.execute("DROP SEQUENCE written")
    connection.execute("RESET session_replication_role")
    connection.execute("VACUUM ANALYZE")


@contextmanager
def _unindexed(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave indexes and checks out meanwhile: it is several times faster."""
    indexes = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) "
        "AND indexname NOT IN (SELECT conname FROM pg_constraint)",
        [TABLES],
    ).fetchall()
    checks = connection.execute(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'c' AND conrelid::regclass::text = ANY(%s)",
        [TABLES],
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    for table, name, _ in checks:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    yield
    for _, definition in indexes:
        connection.execute(definition)
    for table, name, definition in checks:
        as_it_is = definition.removesuffix(" NOT VALID")
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {as_it_is} NOT VALID")
