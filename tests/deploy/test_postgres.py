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


@pytest.fixture(scope="module")
def role():
    """The URI of a migrated database as the service's role, on a server that did not have it.

    The owner of the tables, who is not a superuser, runs the script twice; a superuser once more.
    """
    require("psql", install="apt-get install postgresql-client")
    with new_postgres(fsync="off") as uri:
        execute(uri, "CREATE ROLE credentials_owner LOGIN CREATEROLE")
        execute(uri, "ALTER DATABASE postgres OWNER TO credentials_owner")
        owner = uri.replace("postgres@", "credentials_owner@")
        migrate(owner)
        for each in (owner, owner, uri):
            command = ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", SCRIPT, each]
            subprocess.run(command, env=os.environ | {"SERVICE_PASSWORD": "it's'"}, check=True)
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


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM credential_events", "UPDATE credential_events SET actor = 'x'",
     "UPDATE credentials SET unit_id = 'x'", "TRUNCATE credentials", "DROP TABLE credentials",
     "UPDATE client_secrets SET secret_hash = 'x'"],
)  # fmt: skip
def test_the_role_may_not_change_protected_data(role, statement):
    with (
        psycopg.connect(role) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)
