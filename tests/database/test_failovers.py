"""A standby is promoted, and then the previous primary comes back and still accepts writes."""

from contextlib import ExitStack, suppress

import pytest

from app.database.connection import BoundedConnection
from app.database.errors import DatabaseUnavailable
from app.database.failovers import Failovers
from app.database.pool import Database
from tests.conftest import client_of, execute, running_app
from tests.helpers import basic
from tests.pair import Pair, socket_of, value
from tests.postgres import postgres_directory
from tests.running_server import HANG_SECONDS, wait_until


@pytest.fixture
def pair():
    with postgres_directory() as directory:
        pair = Pair(directory)
        yield pair
        pair.stop()


@pytest.fixture
def member(pair, settings, issuer):
    with running_app(settings, database_url=pair.url) as app:
        yield client_of(app, issuer.sign())


def test_a_primary_that_missed_the_failover_is_refused(pair, member):
    """Otherwise credentials that were revoked since the failover would be accepted again."""
    issued = member.post("/secrets", json={"name": "x"}).json
    path = f"/secrets/{issued['secret_id']}"

    def verify():
        pair = basic(issued["client_id"], issued["client_secret"])
        return member.get("/verify", headers=pair).status_code

    assert verify() == 200
    pair.fail_over()
    wait_until(lambda: verify() == 200)
    assert member.delete(path).status_code == 204
    assert verify() == 401
    pair.start_first()
    pair.cut_connections_to_second()
    statuses = {verify() for _ in range(50)}
    assert statuses <= {401, 503}
    assert member.get("/readyz").status_code == 503
    assert member.post("/secrets", json={"name": "x"}).status_code == 503
    pair.stop_first()
    wait_until(lambda: verify() == 401)
    assert member.get("/readyz").status_code == 200


def timelines(database, *, connections):
    """Return the timelines of `connections` connections that are all lent at the same time."""
    with ExitStack() as stack:
        lent = [stack.enter_context(database.connection(2)) for _ in range(connections)]
        return {
            int(each.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()[0][:8], 16)
            for each in lent
        }


def test_connections_from_before_the_failover_are_not_used_again(pair):
    """As after a freeze, the previous primary still runs, and some connections still lead to it."""
    second_first = (
        f"postgresql://service@/postgres?host={socket_of(pair.second)},{socket_of(pair.first)}"
    )
    database = Database(second_first, connections=3)
    database.open(wait_seconds=HANG_SECONDS)
    assert timelines(database, connections=3) == {1}
    execute(pair.second, "SELECT pg_promote()")
    assert timelines(database, connections=3) == {1}
    execute(
        pair.first,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE usename = 'service' LIMIT 1",
    )

    def has_noticed():
        with suppress(DatabaseUnavailable):  # a busy machine may not connect in time
            return 2 in timelines(database, connections=3)

    wait_until(has_noticed)
    for _ in range(5):
        assert timelines(database, connections=3) == {2}
    database.close()


def test_only_primaries_of_one_cluster_are_compared(pair, postgres_uri):
    """pg_upgrade makes another cluster, and so does a dump that is restored into a new server."""
    failovers = Failovers()

    def admit(uri):
        with BoundedConnection.connect(uri) as connection:
            failovers.admit(connection)

    admit(pair.first)
    admit(pair.second)  # a standby
    assert failovers.seen == 1
    pair.fail_over()
    admit(pair.second)
    assert failovers.seen == 2
    assert value(postgres_uri, "SELECT timeline_id FROM pg_control_checkpoint()") == 1
    admit(postgres_uri)
    admit(postgres_uri)
    assert failovers.seen == 3


def test_a_database_that_hides_its_timeline_is_used(empty_database):
    execute(empty_database, "REVOKE EXECUTE ON FUNCTION pg_control_system FROM public")
    execute(empty_database, "CREATE ROLE ignorant LOGIN")
    database = Database(empty_database.replace("postgres@", "ignorant@"), connections=1)
    database.open(wait_seconds=HANG_SECONDS)
    with database.connection(2) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("ignorant",)
    database.close()
    execute(empty_database, "DROP ROLE ignorant")
