"""Commands on a unit with a hundred thousand credentials, while the service verifies."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from uuid import uuid4

import psycopg
import pytest

from app.credentials.errors import VerificationRefused
from tests.conftest import TEMPLATE, database, environment, execute
from tests.helpers import caller
from tests.running_server import clean_environment

pytestmark = pytest.mark.long

SIZE = 100_000
UNIT = "unit_demo"
CREDENTIALS = """
    INSERT INTO credentials (secret_id, unit_id, client_id, name, created_at)
    SELECT 'sec_' || lpad(i::text, 20, '0'), 'unit_demo', 'lv_ci_' || lpad(i::text, 20, '0'),
           'name ' || i, now() - i * interval '1 minute'
    FROM generate_series(1, %(size)s) AS i
"""
CLIENT_SECRETS = """
    INSERT INTO client_secrets (secret_id, secret_hash, digest, hint)
    SELECT secret_id, '$2b$10$' || repeat('x', 53), decode(repeat('00', 40), 'hex'), 'abcd'
    FROM credentials
"""


@pytest.fixture(scope="module")
def big_database(postgres_uri):
    name = f"big_{uuid4().hex}"
    execute(postgres_uri, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    uri = database(postgres_uri, name)
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(CREDENTIALS, {"size": SIZE})
        connection.execute(CLIENT_SECRETS)
        connection.execute("ANALYZE")
    yield uri
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def credentials_command(settings, big_database):
    """Return a function that runs a command as the service's role, and returns its output."""
    url = big_database.replace("//postgres@", "//credentials_service@")
    variables = clean_environment() | environment(settings, database_url=url)

    def run(*arguments):
        command = [Path(sys.executable).with_name("credentials"), *arguments, "--unit", UNIT]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture
def verifying(app_with, big_database):
    """Verify a pair of the unit, and one of another unit, as long as the test runs.

    Yields the changes that callers saw: whether the pair of the unit was accepted.
    """
    services = app_with(
        database_url=big_database, max_credentials_per_unit=10 * SIZE, verify_failure_limit=0
    ).services
    own = services.credentials.issue(caller(UNIT), name="own")
    other = services.credentials.issue(caller("unit_other"), name="other")
    seen, stopping = [], Event()

    def is_accepted(issued):
        try:
            services.verifier.verify(client_id=issued.client_id, client_secret=issued.client_secret)
        except VerificationRefused:
            return False
        return True

    def verify():
        while not stopping.wait(0.01):
            assert is_accepted(other)
            accepted = is_accepted(own)
            if seen[-1:] != [accepted]:
                seen.append(accepted)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(verify)
        yield seen
        stopping.set()
        running.result()


def test_a_unit_is_listed_disabled_enabled_and_revoked(credentials_command, verifying):
    size = SIZE + 1
    listed = json.loads(credentials_command("list", "--json"))
    assert len({each["secret_id"] for each in listed}) == size
    assert credentials_command("disable", "--all", "--yes") == (
        f"Disabled {size} credentials of {UNIT}.\n"
    )
    assert json.loads(credentials_command("list", "--json", "--enabled")) == []
    assert credentials_command("enable", "--all") == f"Enabled {size} credentials of {UNIT}.\n"
    assert len(json.loads(credentials_command("events", "--json", "--event", "enabled"))) == size
    assert credentials_command("revoke", "--all", "--yes") == (
        f"Revoked {size} credentials of {UNIT}.\n"
    )
    assert json.loads(credentials_command("list", "--json")) == []
    assert verifying in ([True, False, True, False], [True, False])
