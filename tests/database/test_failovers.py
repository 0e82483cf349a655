"""A standby is promoted, and then the previous primary comes back and still accepts writes."""

import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from app.database.connection import BoundedConnection
from app.database.errors import DatabaseUnavailable
from app.database.failovers import Failovers
from app.database.migrations import migrate
from app.database.pool import Database
from app.dev.postgres import embedded_postgres
from tests.conftest import client_of, environment, execute, running_app
from tests.helpers import basic, follow, next_of
from tests.pair import Pair, socket_of, value
from tests.postgres import postgres_directory
from tests.running_server import HANG_SECONDS, clean_environment, running_server, wait_until


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


@pytest.fixture
def issue(member):
    """Return a function that issues credentials with these names, one after the other."""

    def is_issued(name):
        return member.post("/secrets", json={"name": name}).status_code == 200

    return lambda *names: [wait_until(partial(is_issued, name)) for name in names]


@pytest.fixture
def following(pair, settings):
    """Return a function that reads so many names from `credentials events --follow`."""
    program = Path(sys.executable).parent / "credentials"
    process = subprocess.Popen(
        [program, "events", "--follow", "--json", "--unit", "unit_demo"],
        env=clean_environment() | environment(settings, database_url=pair.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def read(count):
        return [json.loads(process.stdout.readline())["name"] for _ in range(count)]

    read.end = lambda: (process.terminate(), process.communicate(timeout=10))[1]
    yield read
    process.kill()
    process.communicate()


TRAIL = "/secrets/events?order=asc"
LOST = "Some of these events were lost in a failover or a restore; going on.\n"


def test_followers_miss_nothing_if_a_failover_loses_nothing(pair, member, issue, following):
    issue("1", "2")
    page = next_of(follow(member, TRAIL, ["1", "2"]))
    assert following(2) == ["1", "2"]
    pair.fail_over()
    issue("3", "4")
    follow(member, page, ["3", "4"])
    assert following(2) == ["3", "4"]
    out, err = following.end()
    assert out == ""
    assert LOST not in err


def test_followers_learn_what_a_failover_has_lost_and_miss_nothing(pair, member, issue, following):
    """The new primary gives the transaction IDs, and the event IDs, of the lost events again."""
    issue("1", "2", "3")
    early = next_of(follow(member, f"{TRAIL}&limit=1", ["1"])).replace("limit=1&", "")
    pair.wait_for_second()
    names = [f"lost {number}" for number in range(4)]
    pages = []

    def lost():
        issue(*names)
        pages.append(next_of(follow(member, early, ["2", "3", *names])))
        assert following(7) == ["1", "2", "3", *names]

    pair.fail_over_with_loss(lost)
    wait_until(lambda: member.get(TRAIL).status_code == 200)
    at_once = member.get(*pages)  # before the new primary has written anything
    assert at_once.status_code == 410
    issue("4", "5", "6")
    follow(member, next_of(at_once), ["4", "5", "6"])
    gone = member.get(*pages)
    assert (gone.status_code, gone.json["type"]) == (410, "/docs/errors#history-lost")
    follow(member, next_of(gone), ["4", "5", "6"])
    follow(member, early, ["2", "3", "4", "5", "6"])
    assert following(3) == ["4", "5", "6"]
    out, err = following.end()
    assert out == ""
    assert err.count(LOST) == 1


def test_followers_learn_what_a_restore_to_a_point_in_time_has_lost(settings, issuer):
    """The restored server gives the transaction IDs of the lost events again."""

    def issue(member, name):
        assert member.post("/secrets", json={"name": name}).status_code == 200

    with postgres_directory() as directory:
        damaged, backup = directory / "damaged", directory / "backup"
        with embedded_postgres(damaged) as url:
            migrate(url)
        subprocess.run(["cp", "-a", damaged, backup], check=True)
        with (
            embedded_postgres(damaged) as url,
            running_app(settings, database_url=url) as app,
        ):
            member = client_of(app, issuer.sign())
            issue(member, "kept")
            early = next_of(follow(member, TRAIL, ["kept"]))
            point = value(url, "SELECT pg_current_wal_lsn()")
            issue(member, "lost")
            late = next_of(follow(member, early, ["lost"]))
        with (backup / "postgresql.auto.conf").open("a") as file:
            file.write(
                f"restore_command = 'cp {damaged}/pg_wal/%f %p'\n"
                f"recovery_target_lsn = '{point}'\n"
                "recovery_target_action = promote\n"
            )
        (backup / "recovery.signal").touch()
        with embedded_postgres(backup) as url:
            wait_until(lambda: not value(url, "SELECT pg_is_in_recovery()"))
            with running_app(settings, database_url=url) as app:
                member = client_of(app, issuer.sign())
                issue(member, "new")
                follow(member, early, ["new"])
                gone = member.get(late)
                assert gone.status_code == 410
                follow(member, next_of(gone), ["new"])


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


def test_the_fast_path_leaves_a_primary_that_a_failover_has_replaced(pair, settings, issuer):
    """The previous primary still runs, and the connection of the fast path still leads to it."""
    second_first = (
        f"postgresql://service@/postgres?host={socket_of(pair.second)},{socket_of(pair.first)}"
    )
    of_fast_path = "query LIKE '%epoch FROM expires_at%' AND usename = 'service'"
    with running_server(
        environment(settings, database_url=second_first, web_concurrency=1)
    ) as server:
        headers = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
        issued = server.request("POST", "/secrets", json.dumps({"name": "x"}), **headers).json()
        credential = basic(issued["client_id"], issued["client_secret"])

        def verify():
            return server.request("GET", "/verify", **credential).status

        def connections(of, where):
            return value(of, f"SELECT count(*) FROM pg_stat_activity WHERE {where}")

        wait_until(lambda: verify() == 200 and connections(pair.first, of_fast_path))
        pair.wait_for_second()
        execute(pair.second, "SELECT pg_promote()")
        wait_until(lambda: not value(pair.second, "SELECT pg_is_in_recovery()"))
        execute(pair.second, "DELETE FROM credentials")
        assert verify() == 200  # nobody has told this process
        execute(
            pair.first,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE usename = 'service' AND NOT ({of_fast_path}) LIMIT 1",
        )
        wait_until(lambda: verify() == 401)
        assert {verify() for _ in range(50)} == {401}
        assert not connections(pair.first, of_fast_path)


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
