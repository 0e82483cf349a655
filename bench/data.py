"""Fill databases with credentials, of which some pairs are known and valid."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.hashing import Hasher
from app.database.migrations import migrate

PAIRS = 500

Pair = tuple[str, str]


@dataclass(frozen=True)
class Database:
    """A database, and pairs of client ID and client secret that are valid in it."""

    url: str
    pairs: list[Pair]


def create_database(server_url: str, name: str) -> str:
    """Create an empty database, and return its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    return server_url.replace("/postgres?", f"/{name}?")


def libpq_variables(database_url: str) -> dict[str, str]:
    """Return the environment variables by which libpq and other clients find the database."""
    parts = conninfo_to_dict(database_url)
    return {"PGHOST": parts["host"], "PGUSER": parts["user"], "PGDATABASE": parts["dbname"]}


def create_credentials(
    server_url: str,
    name: str,
    count: int,
    hasher: Hasher,
    migrate: Callable[[str], object] = migrate,
) -> Database:
    """Create a database with `count` credentials, each with one client secret."""
    database_url = create_database(server_url, name)
    migrate(database_url)
    pairs = [(generate_client_id(), generate_client_secret()) for _ in range(PAIRS)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        with _without_constraints(connection):
            _insert_made_up(connection, count - PAIRS)
        _insert_pairs(connection, pairs, hasher)
        connection.execute("VACUUM ANALYZE")
    return Database(database_url, pairs)


def add_restricted(database: Database, hasher: Hasher) -> Database:
    """Add pairs with a scope and networks, and return the database with these pairs."""
    pairs = [(generate_client_id(), generate_client_secret()) for _ in range(PAIRS)]
    with psycopg.connect(database.url, autocommit=True) as connection:
        _insert_pairs(connection, pairs, hasher)
        connection.execute(
            """
            UPDATE credentials
            SET scopes = '{ingest,leads.read}',
                addresses = '{203.0.113.0/24,2001:db8::/32,127.0.0.0/8}'
            WHERE client_id = ANY(%(client_ids)s)
            """,
            {"client_ids": [client_id for client_id, _ in pairs]},
        )
        connection.execute("VACUUM ANALYZE")
    return Database(database.url, pairs)


def add_unit(database_url: str, unit_id: str, count: int) -> None:
    """Add `count` credentials to a unit, created a second apart."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """
            WITH made AS (
                INSERT INTO credentials (secret_id, unit_id, client_id, name, created_at)
                SELECT 'sec_' || left(md5(%(unit_id)s || n), 20), %(unit_id)s,
                       'lv_ci_' || left(md5(%(unit_id)s || n), 20), 'Backend ' || n,
                       now() - make_interval(secs => n)
                FROM generate_series(1, %(count)s) AS n
                RETURNING secret_id
            )
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
            SELECT secret_id, '$2b$10$' || repeat('.', 53), NULL, 'none' FROM made
            """,
            {"unit_id": unit_id, "count": count},
        )
        connection.execute("VACUUM ANALYZE")


@contextmanager
def _without_constraints(connection: psycopg.Connection) -> Iterator[None]:
    """Drop constraints and indexes, and make them again afterwards.

    A million rows are inserted four times as fast. Checks and foreign keys are made NOT VALID, so
    that these rows are not checked.
    """
    constraints = connection.execute(
        """
        SELECT conrelid::regclass::text, conname,
               pg_get_constraintdef(oid) || CASE WHEN contype IN ('c', 'f') THEN ' NOT VALID'
                                                 ELSE '' END
        FROM pg_constraint
        WHERE contype = 'f' AND confrelid IN ('credentials'::regclass, 'client_secrets'::regclass)
           OR contype IN ('p', 'u', 'c')
          AND conrelid IN ('credentials'::regclass, 'client_secrets'::regclass)
        ORDER BY contype <> 'f'
        """
    ).fetchall()
    for table, name, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    indexes = connection.execute(
        """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE tablename IN ('credentials', 'client_secrets')
        """
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute("SET maintenance_work_mem = '512MB'")
    yield
    for _, statement in indexes:
        connection.execute(statement)
    for table, name, definition in reversed(constraints):
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")


def _insert_made_up(connection: psycopg.Connection, count: int) -> None:
    connection.execute(
        """
        INSERT INTO credentials (secret_id, unit_id, client_id, name)
        SELECT 'sec_' || left(md5('s' || n), 20), 'unit_' || mod(n, 1000),
               'lv_ci_' || left(md5('c' || n), 20), 'Backend ' || n
        FROM generate_series(1, %(count)s) AS n
        """,
        {"count": count},
    )
    connection.execute(
        """
        INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
        SELECT secret_id, '$2b$10$' || repeat('.', 53),
               sha256(secret_id::bytea) || '\\x0000000000000000'::bytea, 'none'
        FROM credentials
        """
    )


def _insert_pairs(connection: psycopg.Connection, pairs: list[Pair], hasher: Hasher) -> None:
    rows = [
        {"client_id": client_id, "digest": hasher.digest(client_secret)}
        for client_id, client_secret in pairs
    ]
    with connection.transaction():
        connection.cursor().executemany(
            """
            WITH credential AS (
                INSERT INTO credentials (secret_id, unit_id, client_id, name)
                VALUES (
                    replace(%(client_id)s, 'lv_ci_', 'sec_'), 'unit_bench', %(client_id)s, 'Backend'
                )
                RETURNING secret_id
            )
            INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
            SELECT secret_id, '$2b$10$' || repeat('.', 53), %(digest)s, 'none' FROM credential
            """,
            rows,
        )
