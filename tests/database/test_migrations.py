import os
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest

from app.database.errors import DatabaseUnavailable
from app.database.migrations import MigrationFailed, migrate
from tests.conftest import new_postgres
from tests.running_server import ROOT, clean_environment, wait_until

SHIPPED = sorted(path.stem for path in (ROOT / "migrations_sql").glob("*.sql"))
CREDENTIALS = Path(sys.executable).parent / "credentials"


def run(database_url, *, timeout=None, **settings):
    return subprocess.run(
        [CREDENTIALS, "migrate"],
        env=clean_environment() | {"DATABASE_URL": database_url} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def start(database_url):
    return subprocess.Popen(
        [CREDENTIALS, "migrate"],
        env=clean_environment() | {"DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_migration_explains_itself_in_its_first_line():
    for path in (ROOT / "migrations_sql").iterdir():
        assert path.read_text().startswith("-- "), path.name


def test_no_migration_waits_for_a_lock_longer_than_the_others():
    """A verification would queue behind it for too long (CONTRIBUTING.md)."""
    for path in (ROOT / "migrations_sql").iterdir():
        assert "lock_timeout" not in path.read_text(), path.name


def test_an_empty_database_is_migrated(empty_database):
    assert migrate(empty_database) == SHIPPED
    assert migrate(empty_database) == []


def test_the_command_prints_what_it_applied(empty_database):
    first, second = run(empty_database), run(empty_database)
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.splitlines() == [
        *(f"applied {name}" for name in SHIPPED),
        "The database is up to date.",
    ]
    assert second.stdout == "The database is up to date.\n"


def test_several_hosts_can_migrate_at_the_same_time(empty_database):
    """The first one is held up halfway until the others wait for it."""
    with (
        psycopg.connect(empty_database) as blocker,
        psycopg.connect(empty_database, autocommit=True) as observer,
    ):
        blocker.execute("CREATE TABLE credential_events ()")
        hosts = [start(empty_database) for _ in range(4)]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE 'SELECT pg_try_advisory_lock%' AND state = 'idle'"
        )
        wait_until(lambda: observer.execute(waiting).fetchone() == (3,))
        blocker.rollback()
        outputs = [host.communicate() for host in hosts]
    assert [host.returncode for host in hosts] == [0] * 4, outputs
    applied = [line for out, _ in outputs for line in out.splitlines() if "applied" in line]
    assert applied == [f"applied {name}" for name in SHIPPED]


def test_a_migration_that_is_killed_leaves_no_lock_and_no_change(empty_database):
    with psycopg.connect(empty_database) as blocker:
        # The table is created but not committed, so the migration waits halfway.
        blocker.execute("CREATE TABLE credential_events ()")
        killed = start(empty_database)
        with psycopg.connect(empty_database, autocommit=True) as observer:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE '%credential_events%'"
            )
            wait_until(lambda: observer.execute(waiting).fetchone() == (1,))
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate()
            # although its statement still waits for the lock
            wait_until(lambda: observer.execute(waiting).fetchone() == (0,))
            blocker.rollback()
    assert run(empty_database).returncode == 0
    assert migrate(empty_database) == []


def test_a_failed_migration_leaves_no_change_and_says_why(empty_database):
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE credential_events ()")
        failed = run(empty_database)
        assert failed.returncode == 1
        assert failed.stderr == (
            'Error: The database cannot be migrated: relation "credential_events" already exists\n'
        )
        assert connection.execute("SELECT to_regclass('credentials')").fetchone() == (None,)
        connection.execute("DROP TABLE credential_events")
    assert migrate(empty_database) == SHIPPED


def test_a_lock_that_stays_taken_is_reported(empty_database, tmp_path):
    for name in SHIPPED[:2]:
        shutil.copy(ROOT / "migrations_sql" / f"{name}.sql", tmp_path)
    migrate(empty_database, directory=tmp_path)
    with psycopg.connect(empty_database) as backup:
        backup.execute("LOCK TABLE credentials IN ACCESS SHARE MODE")
        with pytest.raises(MigrationFailed, match="a lock was not free"):
            migrate(empty_database, patience_seconds=0)
        backup.rollback()
    assert migrate(empty_database) == SHIPPED[2:]


def test_an_index_that_an_interrupted_run_left_unfinished_is_made_again(empty_database, tmp_path):
    """CREATE INDEX CONCURRENTLY waits for the snapshots of others, and is then ended."""
    concurrent = "0007.find-events-of-a-long-trail"
    for name in SHIPPED[: SHIPPED.index(concurrent)]:
        shutil.copy(ROOT / "migrations_sql" / f"{name}.sql", tmp_path)
    migrate(empty_database, directory=tmp_path)
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    with (
        psycopg.connect(empty_database) as reader,
        psycopg.connect(empty_database, autocommit=True) as observer,
    ):
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM credential_events")
        interrupted = start(empty_database)
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() "
            "AND wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        wait_until(lambda: observer.execute(end).fetchone() == (True,))
        interrupted.communicate()
        reader.rollback()
        assert observer.execute(invalid).fetchone() != (0,)
        assert migrate(empty_database)[0] == concurrent
        assert observer.execute(invalid).fetchone() == (0,)


def test_a_migration_is_known_by_its_name_alone(empty_database):
    """So an edited file is not applied again where it is applied already."""
    migrate(empty_database)
    with psycopg.connect(empty_database) as connection:
        marks = connection.execute("SELECT migration_id, migration_hash FROM _yoyo_migration")
        assert dict(marks.fetchall()) == {
            name: sha256(name.encode()).hexdigest() for name in SHIPPED
        }


def test_an_unreachable_database_is_reported_in_one_line():
    failed = run("postgresql://app:s3cret@127.0.0.1:1/credentials")
    assert failed.returncode == 4
    assert failed.stderr.startswith("Error: ")
    assert "s3cret" not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unreachable_database_is_distinguished_from_one_that_refuses():
    with pytest.raises(DatabaseUnavailable) as unavailable:
        migrate("postgresql://app@127.0.0.1:1/credentials")
    assert "refused" in unavailable.value.reason


def test_without_its_setting_the_command_exits_with_status_2():
    failed = run("")
    assert failed.returncode == 2
    assert "DATABASE_URL" in failed.stderr


def test_a_uri_may_name_several_hosts(empty_database):
    socket = psycopg.conninfo.conninfo_to_dict(empty_database)
    several = f"postgresql://postgres@/{socket['dbname']}?host=/nonexistent,{socket['host']}"
    assert migrate(several) == SHIPPED


def test_a_read_only_server_is_skipped(empty_database):
    primary = psycopg.conninfo.conninfo_to_dict(empty_database)
    with new_postgres(default_transaction_read_only="on") as standby:
        execute_writing = psycopg.connect(
            standby, autocommit=True, options="-c default_transaction_read_only=off"
        )
        with execute_writing as connection:
            connection.execute(f"CREATE DATABASE {primary['dbname']}")
        hosts = f"{psycopg.conninfo.conninfo_to_dict(standby)['host']},{primary['host']}"
        several = f"postgresql://postgres@/{primary['dbname']}?host={hosts}"
        assert migrate(several) == SHIPPED


def test_a_uri_that_libpq_does_not_understand_fails():
    with pytest.raises(MigrationFailed, match=r'^invalid URI query parameter: "unknown"$'):
        migrate("postgresql://db/credentials?unknown=1")
