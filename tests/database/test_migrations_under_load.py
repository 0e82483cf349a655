"""Migrations of a database with a million rows, while senders are verified.

The statement of a verification is that of the version that serves at the time: before 0011, a
credential could not be restricted.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event

import psycopg
import pytest

from app.bulkheads import Bulkheads
from app.credentials.generator import generate_client_secret
from app.database.connection import PreparedSelect
from app.database.migrations import migrate
from app.database.pool import Database
from tests.big_database import fill
from tests.conftest import environment, new_postgres
from tests.helpers import DIGEST_KEY, basic, hasher_with
from tests.running_server import ROOT, running_server, wait_until

pytestmark = pytest.mark.long

FILES = sorted((ROOT / "migrations_sql").glob("*.sql"))
BEFORE_TODAYS_STATEMENT = [each.name[5:] for each in FILES].index("restrict-credentials.sql")
THREADS = 2

CLIENT_ID = "lv_ci_" + "x" * 20
FIRST_STATEMENT = PreparedSelect("""
    SELECT client_secret_id, secret_hash, digest, unit_id, client_id, name
    FROM credentials JOIN client_secrets USING (secret_id)
    WHERE client_id = $1
""")


def insert_credential(connection):
    """Insert a credential at the first schema, and return its client secret."""
    client_secret = generate_client_secret()
    secret = hasher_with(DIGEST_KEY).hash(client_secret)
    connection.execute(
        "INSERT INTO credentials (secret_id, unit_id, client_id, name) "
        "VALUES ('sec_' || repeat('x', 20), 'unit_demo', %s, 'x')",
        [CLIENT_ID],
    )
    connection.execute(
        "INSERT INTO client_secrets (secret_id, secret_hash, digest, hint) "
        "VALUES ('sec_' || repeat('x', 20), %s, %s, %s)",
        [secret.secret_hash, secret.digest, secret.hint],
    )
    return client_secret


class Verifications:
    """Verifies in several threads, again and again. `failures` are its errors and statuses."""

    def __init__(self, verify: Callable[[], object]) -> None:
        self.count = 0
        self.failures: list[object] = []
        self._verify = verify
        self._stopping = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(THREADS) as threads:
            running = [threads.submit(self._run) for _ in range(THREADS)]
            try:
                yield
            finally:
                self._stopping.set()
                for each in running:
                    each.result()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                result = self._verify()
            except Exception as error:  # noqa: BLE001  none may fail
                result = error
            self.count += 1
            if result != 200:
                self.failures.append(result)


@pytest.fixture
def directory(tmp_path):
    """A directory of migrations, which is empty at first."""
    return tmp_path


@contextmanager
def verifications_at_the_first_schema(uri):
    bulkheads = Bulkheads.for_verifiers(THREADS)
    database = Database(uri, connections=bulkheads.connections)
    database.open(wait_seconds=20)

    def verify():
        found = database.select(FIRST_STATEMENT, CLIENT_ID, seconds=bulkheads.verification.seconds)
        return 200 if len(found) == 1 else found

    verifications = Verifications(verify)
    with closing(database), verifications.running():
        yield verifications


@contextmanager
def verifications_by_the_service(uri, settings, client_secret):
    with running_server(
        environment(settings, database_url=uri, threads=THREADS, web_concurrency=1)
    ) as server:
        headers = basic(CLIENT_ID, client_secret)

        def verify():
            return server.request("GET", "/verify", **headers).status

        wait_until(lambda: verify() == 200)
        verifications = Verifications(verify)
        with verifications.running():
            yield verifications


def test_no_verification_fails_while_a_big_database_is_migrated(directory, settings):
    with new_postgres(fsync="off", autovacuum="off", max_wal_size="4GB") as uri:
        shutil.copy(FILES[0], directory)
        migrate(uri, directory=directory)
        with psycopg.connect(uri, autocommit=True) as connection:
            fill(connection)
            client_secret = insert_credential(connection)
        for number, file in enumerate(FILES[1:], 1):
            if number <= BEFORE_TODAYS_STATEMENT:
                serving = verifications_at_the_first_schema(uri)
            else:
                serving = verifications_by_the_service(uri, settings, client_secret)
            shutil.copy(file, directory)
            with serving as verifications:
                wait_until(lambda each=verifications: each.count > THREADS)
                assert migrate(uri, directory=directory) == [file.stem]
                enough = verifications.count + THREADS
                wait_until(lambda each=verifications, enough=enough: each.count > enough)
            assert verifications.failures == [], file.name


def test_no_verification_fails_while_a_migration_waits_for_a_backup(empty_database, directory):
    """pg_dump holds a lock of each table until it ends, and everybody queues behind an ALTER."""
    for file in FILES[:2]:
        shutil.copy(file, directory)
    migrate(empty_database, directory=directory)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        insert_credential(connection)
        waiting = (
            "SELECT xact_start FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock' AND query LIKE '%ALTER TABLE%'"
        )
        attempts = set()

        def has_tried_several_times():
            attempts.update(connection.execute(waiting).fetchall())
            return len(attempts) >= 3

        shutil.copy(FILES[2], directory)
        with (
            psycopg.connect(empty_database) as backup,
            verifications_at_the_first_schema(empty_database) as verifications,
            ThreadPoolExecutor(1) as threads,
        ):
            backup.execute("LOCK TABLE credentials, client_secrets IN ACCESS SHARE MODE")
            migrating = threads.submit(migrate, empty_database, directory=directory)
            wait_until(has_tried_several_times)
            backup.rollback()
            assert migrating.result() == [FILES[2].stem]
        assert verifications.failures == []
        assert verifications.count > 0
