"""The service on databases whose own settings are not the usual ones."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from app.bulkheads import Bulkhead, Bulkheads, WorkClass
from app.credentials import repository
from app.credentials.errors import CredentialLimitReached
from app.database.migrations import MigrationFailed, migrate
from app.database.pool import Database
from app.domain import Domain
from tests.conftest import TEMPLATE, client_of, database, environment, execute
from tests.helpers import basic, caller, require, service_role
from tests.postgres import postgres_directory
from tests.running_server import HANG_SECONDS, clean_environment, free_port, wait_until

VALUES = {
    "DateStyle": ["SQL, DMY", "German", "Postgres, MDY"],
    "default_transaction_isolation": ["repeatable read", "serializable"],
    "default_transaction_deferrable": ["on"],
    "standard_conforming_strings": ["off"],
    "escape_string_warning": ["on", "off"],
    "backslash_quote": ["off"],
    "IntervalStyle": ["iso_8601", "sql_standard"],
    "TimeZone": ["Australia/Lord_Howe", "<+0545>-05:45"],
    "bytea_output": ["escape"],
    "extra_float_digits": ["-15"],
    "client_encoding": ["LATIN1", "SQL_ASCII"],
    "client_min_messages": ["debug5", "log"],
    "row_security": ["off"],
    "jit_above_cost": ["0"],
    "enable_seqscan": ["off", "on"],
    "enable_indexscan": ["on", "off"],
    "plan_cache_mode": ["force_generic_plan", "force_custom_plan"],
    "transform_null_equals": ["on"],
    "array_nulls": ["off"],
    "synchronous_commit": ["off", "local", "remote_apply"],
    "search_path": ["public"],
}
LIMITS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)  # fmt: skip
POOLED = [{name: each[number % len(each)] for name, each in VALUES.items()} for number in range(3)]
# behind a pooler, the limits of time come from the role (deploy/postgres/service-role.sql)
COMBINATIONS = [each | dict.fromkeys(LIMITS, "1ms") for each in POOLED]
NUMBERED = {"ids": ["first", "second", "third"]}


@contextmanager
def cloned(postgres_uri, *clauses, template=TEMPLATE):
    """Make a database, and drop it at the end."""
    name = f"own_{uuid4().hex}"
    execute(postgres_uri, f"CREATE DATABASE {name} TEMPLATE {template} {' '.join(clauses)}")
    try:
        yield database(postgres_uri, name)
    finally:
        execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_database(postgres_uri):
    """A migrated database of this test."""
    with cloned(postgres_uri) as uri:
        yield uri


def set_defaults(uri, *, role=None, **values):
    """Set parameters for all new sessions in the database, or of the role there."""
    parameters = conninfo_to_dict(uri)
    whose = f"DATABASE {parameters['dbname']}"
    if role is not None:
        whose = f"ROLE {role} IN {whose}"
    for name, value in values.items():
        statement = sql.SQL(f"ALTER {whose} SET {name} = {{}}").format(value)
        execute(database(uri, "postgres"), statement.as_string())


@contextmanager
def directly(uri):
    """Connect without the limits that the database may set."""
    unlimited = " ".join(f"-c {name}=0" for name in LIMITS)
    with psycopg.connect(uri, options=unlimited, client_encoding="utf8") as connection:
        yield connection


def as_service(uri):
    return uri.replace("//postgres@", "//credentials_service@")


def live(app, issuer):
    """Use each statement of a credential's life once."""
    client = client_of(app, issuer.sign())
    assert app.test_client().get("/readyz").status_code == 200
    issued = client.post(
        "/secrets",
        json={"name": "École \\ 日本", "expires_at": "2030-01-31T00:00:00Z"},
        headers={"Idempotency-Key": "0123456789abcdef"},
    )
    assert issued.status_code == 200, issued.text
    path = f"/secrets/{issued.json['secret_id']}"
    assert client.get("/secrets?name=école+\\").json[0]["created_at"].endswith("Z")
    detailed = client.get(path).json
    assert detailed["secrets"][0]["expires_at"] == "2030-01-31T00:00:00Z"
    change = {"trust_upstream_consent": True, "name": "new"}
    assert client.put(path, json=change).status_code == 204
    rotated = client.post(f"{path}/rotate", json={"overlap_seconds": 60})
    assert rotated.status_code == 200
    pair = basic(issued.json["client_id"], rotated.json["client_secret"])
    assert app.test_client().get("/verify", headers=pair).status_code == 200
    assert app.services.writer.flush()
    app.services.writer.clean_up()
    assert client.get(path).json["last_used_at"].endswith("Z")
    for query in ("", "?order=asc", "?since=2026-01-01T00:00:00Z&until=2040-01-01T00:00:00Z"):
        assert client.get(f"/secrets/events{query}").status_code == 200
    assert app.services.credentials.disable_all(caller()) == 1
    assert app.services.credentials.enable_all(caller()) == 1
    assert client.delete(f"{path}?unused_for=60").status_code == 409
    assert client.delete(path).status_code == 204
    assert len(client.get(f"{path}/events").json) == 7


@pytest.mark.parametrize("role", [None, "credentials_service"])
@pytest.mark.parametrize("values", COMBINATIONS, **NUMBERED)
def test_the_service_works_whatever_the_database_or_its_role_sets(
    app_with, issuer, own_database, values, role
):
    set_defaults(own_database, role=role, **values)
    live(app_with(database_url=as_service(own_database)), issuer)


@pytest.mark.parametrize("style", ["German", "SQL, DMY"])
def test_the_service_works_whatever_its_environment_sets(
    app_with, issuer, own_database, monkeypatch, style
):
    monkeypatch.setenv("PGDATESTYLE", style)
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_isolation=serializable")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    live(app_with(database_url=as_service(own_database)), issuer)


@pytest.mark.parametrize("values", COMBINATIONS, **NUMBERED)
def test_a_migration_works_whatever_the_database_sets(empty_database, values):
    set_defaults(empty_database, **values)
    assert migrate(empty_database)
    assert migrate(empty_database) == []
    with directly(empty_database) as connection:
        connection.execute("SET standard_conforming_strings = on")
        [(check,)] = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conname = 'client_secrets_secret_hash_format'"
        )
    assert r"'^\$2b\$1[0-6]\$" in check


def test_a_migration_has_no_limit_of_time(empty_database, tmp_path):
    set_defaults(empty_database, statement_timeout="1min", transaction_timeout="1min")
    (tmp_path / "0001.limits.sql").write_text(
        "CREATE TABLE limits AS SELECT current_setting('statement_timeout') AS statement, "
        "current_setting('transaction_timeout') AS transaction"
    )
    migrate(empty_database, directory=tmp_path)
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT * FROM limits").fetchall() == [("0", "0")]


def test_a_long_change_has_no_limit_but_its_own(own_database):
    set_defaults(own_database, transaction_timeout="2s")
    database = Database(own_database, connections=1)
    database.open(wait_seconds=60)
    with database.transaction(300) as connection:
        [limits] = connection.execute(
            "SELECT current_setting('statement_timeout'), current_setting('transaction_timeout')"
        )
    database.close()
    assert limits == ("299s", "0")


# Isolation


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"

INSERT = """
    INSERT INTO credentials (secret_id, unit_id, client_id, name)
    VALUES ('sec_' || lpad(%(id)s, 20, '0'), 'unit_demo', 'lv_ci_' || lpad(%(id)s, 20, '0'), 'x')
"""


@contextmanager
def patient_service(uri, settings):
    """Run the domain, so that everybody may wait for a lock on a slow machine."""
    bulkheads = replace(
        Bulkheads.for_verifiers(1),
        hashing=Bulkhead(1, max_wait=HANG_SECONDS, max_waiting=10),
        management=WorkClass(Bulkhead(10, max_wait=0, max_waiting=0), seconds=HANG_SECONDS),
    )
    limits = [f"-c {name}={HANG_SECONDS}s" for name in ("lock_timeout", "statement_timeout")]
    database = Database(f"{uri}&options={quote(' '.join(limits))}", connections=3)
    database.open(wait_seconds=HANG_SECONDS)
    yield Domain.from_settings(settings, database, bulkheads).credentials
    database.close()


def await_waiting(holder, sessions):
    name = holder.info.dbname
    wait_until(lambda: holder.execute(WAITING, [name]).fetchone() == (sessions,))


ISOLATIONS = ["repeatable read", "serializable"]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_issues_at_once_do_not_exceed_the_limit(own_database, settings, isolation):
    set_defaults(own_database, default_transaction_isolation=isolation)
    settings = replace(settings, max_credentials_per_unit=1)

    def issue(name):
        try:
            return service.issue(caller(), name=name).name
        except CredentialLimitReached as error:
            return type(error)

    with (
        patient_service(as_service(own_database), settings) as service,
        psycopg.connect(own_database) as holder,
        ThreadPoolExecutor(2) as pool,
    ):
        repository.lock_quota(holder, unit_id="unit_demo")
        calls = [pool.submit(issue, name) for name in ("a", "b")]
        await_waiting(holder, 2)
        holder.commit()
        outcomes = {call.result(HANG_SECONDS) for call in calls}
        assert service.count(caller()) == 1
    assert CredentialLimitReached in outcomes


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_change_to_a_unit_misses_no_credential(own_database, settings, isolation):
    set_defaults(own_database, default_transaction_isolation=isolation)
    with (
        patient_service(as_service(own_database), settings) as service,
        psycopg.connect(own_database) as issuing,
        ThreadPoolExecutor(1) as pool,
    ):
        repository.lock_unit_shared(issuing, unit_id="unit_demo")
        disabling = pool.submit(service.disable_all, caller())
        await_waiting(issuing, 1)
        issuing.execute(INSERT, {"id": "1"})
        issuing.commit()
        assert disabling.result(HANG_SECONDS) == 1


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_each_statement_of_a_transaction_sees_what_is_committed(own_database, isolation):
    set_defaults(own_database, default_transaction_isolation=isolation)
    sees_what_is_committed(as_service(own_database), own_database)


def sees_what_is_committed(uri, direct_uri):
    database = Database(uri, connections=1)
    database.open(wait_seconds=HANG_SECONDS)
    with database.transaction(HANG_SECONDS) as connection, directly(direct_uri) as other:
        assert repository.count_credentials(connection, unit_id="unit_demo", enabled=None) == 0
        other.execute(INSERT, {"id": "1"})
        other.commit()
        assert repository.count_credentials(connection, unit_id="unit_demo", enabled=None) == 1
        other.execute("DELETE FROM credentials")
    database.close()


# Durability


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"),
        ("remote_apply", "remote_apply"),
    ],
)  # fmt: skip
def test_nothing_is_acknowledged_before_it_is_on_disk(own_database, default, expected):
    set_defaults(own_database, synchronous_commit=default)
    database = Database(own_database, connections=1)
    database.open(wait_seconds=60)
    with database.transaction(60) as connection:
        [(setting,)] = connection.execute("SELECT current_setting('synchronous_commit')")
    database.close()
    assert setting == expected


# Encoding and case


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_with_another_encoding_is_refused(app_with, postgres_uri, settings, encoding):
    clauses = (f"ENCODING '{encoding}' LOCALE 'C'",)
    with cloned(postgres_uri, *clauses, template="template0") as uri:
        message = f"The encoding of the database is {encoding}, and must be UTF8"
        with pytest.raises(MigrationFailed, match=message):
            migrate(uri)
        with psycopg.connect(uri) as connection:
            assert connection.execute("SELECT to_regclass('credentials')").fetchone() == (None,)
        answer = app_with(database_url=uri).test_client().get("/readyz")
        assert (answer.status_code, answer.json["type"]) == (
            503,
            "/docs/errors#unsuitable-database",
        )
        assert answer.json["detail"].startswith(message)
        command = [Path(sys.executable).with_name("credentials"), "list", "--unit", "u"]
        variables = clean_environment() | environment(settings, database_url=uri)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {message}")


LOCALES = {
    "C": "LOCALE_PROVIDER libc LOCALE 'C'",
    "C.UTF-8": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
    "builtin C": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LOCALE 'C'",
}
NAMES = [
    "École", "ΣΊΣΥΦΟΣ", "Жук", "İstanbul", "STRAẞE", "50% off_deal\\x", "a.b*c[d]{e}(f)|g^h$",
    "ǅungla", "Ωhm", "日本", "(?i)x", "***:x", "tab  x", "😀 smile", "ﬁsh",
]  # fmt: skip
SEARCHED = {
    "école": "École", "ÉCOLE": "École", "cOl": "École", "σίσυφος": "ΣΊΣΥΦΟΣ", "ς": "ΣΊΣΥΦΟΣ",
    "жУК": "Жук", "istanbul": "İstanbul", "straße": "STRAẞE", "50% OFF_": "50% off_deal\\x",
    "deal\\X": "50% off_deal\\x", "A.B*C[D]{E}(F)|G^H$": "a.b*c[d]{e}(f)|g^h$",
    "ǆUNGLA": "ǅungla", "ΩHM": "Ωhm", "日本": "日本", "(?I)X": "(?i)x", "***:X": "***:x",
    "😀 SMILE": "😀 smile", "ﬁSH": "ﬁsh", "ecole": None, "a_b": None, "50x": None, ".*": None,
}  # fmt: skip


@pytest.mark.parametrize("locale", LOCALES)
def test_a_name_is_found_in_any_case_in_every_locale(app_with, postgres_uri, issuer, locale):
    clauses = f"ENCODING 'UTF8' {LOCALES[locale]}"
    with cloned(postgres_uri, clauses, template="template0") as uri:
        migrate(uri)
        execute(uri, service_role())
        app = app_with(database_url=as_service(uri))
        for name in NAMES:
            app.services.credentials.issue(caller(), name=name)
        client = client_of(app, issuer.sign())
        found = {
            text: [
                each["name"] for each in client.get("/secrets", query_string={"name": text}).json
            ]
            for text in SEARCHED
        }
        assert found == {text: [name] if name else [] for text, name in SEARCHED.items()}


# A pooler that drops the options


@contextmanager
def behind_pgbouncer(own_database):
    """Run PgBouncer in transaction mode, and return the URI of the database behind it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    program = shutil.which("pgbouncer", path=path)
    require(Path(program or "/usr/sbin/pgbouncer"), install="apt-get install pgbouncer")
    parameters, port = conninfo_to_dict(own_database), free_port()
    with postgres_directory() as directory:
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n{parameters['dbname']} = host={parameters['host']} "
            f"dbname={parameters['dbname']} user=credentials_service\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
            "ignore_startup_parameters = extra_float_digits,options\n"
        )
        command = [program, str(configuration)]
        if os.geteuid() == 0:  # it refuses to run as root
            command += ["-u", Path(parameters["host"]).owner()]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        uri = f"postgresql://credentials_service@127.0.0.1:{port}/{parameters['dbname']}"
        try:
            wait_until(lambda: answers(uri))
            yield uri
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)


def answers(uri):
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("values", POOLED, **NUMBERED)
def test_the_service_works_behind_pgbouncer_whatever_the_database_sets(
    app_with, issuer, own_database, values
):
    set_defaults(own_database, **values)
    with behind_pgbouncer(own_database) as uri:
        live(app_with(database_url=uri), issuer)
        sees_what_is_committed(uri, own_database)


def test_a_client_of_pgbouncer_does_not_change_the_sessions_of_others(own_database):
    set_defaults(own_database, DateStyle="German")
    with (
        behind_pgbouncer(own_database) as uri,
        psycopg.connect(uri, autocommit=True) as other,
    ):
        database = Database(uri, connections=2)
        database.open(wait_seconds=HANG_SECONDS)
        with database.connection(HANG_SECONDS) as connection:
            assert repository.find_time(connection)
        assert other.execute("SHOW DateStyle").fetchone() == ("German, DMY",)
        database.close()
