"""The prepared SELECT of a verification, where somebody else's statements share the session."""

from time import monotonic

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from app.credentials import repository
from app.credentials.generator import generate_client_id
from app.database.connection import BoundedConnection, PreparedSelect
from tests.helpers import caller

ONE = PreparedSelect("SELECT $1 AS it")


@pytest.fixture
def connection(database_url, rows):
    with BoundedConnection.connect(database_url, autocommit=True) as connection:
        connection.deadline = monotonic() + 30
        yield connection


def prepared(connection):
    return [name for (name,) in connection.execute("SELECT name FROM pg_prepared_statements")]


def test_a_statement_is_prepared_once(connection):
    connection.prepare_threshold = None
    assert [connection.select(ONE, text) for text in ("a", "b", "")] == [
        [(b"a",)],
        [(b"b",)],
        [(b"",)],
    ]
    assert prepared(connection) == [ONE.name.decode()]


def test_a_verification_reads_by_it(connection, service):
    issued = service.issue(caller(), name="x")
    for client_id, found in ((issued.client_id, 1), (generate_client_id(), 0)):
        assert len(repository.select_stored_secrets(connection, client_id=client_id)) == found
    assert len(prepared(connection)) == 1


def test_the_statement_may_be_gone(connection):
    """As behind a pooler that has lent another server connection."""
    connection.select(ONE, "a")
    connection.execute("DEALLOCATE ALL")
    assert connection.select(ONE, "b") == [(b"b",)]
    assert connection.select(ONE, "c") == [(b"c",)]
    assert prepared(connection) == []


def test_the_statement_may_be_there_already(connection):
    name = Identifier(ONE.name.decode())
    connection.execute(SQL("PREPARE {} (text) AS SELECT $1").format(name))
    assert connection.select(ONE, "a") == [(b"a",)]


def test_different_statements_have_different_names():
    assert ONE.name != PreparedSelect("SELECT $1 AS that").name
    assert ONE.name == PreparedSelect("SELECT $1 AS it").name


def test_a_migration_may_change_the_type_of_a_column(connection):
    statement = PreparedSelect("SELECT it FROM changing WHERE it::text = $1")
    connection.execute("CREATE TEMPORARY TABLE changing AS SELECT 1::integer AS it")
    assert connection.select(statement, "1") == [((1).to_bytes(4),)]
    connection.execute("ALTER TABLE changing ALTER it TYPE bigint")
    assert connection.select(statement, "1") == [((1).to_bytes(8),)]


def test_other_errors_are_raised(connection):
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.select(PreparedSelect("SELECT 1 / $1::integer"), "0")
    assert connection.select(ONE, "a") == [(b"a",)]


def test_names_outside_ascii_are_read_whatever_the_encoding(connection, service):
    issued = service.issue(caller("単位"), name="Ünïcode ☃")
    connection.execute("SELECT 1")
    (stored,) = repository.select_stored_secrets(connection, client_id=issued.client_id)
    assert (stored.credential.unit_id, stored.credential.name) == ("単位", "Ünïcode ☃")
