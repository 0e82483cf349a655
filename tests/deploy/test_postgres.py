"""deploy/postgres/service-role.sql, run by psql."""

import os
import subprocess
from uuid import uuid4

import psycopg
import pytest

from app.database.migrations import migrate
from tests.conftest import environment, execute, new_postgres
from tests.helpers import basic, require
from tests.running_server import ROOT, running_server

pytestmark = pytest.mark.long

SCRIPT = ROOT / "deploy" / "postgres" / "service-role.sql"


def run_script(uri):
    command = ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", SCRIPT, uri]
    subprocess.run(command, env=os.environ | {"SERVICE_PASSWORD": "it's'"}, check=True)


@pytest.fixture(scope="module")
def role():
    """The URI of a migrated database as the service's role, on a server that did not have it.

    The owner of the tables, who is not a superuser, runs the script twice; a superuser once more.
    """
    require("psql", install="apt-get install postgresql-client")
    with new_postgres(fsync="off") as uri:
        execute(uri, "CREATE ROLE credentials_owner LOGIN CREATEROLE")
        execute(uri, "ALTER DATABASE postgres OWNER TO credentials_owner")
        execute(uri, "GRANT CREATE ON SCHEMA public TO PUBLIC")  # as Postgres 14 does
        owner = uri.replace("postgres@", "credentials_owner@")
        migrate(owner)
        run_script(owner)
        # as this file did until 0.9.0
        execute(owner, "GRANT INSERT ON credential_events, client_secrets TO credentials_service")
        run_script(owner)
        run_script(uri)
        yield uri.replace("postgres@", "credentials_service@")


def test_the_role_has_every_privilege_that_the_service_needs(role, settings, issuer):
    with running_server(environment(settings, database_url=role)) as server:
        assert server.request("GET", "/readyz").status == 200
        token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}

        def call(method, path, body=None, **headers):
            answer = server.request(method, f"/secrets{path}", body, **token, **headers)
            assert answer.status in {200, 204}, answer.body
            return answer

        issued = call("POST", "", b'{"name": "x"}', Idempotency_Key=uuid4().hex).json()
        secret = f"/{issued['secret_id']}"
        pair = basic(issued["client_id"], issued["client_secret"])
        assert server.request("GET", "/verify", **pair).status == 200
        call("PUT", secret, b'{"trust_upstream_consent": true, "name": "y", "enabled": false}')
        call("PUT", secret, b'{"trust_upstream_consent": true, "enabled": true}')
        rotated = call("POST", f"{secret}/rotate", b"{}").json()
        assert server.request("GET", "/verify", **pair).status == 200
        call("DELETE", f"{secret}/secrets/{issued['client_secret'][-4:]}")
        assert server.request("GET", "/verify", **pair).status == 401
        pair = basic(rotated["client_id"], rotated["client_secret"])
        assert server.request("GET", "/verify", **pair).status == 200
        call("GET", "")
        call("GET", secret)
        call("GET", "/events")
        call("DELETE", secret)
        assert [line for line in server.log() if line["level"] != "INFO"] == []


def add_event(column, value, how=""):
    """Return a statement that adds an event with a value that the role may not choose."""
    return (
        f"INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id, {column}) "
        f"{how} VALUES ('sec_1', 'u', 'issued', 'a', 'r', {value})"
    )


@pytest.mark.parametrize(
    "statement",
    [
        # change the trail
        "UPDATE credential_events SET actor = 'x'",
        "DELETE FROM credential_events",
        "TRUNCATE credential_events",
        add_event("name", "'x'") + " ON CONFLICT (event_id) DO UPDATE SET actor = 'x'",
        (
            "MERGE INTO credential_events USING (SELECT 1) AS one ON true "
            "WHEN MATCHED THEN UPDATE SET actor = 'x'"
        ),
        "MERGE INTO credential_events USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
        # hide its events, or block those to come
        add_event("transaction_id", "'1'"),
        add_event("event_id", "99", "OVERRIDING SYSTEM VALUE"),
        add_event("at", "now() - interval '1 day'"),
        add_event("at", "now() + interval '1 day'"),
        "COPY credential_events FROM STDIN",
        "SELECT setval('credential_events_event_id_seq', 1)",
        "SELECT nextval('credential_events_event_id_seq')",
        "ALTER SEQUENCE credential_events_event_id_seq RESTART",
        "INSERT INTO trail_histories (base, first_event_id) VALUES (9000000000000000, 1)",
        "UPDATE trail_histories SET base = 9000000000000000",
        # get around what protects it
        "ALTER TABLE credential_events DISABLE TRIGGER ALL",
        "DROP TRIGGER credential_events_append_only ON credential_events",
        (
            "CREATE TRIGGER mine BEFORE INSERT ON credential_events FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        "CREATE RULE mine AS ON INSERT TO credential_events DO INSTEAD NOTHING",
        "SET session_replication_role = replica",
        (
            "CREATE OR REPLACE FUNCTION trail_transaction() RETURNS xid8 LANGUAGE sql "
            "AS $$ SELECT '1'::xid8 $$"
        ),
        "ALTER TABLE credential_events OWNER TO credentials_service",
        "DROP TABLE credential_events",
        # change what a credential is
        "UPDATE credentials SET unit_id = 'x'",
        "UPDATE credentials SET client_id = 'x'",
        (
            "INSERT INTO credentials (secret_id, unit_id, client_id, name, created_at) "
            "VALUES ('x', 'x', 'x', 'x', now())"
        ),
        "TRUNCATE credentials CASCADE",
        "UPDATE client_secrets SET secret_hash = 'x'",
        "UPDATE client_secrets SET secret_id = 'x'",
        (
            "INSERT INTO client_secrets (client_secret_id, secret_id, secret_hash, hint) "
            "OVERRIDING SYSTEM VALUE VALUES (99, 'x', 'x', 'x')"
        ),
        "DELETE FROM _yoyo_migration",
        # leave the tables
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "COPY credentials TO PROGRAM 'cat'",
        "COPY credentials TO '/tmp/credentials'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_the_role_may_not(role, statement):
    with (
        psycopg.connect(role) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_the_role_cannot_pretend_to_be_the_owner(role):
    with psycopg.connect(role) as connection:
        connection.execute(
            "CREATE TEMP TABLE pg_class AS SELECT c.oid, r.oid AS relowner "
            "FROM pg_catalog.pg_class c, pg_roles r WHERE rolname = current_user"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="time at which it is added"):
            connection.execute(add_event("at", "'2020-01-01'"))
