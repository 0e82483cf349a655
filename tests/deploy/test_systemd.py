"""The units of deploy/systemd, judged by systemd-analyze. No systemd runs here."""

import re
import shutil
import subprocess

import pytest

from tests.helpers import require
from tests.server import ROOT

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ["leadvibe-credentials.service", "leadvibe-credentials-migrate.service"]
HIGHEST_EXPOSURE = 1.2  # of 10, as systemd-analyze counts


@pytest.fixture(autouse=True)
def _systemd_analyze():
    require("systemd-analyze", install="apt-get install systemd")


@pytest.fixture
def units(tmp_path):
    """Copies of the units that start a program which exists."""
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


def test_systemd_waits_longer_for_the_end_than_gunicorn():
    (graceful,) = re.findall(r"graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text())
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", (UNITS / SERVICES[0]).read_text())
    assert int(stop) > int(graceful)
