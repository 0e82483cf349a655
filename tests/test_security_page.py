"""The commands in SECURITY.md exist, and have the options that it uses."""

import re
import shlex

import click
import pytest

from app.cli.commands import main
from tests.running_server import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
COMMANDS = re.findall(r"^(credentials .*?)(?: +#.*)?$", PAGE, re.MULTILINE)
COMMANDS += re.findall(r"`(credentials \w+ --all.*?)`", PAGE)


def test_the_page_has_commands():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_exists_with_its_options(line):
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    command.make_parser(click.Context(command)).parse_args(arguments)


def test_every_link_leads_to_a_file():
    paths = re.findall(r"\]\(([^)#]+)", PAGE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
