"""What the command line imports: each package takes an operator's time, at each TAB too."""

import json
import subprocess
import sys

import pytest

from tests.conftest import environment
from tests.running_server import clean_environment

WEB = {
    "apispec", "flask", "flask_smorest", "gunicorn", "httpx", "markdown_it", "prometheus_client",
    "pygments", "webargs", "werkzeug",
}  # fmt: skip
WORK = {
    "bcrypt", "cryptography", "environs", "jwt", "limits", "marshmallow", "orjson", "psycopg",
    "psycopg_pool", "redis", "tabulate", "yoyo",
}  # fmt: skip

# Runs the command, and ends standard error with the packages that it has imported.
RUN = """
import atexit, json, sys
atexit.register(
    lambda: print(json.dumps([name for name in sys.modules if "." not in name]), file=sys.stderr)
)
from app.cli.commands import main
main(prog_name="credentials")
"""


@pytest.fixture
def imported(settings, rows):
    """Return a function that runs a command, and returns what of `WEB` and `WORK` it imports."""

    def imported(*arguments, **variables):
        result = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            env=clean_environment() | environment(settings) | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout, result.stderr
        return set(json.loads(result.stderr.splitlines()[-1])) & (WEB | WORK)

    return imported


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["rotate", "--help"]], ids=str)
def test_help_imports_nothing_to_work_with(imported, arguments):
    assert imported(*arguments) == set()


@pytest.mark.parametrize("words", ["", "li", "list --", "token "])
def test_tab_completion_imports_nothing_to_work_with(imported, words):
    completing = {
        "_CREDENTIALS_COMPLETE": "bash_complete",
        "COMP_WORDS": f"credentials {words}",
        "COMP_CWORD": str(len(f"{words} ".split(" ")) - 1),
    }
    assert imported(**completing) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "--unit=unit_demo", "--json"],
        ["list", "--unit=unit_demo", "--json"],
        ["issue", "x", "--unit=unit_demo"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_work_on_credentials_imports_no_web_stack(imported, arguments):
    assert imported(*arguments) & WEB == set()


def test_the_package_itself_imports_nothing():
    run = "import sys, app; print(*(name for name in sys.modules if name.startswith('app')))"
    result = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["app"]
