import pytest
from psycopg.conninfo import conninfo_to_dict

from app.database.migrations import migrate
from tests.conftest import execute


@pytest.fixture
def client_on(app_with):
    """Return a function that starts a service on the database and returns its client."""
    return lambda database_url: app_with(database_url=database_url).test_client()


def test_the_process_is_healthy(client):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_the_service_is_ready(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_the_service_is_not_ready_if_the_database_is_not_migrated(client_on, empty_database):
    client = client_on(empty_database)
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_the_service_is_not_ready_if_a_migration_is_missing(client_on, empty_database):
    migrate(empty_database)
    execute(empty_database, "DELETE FROM _yoyo_migration")
    assert client_on(empty_database).get("/readyz").status_code == 503


def test_the_service_is_ready_if_the_database_has_a_later_version(client_on, empty_database):
    migrate(empty_database)
    execute(empty_database, "INSERT INTO _yoyo_migration VALUES ('x', '9999.later', now())")
    assert client_on(empty_database).get("/readyz").status_code == 200


def test_the_service_is_ready_if_the_database_is_read_only(client_on, empty_database):
    migrate(empty_database)
    client = client_on(empty_database)
    assert client.get("/readyz").status_code == 200
    make_read_only = "ALTER ROLE ALL IN DATABASE {} SET default_transaction_read_only = on"
    name = conninfo_to_dict(empty_database)["dbname"]
    execute(empty_database, make_read_only.format(name))
    assert client_on(empty_database).get("/readyz").status_code == 200


def test_without_a_database_the_process_is_healthy_but_not_ready(client_on):
    client = client_on("postgresql://postgres@127.0.0.1:1/nowhere")
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
