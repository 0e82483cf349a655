"""deploy/compose.yaml, checked by the real docker compose, which starts nothing here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import SECRET_FILES
from tests.conftest import environment
from tests.helpers import graceful_seconds, known_settings
from tests.running_server import ROOT, clean_environment
from tests.tools import tool

pytestmark = pytest.mark.long

COMPOSE = ROOT / "deploy" / "compose.yaml"
GIVEN = {
    "JWT_JWKS_URL": "https://issuer.example/jwks",
    "JWT_ISSUER": "https://issuer.example",
    "JWT_AUDIENCE": "leadvibe-credentials",
}
README = (ROOT / "deploy" / "README.md").read_text()


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
def composed():
    read = config(**GIVEN)
    assert (read.returncode, read.stderr) == (0, "")
    return json.loads(read.stdout)


@pytest.fixture(scope="module")
def services(composed):
    return composed["services"]


@pytest.mark.parametrize("missing", GIVEN)
def test_compose_refuses_to_start_without_a_variable(missing):
    read = config(**{name: value for name, value in GIVEN.items() if name != missing})
    assert read.returncode != 0
    assert missing in read.stderr


def test_the_readme_names_every_variable():
    assert [name for name in GIVEN if f"{name}=" not in README] == []


def test_the_commands_of_the_readme_make_every_secret(composed, settings, tmp_path):
    (commands,) = re.findall(
        r"```sh\n(install -d -m 700 deploy/secrets\n.*?)```", README, re.DOTALL
    )
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True)
    made = tmp_path / "deploy" / "secrets"
    wanted = {Path(each["file"]) for each in composed["secrets"].values()}
    assert {path.parent for path in wanted} == {ROOT / "deploy" / "secrets"}
    assert {path.name for path in wanted} == {path.name for path in made.iterdir()}
    checked = subprocess.run(
        [sys.executable, "-c", "from app.settings import Settings; Settings.from_environment()"],
        env=clean_environment()
        | {
            **{k: v for k, v in environment(settings).items() if k not in SECRET_FILES},
            "DATABASE_URL_FILE": str(made / "database-url"),
            "DIGEST_KEY_FILE": str(made / "digest-key"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_no_environment_has_a_secret(services):
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            assert name.endswith("_FILE") or not re.search("PASSWORD|SECRET|KEY$", name)
            assert not re.search(r"://[^/@]*:[^/@]*@", value or "")


def test_a_read_only_service_has_only_configs_and_secrets_from_files(composed):
    """Compose copies others into the container, which a read-only root refuses."""
    for service in composed["services"].values():
        if service.get("read_only"):
            for kind in ("configs", "secrets"):
                for each in service.get(kind, []):
                    assert "file" in composed[kind][each["source"]]


def test_what_one_of_the_others_can_reach_ends_at_the_service(services):
    in_several = {name for name, service in services.items() if len(service["networks"]) > 1}
    assert in_several == {"credentials"}
    assert set(services["postgres"]["networks"]) == {"database"}
    assert set(services["redis"]["networks"]) == {"counters"}
    together = [name for name, service in services.items() if "counters" in service["networks"]]
    assert sorted(together) == ["credentials", "redis"]


def test_no_container_keeps_more_capabilities_than_it_needs(services):
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    added = {name for name, service in services.items() if service.get("cap_add")}
    assert added == {"postgres", "nginx"}  # their entrypoints change the user


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
