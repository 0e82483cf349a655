"""Tell whether a database has the schema that this version needs. It needs no yoyo."""

from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

MIGRATIONS = Path(__file__).parents[2] / "migrations_sql"

_NAMES = frozenset(path.stem for path in MIGRATIONS.glob("*.sql"))


def is_migrated(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether the database has at least the migrations that this version ships."""
    applied = connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()
    return {name for (name,) in applied} >= _NAMES
