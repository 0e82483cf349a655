"""deploy/compose.yaml, checked by the real docker compose, which starts nothing here."""

import json
import os
import subprocess

import pytest

from tests.helpers import graceful_seconds, known_settings
from tests.running_server import ROOT
from tests.tools import tool

pytestmark = pytest.mark.long

COMPOSE = ROOT / "deploy" / "compose.yaml"
GIVEN = {
    "OWNER_PASSWORD": "owner", "SERVICE_PASSWORD": "service", "GRAFANA_PASSWORD": "grafana",
    "DIGEST_KEY": "key", "JWT_JWKS_URL": "https://issuer.example/jwks",
    "JWT_ISSUER": "https://issuer.example", "JWT_AUDIENCE": "leadvibe-credentials",
}  # fmt: skip


def config(**variables):
    command = [tool("docker-compose"), "--env-file", "/dev/null", "--file", COMPOSE, "config"]
    return subprocess.run(
        [*command, "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services():
    read = config(**GIVEN)
    assert (read.returncode, read.stderr) == (0, "")
    return json.loads(read.stdout)["services"]


@pytest.mark.parametrize("missing", GIVEN)
def test_compose_refuses_to_start_without_a_variable(missing):
    read = config(**{name: value for name, value in GIVEN.items() if name != missing})
    assert read.returncode != 0
    assert missing in read.stderr


def test_the_readme_names_every_variable():
    stated = (ROOT / "deploy" / "README.md").read_text()
    assert [name for name in GIVEN if f"{name}=" not in stated] == []


def test_only_nginx_is_reached_from_other_machines(services):
    public = {
        name
        for name, service in services.items()
        for port in service.get("ports", [])
        if port.get("host_ip") != "127.0.0.1"
    }
    assert public == {"nginx"}


def test_the_service_runs_on_a_read_only_root_without_privileges(services):
    for name in ("credentials", "migrate"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108  the only one
        assert set(service["environment"]) <= known_settings()


def test_only_the_migration_and_the_grants_know_the_owner_of_the_tables(services):
    knowing = {name for name, service in services.items() if "owner" in json.dumps(service)}
    assert knowing == {"postgres", "migrate", "role"}


def test_each_service_starts_after_those_that_it_needs(services):
    order = {
        name: {other: each["condition"] for other, each in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert order["migrate"] == {"postgres": "service_healthy"}
    assert order["role"] == {"migrate": "service_completed_successfully"}
    assert order["credentials"]["role"] == "service_completed_successfully"
    assert order["nginx"] == {"credentials": "service_healthy"}
    # that of `credentials` is in the image
    checked = {name for name, service in services.items() if "healthcheck" in service}
    assert checked | {"credentials", "migrate", "role"} == set(services)


def test_docker_waits_longer_for_a_stop_than_gunicorn(services):
    assert int(services["credentials"]["stop_grace_period"].removesuffix("s")) > graceful_seconds()
