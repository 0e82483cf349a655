"""The links between the pages of the repository."""

import os
import re
from pathlib import Path

import pytest

from tests.running_server import ROOT

# Links of the pages in app are addresses of the service: tests/docs follows them.
NOT_OURS = {"app", "build", "node_modules", "var"}


def pages():
    for directory, rooms, files in os.walk(ROOT):
        rooms[:] = [each for each in rooms if each[0] != "." and each not in NOT_OURS]
        yield from (Path(directory, each) for each in files if each.endswith(".md"))


DECISIONS = ROOT / "docs" / "decisions"


def anchors(page):
    """Return the fragments that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_page_or_a_section_leads_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, fragment = target.partition("#")
        if ":" in path:
            continue  # another host, which no test should ask
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


def test_the_index_of_decisions_has_each_of_them():
    files = {page.name for page in DECISIONS.glob("0*.md")}
    index = (DECISIONS / "README.md").read_text()
    assert set(re.findall(r"^\| \[\d+\]\((\S+)\)", index, re.MULTILINE)) == files
