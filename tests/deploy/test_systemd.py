"""The units of deploy/systemd, checked by systemd-analyze. No systemd runs here."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.helpers import basic, graceful_seconds, require
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

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ["leadvibe-credentials.service", "leadvibe-credentials-migrate.service"]
HIGHEST_EXPOSURE = 1.2  # of 10, on the scale of systemd-analyze


@pytest.fixture(autouse=True)
def _systemd_analyze():
    require("systemd-analyze", install="apt-get install systemd")


@pytest.fixture
def units(tmp_path):
    """Copies of the units, with a program that exists on this machine."""
    copies = shutil.copytree(UNITS, tmp_path / "units")
    for service in SERVICES:
        unit = copies / service
        unit.write_text(
            re.sub(r"/opt/leadvibe-credentials/venv/bin/\w+", "/bin/true", unit.read_text())
        )
    return copies


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_is_valid(units, service):
    command = ["systemd-analyze", "verify", "--man=no", units / service]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("service", SERVICES)
def test_the_unit_exposes_no_more_than_the_readme_says(service):
    threshold = f"--threshold={round(HIGHEST_EXPOSURE * 10)}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, UNITS / service]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    exposures = re.findall(r"Overall exposure level for \S+: ([\d.]+)", checked.stdout)
    assert [float(each) <= HIGHEST_EXPOSURE for each in exposures] == [True]
    assert f"{HIGHEST_EXPOSURE} of 10" in (ROOT / "deploy" / "README.md").read_text()


def system_calls(name):
    """Return the system calls of a group such as @system-service, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.check_output(["systemd-analyze", "syscall-filter", name], text=True)
    members = [line.strip() for line in listed.splitlines()[1:]]
    return {call for each in members if each and each[0] != "#" for call in system_calls(each)}


def allowed_system_calls(unit):
    allowed = set()
    for names in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        for name in names.removeprefix("~").split():
            (allowed.difference_update if names[0] == "~" else allowed.update)(system_calls(name))
    return allowed


# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), where the kernel knows it
WITHOUT_EXECUTABLE_MEMORY = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "wsgi:app"])
"""


def traced_by(strace):
    """Return the process that strace started."""
    return int(Path(f"/proc/{strace.pid}/task/{strace.pid}/children").read_text())


def test_the_service_needs_nothing_that_the_unit_refuses(settings, issued, issuer, tmp_path):
    require("strace", install="apt-get install strace")
    output, calls = tmp_path / "output", tmp_path / "calls"
    env = clean_environment() | environment(settings, web_concurrency=2)
    port = free_port()
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", calls, sys.executable, "-c", WITHOUT_EXECUTABLE_MEMORY],
            cwd=ROOT, env=env | {"PORT": str(port)}, stdout=stdout, stderr=stdout,
        )  # fmt: skip
    server = Server(port, process, output)
    try:
        wait_until(lambda: answers(server, process))
        token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
        assert server.request("POST", "/secrets", b'{"name": "x"}', **token).status == 200
        pair = basic(issued.client_id, issued.client_secret)
        assert server.request("GET", "/verify", **pair).status == 200
        for path in ("/docs", "/openapi.json", "/readyz", "/secrets/events"):
            assert server.request("GET", path, **token).status == 200
        os.kill(traced_by(process), signal.SIGHUP)
        wait_until(lambda: output.read_text().count("Booting worker") == 4)
    finally:
        os.kill(traced_by(process), signal.SIGTERM)
        process.wait(HANG_SECONDS)
    used = set(re.findall(r"^\d+ +(\w+)\(", calls.read_text(), re.MULTILINE))
    assert "execve" in used
    assert used - allowed_system_calls((UNITS / SERVICES[0]).read_text()) == set()


def test_systemd_waits_longer_for_a_stop_than_gunicorn():
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", (UNITS / SERVICES[0]).read_text())
    assert int(stop) > graceful_seconds()
