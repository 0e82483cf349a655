"""A synchronous standby is cut off: nothing that only the primary has is acknowledged."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from app.bulkheads import Bulkheads
from app.credentials.errors import ClientSecretNotFound, CredentialNotFound
from app.credentials.model import CredentialChanges, ReplayedCredential
from app.credentials.reapply import Reapply, TrailEvent
from app.database.connection import BoundedConnection
from app.database.errors import DatabaseUnavailable
from app.database.pool import Database
from app.domain import Domain
from tests.conftest import client_of, execute, running_app
from tests.helpers import basic, caller
from tests.pair import Pair, value
from tests.postgres import postgres_directory
from tests.running_server import wait_until

pytestmark = pytest.mark.long

KEY = "0123456789abcdef"


@pytest.fixture
def pair():
    with postgres_directory() as directory:
        pair = Pair(directory)
        pair.make_synchronous()
        yield pair
        pair.stop()


def reapply(service, by, secret_id):
    event = TrailEvent(secret_id, "revoked", "alice", datetime.now(UTC), "request", {})
    return (
        Reapply(service.database, 2.5, lambda _: by, read_seconds=2.5)
        .apply([event], since=event.at)
        .revoked
    )


CHANGES = {
    "issue": lambda service, by, _: service.issue(by, name="y", idempotency_key=KEY),
    "rotate": lambda service, by, secret_id: service.rotate(
        by, secret_id, overlap_seconds=0, idempotency_key=KEY
    ),
    "update": lambda service, by, secret_id: service.update(
        by, secret_id, CredentialChanges(enabled=False)
    ),
    "end_secret": lambda service, by, secret_id: service.end_secret(
        by, secret_id, service.get(by, secret_id).secrets[-1].hint
    ),
    "revoke": lambda service, by, secret_id: service.revoke(by, secret_id),
    "disable_all": lambda service, by, _: service.disable_all(by),
    "reapply": reapply,
}

READS = {
    "get": lambda service, by, secret_id: service.get(by, secret_id),
    "get_revoked": lambda service, by, _: service.get(by, "sec_revoked"),
    "list": lambda service, by, _: service.list(by),
    "events": lambda service, by, secret_id: service.events(by, secret_id),
    "unit_events": lambda service, by, _: service.unit_events(by, order="asc"),
}


@contextmanager
def running_service(settings, url, *, connections):
    database = Database(url, connections=connections)
    database.open(wait_seconds=20)
    try:
        yield Domain.from_settings(settings, database, Bulkheads.for_verifiers(1)).credentials
    finally:
        database.close()


@pytest.fixture
def service(pair, settings):
    with running_service(settings, pair.first, connections=len(CHANGES | READS)) as service:
        yield service


def test_a_change_that_no_standby_has_is_not_acknowledged_when_it_is_repeated(pair, service):
    """Nor can it be read: whoever saw 503 could take that for a confirmation."""
    calls = CHANGES | READS
    callers = {name: caller(f"unit_{name}") for name in calls}
    issued = {name: service.issue(by, name="x").secret_id for name, by in callers.items()}
    service.rotate(callers["end_secret"], issued["end_secret"], overlap_seconds=60)

    def call(name):
        try:
            return calls[name](service, callers[name], issued[name])
        except (DatabaseUnavailable, CredentialNotFound, ClientSecretNotFound) as error:
            return error

    def call_all(names):
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(call, names), strict=True))

    def is_available():
        return not isinstance(call("get"), DatabaseUnavailable)

    pair.stop_second()
    with pair.asynchronous():  # what is stored now is what a change leaves whose wait ended
        wait_until(is_available)
        stored = {name: call(name) for name in ("issue", "rotate")}
    wait_until(lambda: not is_available())
    for names in (CHANGES, calls, calls):
        for name, result in call_all(list(names)).items():
            assert isinstance(result, DatabaseUnavailable), name
    pair.start_second()
    results = {}

    def are_acknowledged():
        results.update(call_all(list(calls)))
        return not any(isinstance(each, DatabaseUnavailable) for each in results.values())

    wait_until(are_acknowledged)
    for name, response in stored.items():
        assert isinstance(results[name], ReplayedCredential)
        assert results[name].client_secret == response.client_secret
    assert isinstance(results["revoke"], CredentialNotFound)
    assert results["disable_all"] == 0
    assert call("reapply") == 0  # it reads first, so it changes something only now, and once


def test_nothing_that_was_acknowledged_is_lost_with_the_primary(pair, settings, issuer):
    """A revocation got 503, and then 404. After the failover, its credential verified again."""
    key = {"Idempotency-Key": KEY}
    with running_app(settings, database_url=pair.url) as app:
        member = client_of(app, issuer.sign())

        def issue(**headers):
            return member.post("/secrets", json={"name": "x"}, headers=headers)

        def verify(issued):
            headers = basic(issued["client_id"], issued["client_secret"])
            return member.get("/verify", headers=headers).status_code

        revoked, kept = issue().json, issue().json
        path = f"/secrets/{revoked['secret_id']}"
        pair.stop_second()
        assert [member.delete(path).status_code for _ in range(3)] == [503] * 3
        assert [issue(**key).status_code for _ in range(2)] == [503] * 2
        assert member.get(path).status_code == 503
        assert verify(kept) == 200
        pair.stop_first()
        pair.start_second()
        execute(pair.second, "SELECT pg_promote()")
        wait_until(lambda: verify(kept) == 200)
        wait_until(lambda: member.delete(path).status_code == 204)
        assert verify(revoked) == 401
        assert member.delete(path).status_code == 404
        issued = issue(**key)
        assert issued.status_code == 200
        assert issue(**key).data == issued.data
        assert verify(issued.json) == 200


def test_only_a_primary_with_a_synchronous_standby_writes_for_a_read(pair):
    """A read without one costs no WAL, and a standby cannot write at all."""

    def writes(uri):
        with BoundedConnection.connect(uri) as connection, connection.transaction():
            connection.await_standby()
            query = "SELECT pg_current_xact_id_if_assigned()"
            return connection.execute(query).fetchone() != (None,)

    def configure(uri, change):
        execute(uri, f"ALTER SYSTEM {change}")
        execute(uri, "SELECT pg_reload_conf()")

    assert writes(pair.first)
    configure(pair.first, "RESET synchronous_standby_names")
    wait_until(lambda: not writes(pair.first))
    configure(pair.second, "SET synchronous_standby_names = '*'")
    wait_until(lambda: value(pair.second, "SHOW synchronous_standby_names") == "*")
    assert not writes(pair.second)
