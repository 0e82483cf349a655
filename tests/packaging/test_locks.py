"""The lock files pin the dependencies of setup.cfg."""

import configparser
import re

import pytest

from tests.server import ROOT


def names(text):
    lines = (line.split("#")[0] for line in text.splitlines())
    return {re.split(r"[\[ ><=]", line.strip())[0].lower() for line in lines} - {""}


@pytest.mark.parametrize("lock", ["production", "development"])
def test_every_dependency_is_locked_with_its_hash(lock):
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    wanted = names(configuration["options"]["install_requires"])
    if lock == "development":
        wanted |= names(configuration["options.extras_require"]["dev"])
    content = (ROOT / "requirements" / f"{lock}.txt").read_text()
    locked = set(
        re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==\S+ \\\n +--hash=", content, re.MULTILINE)
    )
    assert wanted <= locked


@pytest.mark.parametrize("lock", ["production", "development", "tools"])
def test_a_lock_file_names_no_package_index(lock):
    content = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert not re.search(r"https?://|--index-url |--find-links ", content)
