"""Every way in which the database can be unavailable."""

import gc
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import bcrypt
import psutil
import psycopg
import pytest

from app.credentials.generator import generate_client_id, generate_client_secret
from app.database.errors import DatabaseUnavailable, is_transient
from app.database.migrations import migrate
from app.database.pool import Database
from tests.conftest import client_of, environment, execute, running_app
from tests.helpers import basic, caller, service_role
from tests.postgres import postgres_directory, running_postgres
from tests.running_server import HANG_SECONDS, running_server, wait_until

UNREACHABLE = "postgresql://postgres@127.0.0.1:1/x"


@pytest.fixture
def postgres():
    with postgres_directory() as directory, running_postgres(directory / "data") as postgres:
        migrate(postgres.uri)
        yield postgres


@pytest.fixture
def member(postgres, settings, issuer):
    with running_app(settings, database_url=postgres.uri) as app:
        yield client_of(app, issuer.sign())


def issue(member):
    return member.post("/secrets", json={"name": "x"})


def assert_unavailable(call):
    """The call fails, while whatever makes the database unavailable lasts.

    How long it takes, `make drill` measures.
    """
    answer = call()
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["title"] == "Service Unavailable"
    assert "client_secret" not in answer.text


def assert_serves_again(member):
    wait_until(lambda: issue(member).status_code == 200)
    assert all(issue(member).status_code == 200 for _ in range(8))


@pytest.mark.parametrize("call", [issue, lambda member: member.get("/secrets")])
def test_a_stopped_database_means_503_until_it_is_back(postgres, member, call):
    assert call(member).status_code == 200
    postgres.stop()
    for _ in range(3):
        assert_unavailable(lambda: call(member))
    postgres.start()
    assert_serves_again(member)


def test_the_start_and_the_end_of_an_outage_are_logged(postgres, member, caplog):
    caplog.set_level("INFO")
    postgres.stop()
    wait_until(lambda: member.get("/secrets").status_code == 503)
    assert any(each.startswith("database unavailable: ") for each in caplog.messages)
    wait_until(lambda: "uses, refusals and digests not recorded yet" in caplog.messages)
    again = ["database available again", "uses, refusals and digests recorded again"]
    assert not set(again) & set(caplog.messages)
    postgres.start()
    wait_until(lambda: set(again) <= set(caplog.messages))


def test_a_frozen_database_means_503(postgres, member):
    assert issue(member).status_code == 200
    with postgres.frozen(), ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(assert_unavailable, lambda: issue(member)) for _ in range(6)]
        for call in calls:
            call.result()
    assert_serves_again(member)


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("PUT", "", {"trust_upstream_consent": True}), ("PATCH", "", {"trust_upstream_consent": True}),
     ("POST", "/rotate", {}), ("DELETE", "", None)],
)  # fmt: skip
def test_a_change_in_a_frozen_database_means_503_and_is_not_half_stored(
    postgres, member, method, suffix, body
):
    issued = issue(member).json
    path = f"/secrets/{issued['secret_id']}"
    with postgres.frozen():
        assert_unavailable(lambda: member.open(f"{path}{suffix}", method=method, json=body))
    assert_serves_again(member)
    shown = member.get(path)
    assert shown.status_code == 200
    assert shown.json["trust_upstream_consent"] is False
    assert [secret["hint"] for secret in shown.json["secrets"]] == [issued["client_secret"][-4:]]
    assert len(member.get(f"{path}/events").json) == 1


def test_a_verification_in_a_frozen_database_means_503(postgres, member):
    issued = issue(member).json
    headers = basic(issued["client_id"], issued["client_secret"])
    with postgres.frozen():
        assert_unavailable(lambda: member.get("/verify", headers=headers))
    wait_until(lambda: member.get("/verify", headers=headers).status_code == 200)


@pytest.fixture
def without_garbage_collection():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage_collection")
def test_connects_that_time_out_leave_no_session_on_a_frozen_database(postgres):
    database = Database(f"{postgres.uri}&application_name=connecting", connections=1)

    def connect(_):
        with pytest.raises(DatabaseUnavailable, match="ConnectionTimeout"):
            database.check()

    before = open_sockets()
    with postgres.frozen(), ThreadPoolExecutor(8) as pool:
        list(pool.map(connect, range(8)))
        assert open_sockets() <= before
    with psycopg.connect(postgres.uri, autocommit=True) as observer:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'connecting'"
        wait_until(lambda: observer.execute(query).fetchone() == (0,))


def open_sockets():
    return len(psutil.Process().net_connections("all"))


def assert_all_answered(server, headers):
    """Send 40 verifications at the same time, ten for each thread, and a health check."""

    def call(path):
        return path, server.request("GET", path, **headers).status

    with ThreadPoolExecutor(41) as pool:
        answers = set(pool.map(call, ["/verify"] * 40 + ["/healthz"]))
    assert answers == {("/verify", 503), ("/healthz", 200)}


def test_more_callers_than_threads_are_all_answered_without_a_database(settings):
    unreachable = environment(settings, database_url=UNREACHABLE)
    headers = basic(generate_client_id(), generate_client_secret())
    with running_server(unreachable) as server:
        assert_all_answered(server, headers)
        assert_all_answered(server, headers)


def test_more_callers_than_threads_are_all_answered_while_the_database_is_frozen(
    postgres, settings
):
    headers = basic(generate_client_id(), generate_client_secret())
    with running_server(environment(settings, database_url=postgres.uri)) as server:
        assert server.request("GET", "/verify", **headers).status == 401
        with postgres.frozen():
            assert_all_answered(server, headers)
        wait_until(lambda: server.request("GET", "/verify", **headers).status == 401)


def terminate_sessions(postgres):
    """End the service's sessions, and wait until they have ended."""
    execute(
        postgres.uri,
        f"SELECT pg_terminate_backend(pid, {HANG_SECONDS * 1000}) FROM pg_stat_activity "
        "WHERE application_name = 'leadvibe-credentials'",
    )


def test_connections_that_the_server_closed_fail_at_most_one_request(postgres, member):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: issue(member), range(8)))
    terminate_sessions(postgres)
    issue(member)
    wait_until(lambda: issue(member).status_code == 200)
    assert all(issue(member).status_code == 200 for _ in range(8))


def test_a_statement_that_waits_for_a_lock_means_503_and_stores_nothing(postgres, member):
    with psycopg.connect(postgres.uri) as other:
        other.execute("LOCK TABLE credential_events IN ACCESS EXCLUSIVE MODE")
        assert_unavailable(lambda: issue(member))
        other.rollback()
        assert other.execute("SELECT count(*) FROM credentials").fetchone() == (0,)
    assert_serves_again(member)


def test_a_read_only_server_means_503(postgres, member):
    assert issue(member).status_code == 200
    execute(postgres.uri, "ALTER SYSTEM SET default_transaction_read_only = on")
    execute(postgres.uri, "SELECT pg_reload_conf()")
    wait_until(lambda: issue(member).status_code == 503)
    assert_unavailable(lambda: issue(member))
    with psycopg.connect(
        postgres.uri, autocommit=True, options="-c default_transaction_read_only=off"
    ) as connection:
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
    assert_serves_again(member)


def test_a_database_that_is_not_migrated_means_503(settings, issuer, empty_database):
    with running_app(settings, database_url=empty_database) as app:
        assert_unavailable(lambda: issue(client_of(app, issuer.sign())))


@pytest.fixture
def app_without_database(settings):
    with running_app(settings, database_url=UNREACHABLE) as app:
        yield app


def test_a_database_that_never_existed_means_503(app_without_database, issuer):
    assert_unavailable(lambda: issue(client_of(app_without_database, issuer.sign())))


def test_nothing_is_hashed_while_the_database_is_down(app_without_database, issuer, monkeypatch):
    hashed = []
    hashpw = bcrypt.hashpw

    def counting(*arguments):
        hashed.append(arguments)
        return hashpw(*arguments)

    monkeypatch.setattr(bcrypt, "hashpw", counting)
    member = client_of(app_without_database, issuer.sign())

    def hashes_of_an_issue():
        before = len(hashed)
        assert_unavailable(lambda: issue(member))
        return len(hashed) - before

    hashes_of_an_issue()  # the first caller finds out, if the background writer has not
    wait_until(lambda: hashes_of_an_issue() == 0)
    assert [hashes_of_an_issue() for _ in range(3)] == [0] * 3


@pytest.mark.parametrize("path", ["/secrets", "/verify"])
def test_callers_fail_at_once_while_the_database_is_down(app_without_database, issuer, path):
    """None of them waits for a connection, as the first caller did."""
    headers = {
        "/secrets": {"Authorization": f"Bearer {issuer.sign()}"},
        "/verify": basic(generate_client_id(), generate_client_secret()),
    }

    def call():
        return app_without_database.test_client().get(path, headers=headers[path])

    def waits_of_ten_calls():
        before = app_without_database.services.database.pool_state().waits
        for _ in range(10):
            assert_unavailable(call)
        return app_without_database.services.database.pool_state().waits - before

    wait_until(lambda: waits_of_ten_calls() == 0)


def test_a_connection_that_is_lost_while_issuing_shows_no_secret(postgres, member):
    """The connection breaks while the statement runs, so the service cannot know its outcome."""
    with psycopg.connect(postgres.uri) as other:
        other.execute("LOCK TABLE credential_events IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(issue, member)
            with psycopg.connect(postgres.uri, autocommit=True) as observer:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                wait_until(lambda: observer.execute(waiting).fetchone() == (1,))
                observer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE wait_event_type = 'Lock'"
                )
            assert_unavailable(call.result)


def test_a_standby_is_not_used(postgres, settings, issuer):
    """It may lag behind, so that a revoked secret could still be seen there."""
    postgres.stop()
    (postgres.data / "standby.signal").touch()
    postgres.start()
    with running_app(settings, database_url=postgres.uri) as app:
        assert_unavailable(lambda: client_of(app, issuer.sign()).get("/secrets"))


def test_verification_works_while_the_database_is_read_only(postgres, member):
    issued = issue(member).json
    headers = basic(issued["client_id"], issued["client_secret"])
    execute(postgres.uri, "ALTER SYSTEM SET default_transaction_read_only = on")
    execute(postgres.uri, "SELECT pg_reload_conf()")
    wait_until(lambda: issue(member).status_code == 503)
    for _ in range(10):
        assert issue(member).status_code == 503
        assert member.get("/verify", headers=headers).status_code == 200
        assert member.get("/readyz").status_code == 200


def test_idle_connections_that_the_server_closed_fail_no_request(postgres, member):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: issue(member), range(8)))
    for _ in range(3):
        terminate_sessions(postgres)
        assert [issue(member).status_code for _ in range(4)] == [200] * 4


def test_a_slow_statement_does_not_mean_that_the_database_is_down(postgres, member):
    issued = issue(member).json
    headers = basic(issued["client_id"], issued["client_secret"])
    with psycopg.connect(postgres.uri) as other:
        other.execute("LOCK TABLE credential_events IN ACCESS EXCLUSIVE MODE")
        assert_unavailable(lambda: issue(member))
        assert {member.get("/verify", headers=headers).status_code for _ in range(20)} == {200}


def test_an_abandoned_statement_is_cancelled_on_the_server(postgres, member):
    issue(member)
    execute(postgres.uri, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    execute(postgres.uri, "SELECT pg_reload_conf()")
    assert_unavailable(lambda: issue(member))
    with psycopg.connect(postgres.uri, autocommit=True) as observer:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: observer.execute(waiting).fetchone() == (0,))


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [("08006", True), ("08P01", True), ("25006", True), ("25P03", True), ("25P04", True),
     ("40P01", True), ("42P01", True), ("53100", True), ("53300", True), ("55P03", True),
     ("57014", True), ("57P01", True), ("23514", False), ("42501", False), ("42601", False),
     ("26000", False), ("42P05", False), ("22001", False)],
)  # fmt: skip
def test_the_sqlstate_says_whether_an_error_is_transient(sqlstate, expected):
    kind = psycopg.errors.lookup(sqlstate)
    assert is_transient(kind("x")) is expected


def test_the_service_works_with_the_least_privileges(postgres, app_with, issuer):
    """The role is made as in deploy/postgres, and every verb is tried."""
    execute(postgres.uri, service_role())
    url = postgres.uri.replace("//postgres@", "//credentials_service@")
    assert url != postgres.uri
    app = app_with(database_url=url, digest_keys=(b"n" * 32, b"o" * 32))
    old = app_with(database_url=url, digest_keys=(b"o" * 32,))
    member = client_of(old, issuer.sign())
    issued = issue(member).json
    path = f"/secrets/{issued['secret_id']}"
    headers = basic(issued["client_id"], issued["client_secret"])
    member = client_of(app, issuer.sign())
    assert member.get("/readyz").status_code == 200
    assert member.get("/verify", headers=headers).status_code == 200
    app.services.writer.flush()
    assert member.get(path).json["last_used_at"] is not None
    wrong = basic(issued["client_id"], generate_client_secret())
    assert member.get("/verify", headers=wrong).status_code == 401
    app.services.writer.flush()
    assert member.get(path).json["last_refused"]["reason"] == "wrong"
    assert member.put(path, json={"trust_upstream_consent": True}).status_code == 204
    for overlap in (60, 0, 60):
        body = {"overlap_seconds": overlap}
        key = {"Idempotency-Key": str(uuid4())}
        rotated = member.post(f"{path}/rotate", json=body, headers=key)
        assert rotated.status_code == 200
        assert member.post(f"{path}/rotate", json=body, headers=key).data == rotated.data
    assert member.delete(f"{path}/secrets/{rotated.json['client_secret'][-4:]}").status_code == 204
    for enabled in (False, True):
        body = {"trust_upstream_consent": True, "enabled": enabled}
        assert member.put(path, json=body).status_code == 204
    app.services.writer.clean_up()
    for verb in ("disable_all", "enable_all"):
        assert getattr(app.services.credentials, verb)(caller()) == 1
    assert member.delete(f"{path}?unused_for=60").status_code == 409
    assert member.delete(path).status_code == 204
    assert len(member.get(f"{path}/events").json) == 12
    assert member.get("/secrets/events?order=asc").status_code == 200
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "UPDATE credential_events SET actor = 'eve'",
            "DELETE FROM credential_events",
            "UPDATE client_secrets SET secret_hash = ''",
            "UPDATE credentials SET unit_id = 'mine'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_service_recovers_even_if_no_thread_can_be_started(postgres, member, monkeypatch):
    class NoThread:
        def __init__(self, **_):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")

    assert issue(member).status_code == 200
    with monkeypatch.context() as patched:
        patched.setattr("app.database.pool.Thread", NoThread)
        postgres.stop()
        for _ in range(3):
            assert_unavailable(lambda: issue(member))
    postgres.start()
    assert_serves_again(member)


def _die(_):
    raise SystemExit


# the threads die on purpose
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callers_try_again_if_the_recovery_thread_dies(postgres, member, monkeypatch):
    """Without the recovery thread, callers try again after a second."""
    postgres.stop()
    wait_until(lambda: issue(member).status_code == 503)
    monkeypatch.setattr("app.database.pool.sleep", _die)
    wait_until(lambda: issue(member).status_code == 503)
    postgres.start()
    assert_serves_again(member)
