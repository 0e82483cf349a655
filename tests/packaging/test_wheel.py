"""The wheel, installed into an environment of its own, in which other packages have our names."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.helpers import basic
from tests.running_server import (
    HANG_SECONDS,
    ROOT,
    Server,
    answers,
    clean_environment,
    free_port,
    wait_until,
)

pytestmark = pytest.mark.long

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
NAMES = ("app", "wsgi", "migrations_sql", "gunicorn_conf", "tests")  # which others may use too
STRANGER = "raise SystemExit('a file of somebody else was imported')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made from a copy of the files that Git knows, as a build leaves files behind."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT
    )
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [*PIP, "wheel", "-q", "--no-build-isolation", "--no-deps", "--wheel-dir", built, source],
        check=True,
    )
    (wheel,) = built.iterdir()
    return wheel


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The directory of the programs of the environment."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", "-q", "--no-deps", wheel], check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    # what the wheel depends on; an editable installation there is not followed
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for name in NAMES:
        (packages / f"{name}.py").write_text(STRANGER)
    return venv / "bin"


@pytest.fixture(params=["empty", "full"])
def directory(request, tmp_path):
    """Where the commands are run: an empty directory, and one that has files with our names."""
    directory = tmp_path / "work"
    directory.mkdir()
    if request.param == "full":
        for name in (*NAMES, "gunicorn.conf", "__main__"):
            (directory / f"{name}.py").write_text(STRANGER)
    return directory


def test_the_wheel_has_one_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "leadvibe_credentials",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }


def test_the_wheel_has_every_file_of_the_service_and_no_others(wheel):
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "app", "migrations_sql"],
        cwd=ROOT,
        text=True,
    )
    top = {"CHANGELOG.md", "__main__.py", "gunicorn.conf.py", "wsgi.py"}
    expected = {*listed.split(), *top}
    names = zipfile.ZipFile(wheel).namelist()
    inside = [name.partition("/")[2] for name in names if name.startswith("leadvibe_credentials/")]
    assert sorted(inside) == sorted(expected)


def test_the_installed_service_works_in_any_directory(
    programs, directory, settings, empty_database, issuer
):
    credentials = programs / "credentials"
    variables = clean_environment() | environment(settings, database_url=empty_database)
    port = free_port()
    variables |= {"PORT": "1", "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"}

    def run(*command):
        return subprocess.check_output(command, cwd=directory, env=variables, text=True)

    assert "up to date" in run(credentials, "migrate")
    output = directory.parent / "output"
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            [credentials, "serve"],
            cwd=directory,
            env=variables,
            stdout=stdout,
            stderr=subprocess.STDOUT,
        )
    server = Server(port, process, output)
    try:
        wait_until(lambda: answers(server, process))
        token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
        issued = server.request("POST", "/secrets", b'{"name": "x"}', **token).json()
        pair = basic(issued["client_id"], issued["client_secret"])
        assert server.request("GET", "/verify", **pair).json()["name"] == "x"
        page = server.request("GET", "/docs").body.decode()
        for path in ("/readyz", "/docs.md", *re.findall(r'"(docs/static/[^"]+)"', page)):
            assert server.request("GET", f"/{path.lstrip('/')}").status == 200, path
        assert issued["secret_id"] in run(credentials, "list", "--unit", "unit_demo")
        module = (programs / "python", "-m", "leadvibe_credentials")
        if not list(directory.iterdir()):  # -m looks for modules in this directory first
            assert issued["secret_id"] in run(*module, "list", "--unit", "unit_demo")

        os.kill(process.pid, signal.SIGHUP)
        wait_until(lambda: output.read_text().count("Booting worker") == 2)
        assert server.request("GET", "/verify", **pair).status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG_SECONDS)
    assert process.returncode == 0
    assert {line["level"] for line in server.log()} == {"INFO"}


def test_sigusr2_starts_the_installed_service_again(programs, directory, settings, rows):
    """gunicorn runs its own command line again, to replace its program without an outage."""
    variables = clean_environment() | environment(settings) | {"PORT": str(free_port())}
    output = directory.parent / "output"
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            [programs / "credentials", "serve"],
            cwd=directory,
            env=variables,
            stdout=stdout,
            stderr=subprocess.STDOUT,
        )
    server = Server(int(variables["PORT"]), process, output)
    try:
        wait_until(lambda: answers(server, process))
        process.send_signal(signal.SIGUSR2)
        wait_until(lambda: output.read_text().count("Booting worker") == 2)
        process.terminate()
        process.wait(HANG_SECONDS)
        assert server.request("GET", "/readyz").status == 200
    finally:
        masters = re.findall(r"Listening at: \S+ \((\d+)\)", output.read_text())
        for master in masters:
            with suppress(ProcessLookupError):
                os.kill(int(master), signal.SIGTERM)
        process.wait(HANG_SECONDS)
        wait_until(lambda: not any(Path("/proc", each).exists() for each in masters))
