"""A host is lost in the middle of a transaction: Postgres hears nothing more, not even an end."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import psutil
import pytest

from app.bulkheads import Bulkheads
from app.credentials.model import CredentialChanges
from app.credentials.reapply import Reapply, TrailEvent
from app.database.errors import DatabaseUnavailable
from app.database.migrations import migrate
from app.database.pool import Database
from app.domain import Domain
from drills.proxy import Proxy
from tests.conftest import client_of, database, environment, execute, running_app
from tests.database.test_migrations import SHIPPED, run, start
from tests.helpers import caller
from tests.postgres import postgres_directory, running_postgres
from tests.running_server import running_server, wait_until

pytestmark = pytest.mark.long

ENDED = "terminating connection due to idle-in-transaction timeout"


@pytest.fixture(scope="module")
def postgres():
    with postgres_directory() as directory, running_postgres(directory / "data") as postgres:
        migrate(postgres.uri)
        yield postgres


@pytest.fixture
def proxy(postgres):
    with running_proxy(postgres) as proxy:
        yield proxy


@contextmanager
def running_proxy(postgres):
    proxy = Proxy(postgres.socket_directory / ".s.PGSQL.5432")
    try:
        yield proxy
    finally:
        proxy.close()


def through(proxy, name="postgres"):
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"


@contextmanager
def running_domain(settings, url):
    pool = Database(url, connections=1)
    pool.open(wait_seconds=20)
    try:
        yield Domain.from_settings(settings, pool, Bulkheads.for_verifiers(1))
    finally:
        pool.close()


def reapply(domain, by, secret_id):
    now = datetime.now(UTC)
    event = TrailEvent(secret_id, "revoked", "alice", now, "request", {})
    Reapply(domain.credentials.database, 2.5, lambda _: by, read_seconds=2.5).apply(
        [event], since=now
    )


CHANGES = {
    "issue": lambda domain, by, _: domain.credentials.issue(by, name="y"),
    "update": lambda domain, by, secret_id: domain.credentials.update(
        by, secret_id, CredentialChanges(enabled=False)
    ),
    "rotate": lambda domain, by, secret_id: domain.credentials.rotate(
        by, secret_id, overlap_seconds=0
    ),
    "revoke": lambda domain, by, secret_id: domain.credentials.revoke(by, secret_id),
    "disable_all": lambda domain, by, _: domain.credentials.disable_all(by),
    "reapply": reapply,
}


def works(call, *arguments):
    try:
        call(*arguments)
    except DatabaseUnavailable:
        return False
    return True


def test_a_change_of_a_lost_host_delays_others_only_for_seconds(postgres, settings):
    """It kept its locks, and every unit's trail stood still, for two hours."""
    ended = count_ended(postgres)
    callers = {verb: caller(unit_id=f"unit_{verb}") for verb in CHANGES}
    bystander = caller(unit_id="unit_bystander")
    with running_domain(settings, postgres.uri) as other, ExitStack() as stack:
        service = other.credentials
        issued = {verb: service.issue(by, name="x").secret_id for verb, by in callers.items()}
        proxies = {verb: stack.enter_context(running_proxy(postgres)) for verb in CHANGES}
        lost = {
            verb: stack.enter_context(running_domain(settings, through(proxy)))
            for verb, proxy in proxies.items()
        }
        pool = stack.enter_context(ThreadPoolExecutor(len(CHANGES)))
        holes = stack.enter_context(ExitStack())
        for proxy in proxies.values():
            holes.enter_context(proxy.black_hole(after=b"INSERT INTO credential_events"))
        changes = [
            pool.submit(works, change, lost[verb], callers[verb], issued[verb])
            for verb, change in CHANGES.items()
        ]
        wait_until(lambda: all(proxy.is_silent for proxy in proxies.values()))

        issued_later = service.issue(bystander, name="z").secret_id

        def followed():
            page = service.unit_events(bystander, order="asc")
            return [each.secret_id for each in page.items]

        wait_until(lambda: followed() == [issued_later])
        assert works(lambda: service.issue(callers["issue"], name="z"))
        for verb, by in callers.items():
            assert works(service.revoke, by, issued[verb])
        assert count_ended(postgres) == ended + len(CHANGES)
        holes.close()
        assert not any(change.result() for change in changes)


def count_ended(postgres):
    return (postgres.data / "log").read_text().count(ENDED)


def test_a_worker_that_was_frozen_in_a_change_reports_503(postgres, proxy, settings, issuer):
    """Meanwhile another instance has made its change."""
    token = {"Authorization": f"Bearer {issuer.sign()}"}
    with (
        running_app(settings, database_url=postgres.uri) as other,
        running_server(environment(settings, database_url=through(proxy))) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        member = client_of(other, issuer.sign())
        path = f"/secrets/{member.post('/secrets', json={'name': 'x'}).json['secret_id']}"
        wait_until(lambda: server.request("GET", path, **token).status == 200)
        with proxy.black_hole(after=b"INSERT INTO credential_events"):
            changing = pool.submit(server.request, "POST", f"{path}/rotate", **token)
            wait_until(lambda: proxy.is_silent)
            with frozen_workers(server):
                wait_until(lambda: member.delete(path).status_code == 204)
        assert changing.result().status == 503
        wait_until(lambda: server.request("GET", path, **token).status == 404)
        assert not [line for line in server.log() if line["level"] == "ERROR"]


@contextmanager
def frozen_workers(server):
    workers = psutil.Process(server.process.pid).children()
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


@pytest.mark.parametrize("last_words", [b"CREATE TABLE credentials", b"COMMIT"])
def test_a_migration_of_a_lost_host_is_finished_by_another(postgres, proxy, last_words):
    """It held its locks in a transaction, or the advisory lock between two transactions."""
    name = f"migrated_{uuid4().hex}"
    execute(postgres.uri, f"CREATE DATABASE {name}")
    with proxy.black_hole(after=last_words):
        lost = start(through(proxy, name))
        wait_until(lambda: proxy.is_silent)
        lost.kill()
        lost.communicate()
        finished = run(database(postgres.uri, name), timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert set(finished.stdout.splitlines()[:-1]) <= {f"applied {name}" for name in SHIPPED}
