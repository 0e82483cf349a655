"""The version matches the changelog and the tag of the image."""

import configparser
import re
from pathlib import Path

from tests.running_server import ROOT

SECTIONS = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def package_version():
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    return configuration["metadata"]["version"]


def test_the_version_is_the_newest_one_of_the_changelog():
    assert SECTIONS[0] == "Unreleased"
    newest, _, _ = SECTIONS[1].partition(" - ")
    assert newest == package_version()


def test_every_released_version_has_its_date_and_the_newest_comes_first():
    releases = [
        re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (\d{4}-\d\d-\d\d)", each) for each in SECTIONS[1:]
    ]
    assert all(releases)
    versions = [tuple(map(int, each.groups()[:3])) for each in releases]
    assert versions == sorted(versions, reverse=True)
    dates = [each[4] for each in releases]
    assert dates == sorted(dates, reverse=True)


def test_the_image_has_the_version_as_its_tag():
    files = [each for each in (ROOT / "deploy").rglob("*") if each.is_file()]
    tags = re.findall(r"leadvibe-credentials:(\d[\w.]*)", "".join(map(Path.read_text, files)))
    assert set(tags) == {package_version()}
