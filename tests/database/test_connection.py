"""One connection: its parameters, and its deadline."""

from contextlib import closing
from time import monotonic

import psycopg
import pytest

from app.database.connection import BoundedConnection, connection_parameters, is_connection_uri
from tests.conftest import new_postgres
from tests.running_server import HANG_SECONDS, free_port


@pytest.fixture
def setting(database_url):
    """Return a function that reads a setting of a session that is opened with the URI."""

    def setting(name, extra=""):
        parameters = connection_parameters(f"{database_url}{extra}", target_session_attrs="any")
        with psycopg.connect(**parameters) as connection:
            return connection.execute("SELECT current_setting(%s)", [name]).fetchone()[0]

    return setting


def test_a_connection_has_an_application_name_that_the_uri_may_change(setting):
    assert setting("application_name") == "leadvibe-credentials"
    assert setting("application_name", "&application_name=mine") == "mine"


def test_a_session_always_uses_utf_8(setting):
    assert setting("client_encoding", "&client_encoding=latin1") == "UTF8"


def test_a_connection_that_gave_up_runs_no_more_statements(database_url):
    with closing(BoundedConnection.connect(database_url, autocommit=True)) as connection:
        connection.deadline = monotonic() + 0.1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(%s)", [10 * HANG_SECONDS])
        connection.deadline = monotonic() + HANG_SECONDS
        with pytest.raises(psycopg.OperationalError, match=r"^the connection gave up"):
            connection.execute("SELECT 1")


def test_the_options_of_the_uri_override_ours(database_url):
    parameters = connection_parameters(
        f"{database_url}&options=-c%20lock_timeout%3D7s",
        target_session_attrs="any",
        options="-c lock_timeout=1s -c statement_timeout=2s",
    )
    with psycopg.connect(**parameters) as connection:
        query = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        assert connection.execute(query).fetchone() == ("7s", "2s")


def test_a_network_that_drops_packets_is_noticed_in_seconds():
    """It checks only the parameters, because Postgres runs on a Unix socket in these tests."""
    parameters = connection_parameters("postgresql://db/x", target_session_attrs="any")
    tries = parameters["keepalives_interval"] * parameters["keepalives_count"]
    assert parameters["keepalives_idle"] + tries <= 8
    assert parameters["tcp_user_timeout"] <= 3000
    assert parameters["connect_timeout"] <= 2
    theirs = connection_parameters(
        "postgresql://db/x?keepalives_idle=9&tcp_user_timeout=9000", target_session_attrs="any"
    )
    assert (theirs["keepalives_idle"], theirs["tcp_user_timeout"]) == ("9", "9000")


def test_the_server_too_notices_a_network_that_drops_packets(monkeypatch):
    port = free_port()
    monkeypatch.setenv("PGPORT", str(port))  # of the server and of its clients
    with new_postgres(fsync="off", listen_addresses="127.0.0.1"):
        parameters = connection_parameters(
            f"postgresql://postgres@127.0.0.1:{port}/postgres", target_session_attrs="any"
        )
        names = [
            "tcp_keepalives_idle",
            "tcp_keepalives_interval",
            "tcp_keepalives_count",
            "tcp_user_timeout",
        ]
        with psycopg.connect(**parameters) as connection:
            query = "SELECT current_setting(%s)"
            values = [connection.execute(query, [name]).fetchone()[0] for name in names]
    assert values == ["5", "1", "3", "3000"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
@pytest.mark.parametrize("hosts", ["db", "db:5432", "db1:5432,db2", "[::1]:5432"])
def test_a_uri_has_either_scheme_and_needs_no_port(scheme, hosts):
    assert is_connection_uri(f"{scheme}://{hosts}/credentials")
