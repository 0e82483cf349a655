"""The pipeline, polled as the server does, on a real Postgres."""

import selectors
from contextlib import contextmanager
from time import monotonic

import psycopg
import pytest

from app.database.connection import PreparedSelect
from app.database.pipeline import Pipeline
from app.database.pool import Database
from tests.conftest import execute
from tests.postgres import postgres_directory, running_postgres
from tests.running_server import HANG_SECONDS, wait_until

# `asked` counts the queries, but not the attempts on new connections
SELECT = PreparedSelect("SELECT $1 || it FROM known WHERE $1 = '' OR nextval('asked') > 0")
_TABLE = "CREATE TABLE known AS SELECT 'here' AS it"
_IMPATIENT = 0.25


class RememberingDatabase(Database):
    """Remembers the connection that it made last, and can be told that it is outdated."""

    is_outdated = False

    def connect(self, **options):
        self.made = super().connect(**options)
        self.is_outdated = False
        return self.made

    def is_current(self, connection):
        return super().is_current(connection) and not self.is_outdated


class Driver:
    """Takes the part of the server: it takes turns, and remembers what became of each query."""

    def __init__(self, url, patience=HANG_SECONDS):
        self.database = RememberingDatabase(url, connections=1)
        self.poller = selectors.DefaultSelector()
        self.settled = []
        self.pipeline = Pipeline(
            self.database,
            SELECT,
            self.poller,
            lambda query, rows: self.settled.append((query, rows)),
            patience=patience,
        )

    def send(self, *queries):
        for query in queries:
            self.pipeline.add(query, f"{query}-")
        self.pipeline.end_turn()

    def turn_until(self, condition):
        """Take turns until the condition holds."""
        deadline = monotonic() + HANG_SECONDS
        while not condition():
            assert monotonic() < deadline, "it never happened"
            self.poller.select(max(0, min(1, self.pipeline.overdue_at - monotonic())))
            self.pipeline.end_turn()

    def ask(self, *queries):
        """Send the queries, and return what settled them; None for each that was given up."""
        self.settled.clear()
        self.send(*queries)
        self.turn_until(lambda: len(self.settled) == len(queries))
        return [dict(self.settled)[query] for query in queries]

    def is_connected(self):
        return bool(self.poller.get_map())

    def connect(self):
        wait_until(lambda: self.ask("x") == [[("x-here",)]])


def rows(*queries):
    return [[(f"{query}-here",)] for query in queries]


@contextmanager
def driving(url, **options):
    driver = Driver(url, **options)
    try:
        yield driver
    finally:
        driver.pipeline.close()
        driver.poller.close()


@pytest.fixture
def url(empty_database):
    """A database whose statements wait for a lock as long as it takes."""
    execute(empty_database, f"{_TABLE}; CREATE SEQUENCE asked")
    return f"{empty_database}&options=-c%20lock_timeout%3D0%20-c%20statement_timeout%3D0"


@pytest.fixture
def driver(url):
    with driving(url) as driver:
        driver.connect()
        yield driver


@pytest.fixture
def observer(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def impatient(url):
    with driving(url, patience=_IMPATIENT) as driver:
        driver.connect()
        yield driver


def kill_others(observer):
    observer.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_each_query_gets_its_own_rows(driver):
    for _ in range(3):
        queries = [f"q{number}" for number in range(200)]
        assert driver.ask(*queries) == rows(*queries)


def test_queries_of_later_turns_may_be_sent_before_the_rows_of_earlier_ones(driver):
    driver.settled.clear()
    for turn in range(20):
        driver.send(*(f"{turn}.{number}" for number in range(10)))
    driver.turn_until(lambda: len(driver.settled) == 200)
    queries = [f"{turn}.{number}" for turn in range(20) for number in range(10)]
    assert driver.settled == list(zip(queries, rows(*queries), strict=True))


def test_more_is_sent_than_the_socket_takes_at_once(driver):
    long = "x" * 500_000
    assert driver.ask(*(f"{number}{long}" for number in range(8))) == rows(
        *(f"{number}{long}" for number in range(8))
    )


def test_a_query_sees_what_was_committed_before_it_was_added(driver, observer):
    for number in range(50):
        observer.execute("UPDATE known SET it = %s", [str(number)])
        assert driver.ask("q") == [[(f"q-{number}",)]]


def test_while_there_is_no_connection_queries_are_given_up_at_once():
    with driving("postgresql://postgres@127.0.0.1:1/x") as driver:
        driver.send("a", "b")
        assert driver.settled == [("a", None), ("b", None)]


def test_queries_on_a_connection_that_is_lost_are_given_up(driver, observer):
    driver.settled.clear()
    with observer.transaction():
        observer.execute("LOCK TABLE known IN ACCESS EXCLUSIVE MODE")
        driver.send("a", "b")
        kill_others(observer)
        driver.turn_until(lambda: len(driver.settled) == 2)
    assert driver.settled == [("a", None), ("b", None)]
    driver.connect()


def test_a_connection_that_was_lost_while_idle_is_replaced(driver, observer):
    kill_others(observer)
    assert driver.ask("a") in ([None], rows("a"))
    driver.connect()


def test_what_a_server_does_not_answer_is_given_up_and_cancelled(impatient, observer):
    with observer.transaction():
        observer.execute("LOCK TABLE known IN ACCESS EXCLUSIVE MODE")
        assert impatient.ask("a", "b") == [None, None]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND wait_event = 'tuple'"
        wait_until(lambda: observer.execute(waiting, [SELECT.text]).fetchone() == (0,))
    impatient.connect()


def test_a_new_connection_is_used_once_the_statement_works_on_it(impatient, observer):
    """Otherwise all queries would wait for the lock again and again."""
    before = impatient.database.made.info.backend_pid
    with observer.transaction():
        observer.execute("LOCK TABLE known IN ACCESS EXCLUSIVE MODE")
        impatient.ask("a")
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND pid <> %s"
        wait_until(lambda: observer.execute(waiting, [before]).rowcount)  # the new connection
        assert impatient.ask(*range(100)) == [None] * 100
        assert not impatient.is_connected()
    impatient.connect()


def test_nothing_is_sent_on_a_connection_from_before_a_failover(driver, observer):
    asked = "SELECT last_value FROM asked"
    before = observer.execute(asked).fetchone()
    driver.database.is_outdated = True
    assert driver.ask("a", "b") == [None, None]
    assert observer.execute(asked).fetchone() == before
    driver.connect()


def test_behind_a_pooler_nothing_prepared_is_run_after_a_statement_was_missing(driver, observer):
    """The pooler has lent the connection to a client that discards all statements."""
    connection = driver.database.made
    connection.pgconn.exit_pipeline_mode()
    connection.deadline = monotonic() + HANG_SECONDS
    connection.execute("DEALLOCATE ALL")
    connection.pgconn.enter_pipeline_mode()
    assert driver.ask("a", "b") == [None, None]
    driver.connect()
    assert driver.ask("a", "b") == rows("a", "b")
    assert not driver.database.made.may_prepare


def test_a_migration_may_change_the_type_of_a_column(driver, observer):
    observer.execute("ALTER TABLE known ADD also integer, ALTER it TYPE char(4)")
    wait_until(lambda: driver.ask("a") == rows("a"))
    observer.execute("DROP TABLE known")
    assert driver.ask("a") == [None]
    observer.execute(_TABLE)
    driver.connect()


def test_after_a_frozen_server_it_connects_again():
    with postgres_directory() as directory, running_postgres(directory / "data") as postgres:
        execute(postgres.uri, f"{_TABLE}; CREATE SEQUENCE asked")
        with driving(postgres.uri, patience=_IMPATIENT) as driver:
            driver.connect()
            with postgres.frozen():
                assert driver.ask("a", "b", "c") == [None] * 3
                assert driver.ask("d") == [None]
            driver.connect()
