"""The lock files pin the dependencies of setup.cfg."""

import configparser
import re
import subprocess

import pytest

from tests.running_server import ROOT


def names(text):
    lines = (line.split("#")[0] for line in text.splitlines())
    return {re.split(r"[\[ ><=]", line.strip())[0].lower() for line in lines} - {""}


def locked(lock):
    """Return the version of each package that has a hash in the lock file."""
    content = (ROOT / "requirements" / f"{lock}.txt").read_text()
    found = re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==(\S+) \\\n +--hash=", content, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize(
    ("lock", "extras"), [("production", ()), ("run", ("run",)), ("development", ("run", "dev"))]
)
def test_every_dependency_is_locked_with_its_hash(lock, extras):
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    wanted = names(configuration["options"]["install_requires"])
    for extra in extras:
        wanted |= names(configuration["options.extras_require"][extra])
    assert wanted <= locked(lock).keys()


@pytest.mark.parametrize(("lock", "more"), [("production", "run"), ("run", "development")])
def test_a_lock_file_adds_to_a_smaller_one_and_changes_nothing(lock, more):
    assert locked(lock).items() <= locked(more).items()


@pytest.mark.parametrize("lock", ["production", "run", "development", "tools"])
def test_a_lock_file_names_no_package_index(lock):
    content = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert not re.search(r"https?://|--index-url |--find-links ", content)


@pytest.mark.parametrize("target", ["run", "env", "token"])
def test_a_target_that_runs_the_service_installs_no_tools(target):
    plan = subprocess.check_output(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, text=True
    )
    assert re.findall(r"requirements/(\w+)\.txt", plan) == ["run"]
