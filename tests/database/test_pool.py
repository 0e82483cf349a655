"""The connection pool of a process, while the database is up."""

from contextlib import ExitStack
from time import monotonic

import psycopg
import pytest

from app.database.connection import PreparedSelect
from app.database.errors import DatabaseFault, DatabaseUnavailable
from app.database.pool import Database
from tests.conftest import execute
from tests.running_server import HANG_SECONDS, wait_until

ONE = PreparedSelect("SELECT $1 AS it")
NAME = "tests-of-the-pool"


@pytest.fixture
def database(database_url):
    database = Database(f"{database_url}&application_name={NAME}", connections=5)
    database.open(wait_seconds=HANG_SECONDS)
    yield database
    database.close()


@pytest.fixture
def sessions(rows):
    """Return a function that counts the sessions of the pool."""

    def sessions():
        query = "SELECT FROM pg_stat_activity WHERE application_name = %(name)s"
        return len(rows(query, name=NAME))

    return sessions


def test_a_process_has_all_of_its_connections_from_the_start_and_never_more(database, sessions):
    assert sessions() == 5
    with ExitStack() as stack:
        lent = [stack.enter_context(database.connection(5)) for _ in range(5)]
        assert len({each.info.backend_pid for each in lent}) == 5
        assert sessions() == 5


def test_nothing_connects_before_the_pool_is_opened(database_url):
    """A connection that is made before the fork would be shared by processes."""
    database = Database(database_url, connections=1)
    with pytest.raises(DatabaseUnavailable), database.connection(5):
        pass


def test_opening_waits_for_the_connections_if_asked_to():
    database = Database("postgresql://app@127.0.0.1:1/x", connections=1)
    with pytest.raises(DatabaseUnavailable):
        database.open(wait_seconds=0.2)
    database.close()


def test_the_state_counts_lent_connections_and_those_who_waited(database):
    assert (database.pool_state().in_use, database.pool_state().waits) == (0, 0)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(database.connection(5))
        assert database.pool_state().in_use == 5
        with pytest.raises(DatabaseUnavailable), database.connection(0.1):
            pass
        assert database.pool_state().waits == 1
    assert database.pool_state().in_use == 0


def test_a_caller_waits_for_a_connection_as_long_as_it_may_use_the_database(database):
    """On a busy machine, the pool needs time to connect."""
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(database.connection(5))
        started = monotonic()
        with pytest.raises(DatabaseUnavailable), database.connection(1):
            pass
        assert monotonic() - started >= 1


LIMITS = """
    SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
           current_setting('idle_in_transaction_session_timeout')
"""


def test_the_server_also_limits_statements_locks_and_idle_transactions(database):
    with database.connection(5) as connection:
        assert connection.execute(LIMITS).fetchone() == ("3s", "500ms", "4s")


def test_the_role_has_the_same_limits_for_a_pooler_that_drops_ours(settings):
    with psycopg.connect(settings.database_url) as connection:
        assert connection.execute(LIMITS).fetchone() == ("3s", "500ms", "4s")


def test_a_transaction_that_the_server_ended_while_it_was_idle_means_unavailable(
    database, sessions, rows
):
    """Its process was frozen, for example, and others needed its locks."""

    def idle_for_too_long():
        with database.transaction(60) as connection:
            connection.execute("SELECT 1")
            pid = connection.info.backend_pid
            query = "SELECT FROM pg_stat_activity WHERE pid = %(pid)s"
            wait_until(lambda: not rows(query, pid=pid))
            connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match="25P03"):
        idle_for_too_long()
    wait_until(lambda: sessions() == 5)
    with database.transaction(5) as connection:
        connection.execute("SELECT 1")


def test_closing_ends_every_connection(database, sessions):
    with database.connection(5), database.connection(5):
        pass
    database.select(ONE, "a", seconds=5)
    database.close()
    wait_until(lambda: sessions() == 0)


def test_only_the_select_of_a_verification_is_prepared(database):
    """PgBouncer before 1.21 mixes up prepared statements of its clients that have the same name."""
    database.select(ONE, "a", seconds=5)
    with database.connection(5) as connection:
        for _ in range(10):
            connection.execute("SELECT 1")
        prepared = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
    assert set(prepared) <= {(ONE.name.decode(),)}


def test_a_select_that_fails_does_not_run_again(database, database_url, rows):
    execute(database_url, "CREATE SEQUENCE runs")
    try:
        failing = PreparedSelect("SELECT 1 / (nextval('runs') * $1::bigint)")
        with pytest.raises(DatabaseFault, match="DivisionByZero"):
            database.select(failing, "0", seconds=5)
        assert rows("SELECT last_value, is_called FROM runs") == [
            {"last_value": 1, "is_called": True}
        ]
    finally:
        execute(database_url, "DROP SEQUENCE runs")


def test_a_select_that_runs_again_has_no_more_time_than_before(database, rows):
    pause = PreparedSelect("SELECT pg_sleep($1::float8)::text")
    query = (
        "SELECT pg_terminate_backend(pid, %(wait_ms)s) FROM pg_stat_activity "
        "WHERE application_name = %(name)s"
    )
    rows(query, name=NAME, wait_ms=HANG_SECONDS * 1000)
    # without a deadline of ours, Postgres itself would end it after three seconds
    with pytest.raises(DatabaseUnavailable) as caught:
        database.select(pause, "9", seconds=0.5)
    assert "QueryCanceled" not in str(caught.value)


def test_a_session_that_cannot_write_is_replaced(database):
    """It may belong to a primary that has become a standby."""
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(database.connection(5))
            connection.execute("SET default_transaction_read_only = on")

    def write():
        with database.connection(5) as connection:
            connection.execute("UPDATE credentials SET name = name")

    for _ in range(5):
        with pytest.raises(DatabaseUnavailable, match="ReadOnlySqlTransaction"):
            write()
    write()


def test_a_select_without_time_left_costs_no_connection(database, rows):
    def sessions():
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s"
        return {row["pid"] for row in rows(query, name=NAME)}

    before = sessions()
    for seconds in (0, -1):
        with pytest.raises(DatabaseUnavailable):
            database.select(ONE, "a", seconds=seconds)
    assert database.select(ONE, "a", seconds=5) == [("a",)]
    assert sessions() == before
