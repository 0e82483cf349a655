"""The prepared SELECT of a verification, in a session that other clients may have used."""

from time import monotonic

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from app.credentials import repository
from app.credentials.model import CredentialFilter
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
        [("a",)],
        [("b",)],
        [("",)],
    ]
    assert prepared(connection) == [ONE.name.decode()]


def test_a_select_works_if_its_prepared_statement_is_gone(connection):
    """This happens behind a pooler that has lent another server connection."""
    connection.select(ONE, "a")
    connection.execute("DEALLOCATE ALL")
    assert connection.select(ONE, "b") == [("b",)]
    assert connection.select(ONE, "c") == [("c",)]
    assert prepared(connection) == []


def test_after_a_statement_was_gone_no_prepared_statement_is_run(connection):
    """The statement of that name may be another client's by now."""
    connection.select(ONE, "a")
    connection.execute("DEALLOCATE ALL")
    assert connection.select(ONE, "b") == [("b",)]
    name = Identifier(ONE.name.decode())
    connection.execute(SQL("PREPARE {} (text) AS SELECT 'a stranger'").format(name))
    assert connection.select(ONE, "c") == [("c",)]


def test_a_select_works_if_its_statement_is_already_prepared(connection):
    name = Identifier(ONE.name.decode())
    connection.execute(SQL("PREPARE {} (text) AS SELECT $1").format(name))
    assert connection.select(ONE, "a") == [("a",)]


def test_different_statements_have_different_names():
    assert ONE.name != PreparedSelect("SELECT $1 AS that").name
    assert ONE.name == PreparedSelect("SELECT $1 AS it").name


def test_a_migration_may_change_the_type_of_a_column(connection):
    statement = PreparedSelect("SELECT it FROM changing WHERE it::text = $1")
    connection.execute("CREATE TEMPORARY TABLE changing AS SELECT 1::integer AS it")
    assert connection.select(statement, "1") == [(1,)]
    connection.execute("ALTER TABLE changing ALTER it TYPE bigint")
    assert connection.select(statement, "1") == [(1,)]


def test_other_errors_are_raised(connection):
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.select(PreparedSelect("SELECT 1 / $1::integer"), "0")
    assert connection.select(ONE, "a") == [("a",)]


def test_a_verification_reads_names_outside_ascii(service):
    issued = service.issue(caller("単位"), name="Ünïcode ☃")
    (stored,) = repository.select_stored_secrets(
        service.database, client_id=issued.client_id, seconds=5
    )
    assert (stored.credential.unit_id, stored.credential.name) == ("単位", "Ünïcode ☃")


@pytest.mark.parametrize(
    "only", [CredentialFilter(), CredentialFilter(name="CRM", enabled=True)], ids=["all", "some"]
)
def test_lists_and_credentials_are_prepared_and_do_without(connection, service, only):
    issued = service.issue(caller(), name="CRM backend")

    def read():
        (listed,) = repository.select_credentials(
            connection, unit_id="unit_demo", only=only, limit=5, after=None
        )
        found = repository.find_credential(
            connection, unit_id="unit_demo", secret_id=issued.secret_id
        )
        connection.await_standby()
        assert listed.client_id == found.client_id == issued.client_id

    connection.prepare_threshold = None
    read()
    read()
    assert len(prepared(connection)) == 3
    connection.execute("DEALLOCATE ALL")
    read()
    read()
    assert prepared(connection) == []


def test_a_select_runs_again_if_its_connection_has_died(service, database_url):
    with psycopg.connect(database_url, autocommit=True) as other:
        for _ in range(3):
            other.execute(
                # waits until each is gone
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert service.database.select(ONE, "a", seconds=5) == [("a",)]
