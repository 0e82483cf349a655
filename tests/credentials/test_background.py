"""The background writer, on real connections: what it records, deletes, and tells the others."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from app import create_app
from app.bulkheads import BulkheadFull
from app.credentials import repository
from app.credentials.errors import CredentialInUse, InvalidExpiry, LastUseUnknown
from app.credentials.generator import generate_secret_id
from tests.conftest import TEMPLATE, client_of, database, empty_rows, execute
from tests.helpers import caller
from tests.running_server import HANG_SECONDS, wait_until

UNUSED_FOR = 60


@pytest.fixture(scope="module")
def own_database(postgres_uri, worker_id):
    """A database of its own: other tests leave a process running on theirs."""
    name = f"background_{worker_id}"
    execute(postgres_uri, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield database(postgres_uri, name)
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def settings(settings, own_database):
    url = own_database.replace("//postgres@", "//credentials_service@")
    return replace(settings, database_url=url)


@pytest.fixture
def rows(own_database):
    with empty_rows(own_database) as rows:
        yield rows


@pytest.fixture
def idle(settings, rows):
    """The services of a process without its background thread, so that a test takes its turns."""
    services = create_app(settings).services
    services.database.open(wait_seconds=10)
    yield services
    services.database.close()


@pytest.fixture
def issue(idle):
    """Return a function that issues as many credentials."""
    return lambda count: [
        idle.credentials.issue(caller(), name=f"n{number}") for number in range(count)
    ]


@pytest.fixture
def locked(own_database):
    """Return a context manager in which another session holds the rows of the statement."""

    @contextmanager
    def locked(statement, **parameters):
        with psycopg.connect(own_database) as other:
            other.execute(statement, parameters)
            yield other

    return locked


def use(services, *credentials):
    for each in credentials:
        services.verifier.verify(client_id=each.client_id, client_secret=each.client_secret)


def used(rows):
    """Return the IDs of the credentials with a recorded use."""
    found = rows("SELECT secret_id FROM client_secrets WHERE last_used_at IS NOT NULL")
    return {each["secret_id"] for each in found}


def created_long_ago(rows):
    for table in ("client_secrets", "credentials"):
        rows.execute(f"UPDATE {table} SET created_at = created_at - interval '1 day'")


# Record uses


@pytest.mark.parametrize("mode", ["UPDATE", "SHARE"])
def test_a_locked_client_secret_delays_no_other_use(idle, issue, locked, rows, mode):
    first, held, last = issue(3)
    use(idle, first, held, last)
    query = f"SELECT FROM client_secrets WHERE secret_id = %(secret_id)s FOR {mode}"
    with locked(query, secret_id=held.secret_id):
        assert not idle.writer.flush()
        assert used(rows) == {first.secret_id, last.secret_id}
        assert idle.writer.seconds_since_use(held.secret_id) is not None
        assert idle.writer.seconds_since_use(first.secret_id) is None
    assert idle.writer.flush()
    assert used(rows) == {each.secret_id for each in (first, held, last)}
    assert idle.writer.seconds_since_use(held.secret_id) is None


def test_a_statement_that_fails_delays_no_other_use(idle, issue, rows):
    """3,000 uses. The server cancels the update of one of them, as after a timeout."""
    [issued] = issue(1)
    rows.execute(
        "INSERT INTO client_secrets (secret_id, secret_hash, hint) "
        "SELECT secret_id, secret_hash, hint FROM client_secrets, generate_series(2, 3000)"
    )
    ids = [
        each["client_secret_id"]
        for each in rows("SELECT client_secret_id FROM client_secrets ORDER BY client_secret_id")
    ]
    rows.execute(
        f"""
        CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = 'query_canceled'; END $$;
        CREATE TRIGGER cancel BEFORE UPDATE ON client_secrets FOR EACH ROW
            WHEN (NEW.client_secret_id = {ids[1500]}) EXECUTE FUNCTION cancel();
        """
    )
    try:
        for each in ids:
            idle.writer.record_use(each, issued.secret_id)
            idle.writer.renew_digest(each, bytes(40))
        assert not idle.writer.flush()
        query = "SELECT count(last_used_at) AS used, count(digest) AS digests FROM client_secrets"
        assert rows(query) == [{"used": 2000, "digests": 2000}]
    finally:
        rows.execute("DROP TRIGGER cancel ON client_secrets")
        rows.execute("DROP FUNCTION cancel")
    assert idle.writer.flush()
    assert rows(query) == [{"used": 3000, "digests": 3000}]


def test_fifty_thousand_uses_are_written_after_an_outage(idle, issue, rows):
    [issued] = issue(1)
    rows.execute(
        "INSERT INTO client_secrets (secret_id, secret_hash, hint) "
        "SELECT secret_id, secret_hash, hint FROM client_secrets, generate_series(2, 50000)"
    )
    for each in rows("SELECT client_secret_id FROM client_secrets"):
        idle.writer.record_use(each["client_secret_id"], issued.secret_id)
    wait_until(idle.writer.flush)  # a slow machine may need several attempts
    assert rows.count("client_secrets WHERE last_used_at IS NULL") == 0
    assert idle.writer.seconds_since_use(issued.secret_id) is None


def test_the_count_of_expiring_secrets_delays_no_use(idle, issue, rows):
    [issued] = issue(1)
    use(idle, issued)
    with idle.bulkheads.counting.bulkhead:  # as during a count
        with pytest.raises(BulkheadFull):
            idle.credentials.count_expiring_secrets()
        assert idle.writer.flush()
    assert used(rows) == {issued.secret_id}


def test_a_use_is_kept_if_its_client_secret_is_being_deleted(idle, issue, locked, rows):
    """The use is written while the transaction that deletes the client secret is still open."""
    [issued] = issue(1)
    use(idle, issued)
    with locked("DELETE FROM client_secrets") as deletion:
        assert not idle.writer.flush()
        deletion.commit()
        with locked("SELECT FROM credentials FOR UPDATE"):
            assert not idle.writer.flush()
    assert idle.writer.flush()
    assert idle.credentials.get(caller(), issued.secret_id).last_used_at is not None


def test_the_use_of_a_revoked_credential_is_forgotten(idle, issue, locked):
    [issued] = issue(1)
    use(idle, issued)
    with locked("DELETE FROM credentials") as revocation:
        assert not idle.writer.flush()
        revocation.commit()
    assert idle.writer.flush()
    assert idle.writer.seconds_since_use(issued.secret_id) is None


def test_a_locked_response_is_erased_as_soon_as_it_is_free(idle, locked, rows):
    """Whoever holds it may be about to delete its client secret: to wait could be a deadlock."""
    issued = idle.credentials.issue(caller(), name="x", idempotency_key="k" * 16)
    use(idle, issued)
    with locked("SELECT FROM sealed_answers FOR UPDATE"):
        assert not idle.writer.flush()
        assert used(rows) == {issued.secret_id}
    assert rows.count("sealed_answers") == 1
    assert idle.writer.flush()
    assert rows.count("sealed_answers") == 0


# Delete what has expired


def expire(rows, *credentials):
    rows.execute(
        "UPDATE client_secrets SET expires_at = now(), last_used_at = '2025-06-01Z' "
        "WHERE secret_id = ANY(%(ids)s)",
        ids=[each.secret_id for each in credentials],
    )


def test_expired_client_secrets_are_deleted_and_their_last_use_is_kept(idle, issue, rows):
    """So the database's clock can be set back without making one live again."""
    expired, live = issue(2)
    expire(rows, expired)
    assert not idle.writer.clean_up()
    assert rows("SELECT secret_id FROM client_secrets") == [{"secret_id": live.secret_id}]
    last_used_at = idle.credentials.get(caller(), expired.secret_id).last_used_at
    assert last_used_at.isoformat() == "2025-06-01T00:00:00+00:00"
    assert idle.credentials.get(caller(), live.secret_id).last_used_at is None


def test_an_open_process_deletes_expired_client_secrets(app_with, issue, rows):
    expire(rows, *issue(1))
    app_with()
    wait_until(lambda: rows.count("client_secrets") == 0)


@pytest.mark.parametrize("table", ["credentials", "client_secrets"])
def test_expired_client_secrets_that_are_locked_are_deleted_later(idle, issue, locked, rows, table):
    held, other = issue(2)
    expire(rows, held, other)
    query = f"SELECT FROM {table} WHERE secret_id = %(secret_id)s FOR UPDATE"
    with locked(query, secret_id=held.secret_id):
        idle.writer.clean_up()
        assert rows("SELECT secret_id FROM client_secrets") == [{"secret_id": held.secret_id}]
    idle.writer.clean_up()
    assert rows.count("client_secrets") == 0


def test_what_has_expired_is_deleted_in_parts(idle, issue, rows):
    [issued] = issue(1)
    rows.execute(
        "INSERT INTO client_secrets (secret_id, secret_hash, hint) "
        "SELECT secret_id, secret_hash, hint FROM client_secrets, generate_series(2, 2500)"
    )
    expire(rows, issued)
    assert [idle.writer.clean_up() for _ in range(3)] == [True, True, False]
    assert rows.count("client_secrets") == 0


@pytest.mark.parametrize("change", ["disable_all", "enable_all"])
def test_a_change_of_the_whole_unit_deletes_expired_client_secrets(idle, issue, rows, change):
    expired, _ = issue(2)
    if change == "enable_all":
        idle.credentials.disable_all(caller())
    expire(rows, expired)
    assert getattr(idle.credentials, change)(caller()) == 2
    assert rows.count("client_secrets") == 1
    assert idle.credentials.get(caller(), expired.secret_id).last_used_at is not None


# One clock


@pytest.fixture
def an_hour_ahead(settings, rows):
    """The services on a database whose clock is an hour ahead of ours."""
    rows.execute(
        """
        CREATE SCHEMA ahead;
        CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$;
        GRANT USAGE ON SCHEMA ahead TO credentials_service;
        """
    )
    options = quote("-c search_path=ahead,pg_catalog,public")
    url = f"{settings.database_url}&options={options}"
    services = create_app(replace(settings, database_url=url, max_secret_days=1)).services
    services.database.open(wait_seconds=10)
    yield services
    services.database.close()
    rows.execute("DROP SCHEMA ahead CASCADE")


def test_the_databases_clock_decides_whether_an_expiry_is_allowed(an_hour_ahead, rows):
    credentials = an_hour_ahead.credentials
    [(ours,)] = [each.values() for each in rows("SELECT date_trunc('second', now()) AS at")]
    for minutes in (-30, 30, 25 * 60 + 30):
        with pytest.raises(InvalidExpiry):
            credentials.issue(caller(), name="x", expires_at=ours + timedelta(minutes=minutes))
    issued = credentials.issue(
        caller(), name="x", expires_at=ours + timedelta(minutes=24 * 60 + 30)
    )
    with pytest.raises(InvalidExpiry):
        credentials.rotate(
            caller(),
            issued.secret_id,
            overlap_seconds=60,
            expires_at=ours + timedelta(minutes=30),
        )
    by_default = credentials.issue(caller(), name="x")
    [secret] = credentials.get(caller(), by_default.secret_id).secrets
    assert secret.expires_at > ours + timedelta(hours=24, minutes=30)


# Tell the others


def test_a_process_that_cannot_record_its_uses_prevents_conditional_revocations(
    app_with, idle, issue, rows
):
    """It can still verify: its writer waits for something, or the network lets it only read."""
    [issued] = issue(1)
    created_long_ago(rows)
    other = app_with().services
    wait_until(lambda: rows.count("writers") == 1)
    with other.bulkheads.background.bulkhead:
        use(other, issued)
        with pytest.raises(LastUseUnknown):
            idle.credentials.revoke(caller(), issued.secret_id, unused_for=UNUSED_FOR)
    with pytest.raises(CredentialInUse):
        idle.credentials.revoke(caller(), issued.secret_id, unused_for=UNUSED_FOR)


def test_callers_are_told_that_another_process_does_not_answer(app_with, issuer, issue, rows):
    [issued] = issue(1)
    created_long_ago(rows)
    member = client_of(app_with(), issuer.sign())
    path = f"/secrets/{issued.secret_id}"
    rows.execute("INSERT INTO writers (writer_id) VALUES (%(id)s)", id=uuid4())
    answer = member.delete(f"{path}?unused_for=60")
    assert (answer.status_code, answer.json["type"]) == (503, "/docs/errors#unavailable")
    assert answer.json["detail"] == "Another process has not recorded its latest uses yet"
    assert answer.headers["Retry-After"] == "1"
    assert member.delete(path).status_code == 204


def test_a_conditional_revocation_holds_no_slot_while_it_waits(
    app_with, issuer, issue, rows, monkeypatch
):
    monkeypatch.setattr("app.credentials.background._ANSWER_SECONDS", HANG_SECONDS)
    [issued] = issue(1)
    created_long_ago(rows)
    app = app_with()
    member = client_of(app, issuer.sign())
    management = app.services.bulkheads.management.bulkhead
    other = uuid4()
    rows.execute("INSERT INTO writers (writer_id) VALUES (%(id)s)", id=other)
    path = f"/secrets/{issued.secret_id}"
    with ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(member.delete, f"{path}?unused_for=60")
        wait_until(lambda: (management.waiting, management.in_use) == (1, 0))
        assert client_of(app, issuer.sign()).get(path).status_code == 200
        assert not revoking.done()
        rows.execute("DELETE FROM writers WHERE writer_id = %(id)s", id=other)
        assert revoking.result(HANG_SECONDS).status_code == 204
    assert (management.waiting, management.in_use) == (0, 0)


def test_a_conditional_revocation_of_an_unknown_credential_asks_nobody(app_with, issuer, rows):
    member = client_of(app_with(), issuer.sign())
    rows.execute("INSERT INTO writers (writer_id) VALUES (%(id)s)", id=uuid4())
    unknown = f"/secrets/{generate_secret_id()}?unused_for=60"
    assert member.delete(unknown).status_code == 404
    assert rows("SELECT asked FROM writers WHERE asked > 0") == []


def test_a_locked_use_prevents_a_conditional_revocation_until_it_is_recorded(
    app_with, idle, issue, locked, rows
):
    held, unused = issue(2)
    created_long_ago(rows)
    other = app_with().services
    wait_until(lambda: rows.count("writers") == 1)
    query = "SELECT FROM client_secrets WHERE secret_id = %(secret_id)s FOR UPDATE"
    with locked(query, secret_id=held.secret_id):
        use(other, held)
        with pytest.raises(LastUseUnknown):
            idle.credentials.revoke(caller(), held.secret_id, unused_for=UNUSED_FOR)
    with pytest.raises(CredentialInUse):
        idle.credentials.revoke(caller(), held.secret_id, unused_for=UNUSED_FOR)
    idle.credentials.revoke(caller(), unused.secret_id, unused_for=UNUSED_FOR)


def test_a_process_that_has_stopped_is_not_asked(app_with, idle, issue, rows, settings):
    [issued] = issue(1)
    created_long_ago(rows)
    other = create_app(settings).services
    other.open()
    wait_until(lambda: rows.count("writers") == 1)
    other.close()
    assert rows.count("writers") == 0
    idle.credentials.revoke(caller(), issued.secret_id, unused_for=UNUSED_FOR)


def test_a_process_that_stops_before_it_could_record_a_use_is_missed(
    settings, idle, issue, locked, rows
):
    [issued] = issue(1)
    created_long_ago(rows)
    other = create_app(settings).services
    other.open()
    wait_until(lambda: rows.count("writers") == 1)
    with locked("SELECT FROM client_secrets FOR UPDATE"):
        use(other, issued)
        other.close()
    with pytest.raises(LastUseUnknown):
        idle.credentials.revoke(caller(), issued.secret_id, unused_for=UNUSED_FOR)


def test_a_process_that_was_killed_is_forgotten_after_a_minute(idle, rows):
    living, killed = uuid4(), uuid4()
    with idle.database.connection(5) as connection:
        for each in (killed, living):
            repository.upsert_writer(connection, writer_id=each)
        rows.execute(
            "UPDATE writers SET seen_at = now() - interval '59 s' WHERE writer_id = %(id)s",
            id=killed,
        )
        repository.upsert_writer(connection, writer_id=living)
        assert rows.count("writers") == 2
        rows.execute(
            "UPDATE writers SET seen_at = now() - interval '61 s' WHERE writer_id = %(id)s",
            id=killed,
        )
        repository.upsert_writer(connection, writer_id=living)
    assert rows("SELECT writer_id FROM writers") == [{"writer_id": living}]


def test_after_an_outage_for_all_nobody_is_forgotten(idle, rows):
    first, second = uuid4(), uuid4()
    with idle.database.connection(5) as connection:
        for each in (first, second):
            repository.upsert_writer(connection, writer_id=each)
        rows.execute("UPDATE writers SET seen_at = now() - interval '1 hour'")
        repository.upsert_writer(connection, writer_id=first)
    assert rows.count("writers") == 2


def test_a_process_says_every_ten_seconds_that_it_lives(app_with, rows):
    app_with()
    wait_until(lambda: rows.count("writers") == 1)
    [before] = rows("SELECT seen_at FROM writers")
    rows.execute("UPDATE writers SET seen_at = seen_at - interval '11 s'")
    wait_until(lambda: rows("SELECT seen_at FROM writers")[0]["seen_at"] > before["seen_at"])
