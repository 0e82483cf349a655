"""`credentials`, as an operator and a script use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.helpers import FIELDS, ISSUED_FIELDS, is_live
from tests.server import clean_environment

CREDENTIALS = Path(sys.executable).parent / "credentials"
UNIT = ("--unit", "unit_demo")


@pytest.fixture
def run(settings, rows):
    """Return a function that runs the command with the settings that it needs."""
    needed = ("DATABASE_URL", "DIGEST_KEY")
    variables = {name: value for name, value in environment(settings).items() if name in needed}

    def run(*arguments, **changes):
        return subprocess.run(
            [CREDENTIALS, *arguments],
            env=clean_environment() | {"USER": "grace"} | variables | changes,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def issued_json(run):
    """The output of the command that issued the credential."""
    return json.loads(run("issue", "CRM backend", *UNIT, "--json").stdout)


def test_issue_prints_the_secret_once(run, rows):
    done = run("issue", "CRM backend", *UNIT)
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(shown) == ISSUED_FIELDS
    assert shown["name"] == "CRM backend"
    assert is_live(rows, shown["client_secret"])
    assert shown["client_secret"] not in run("list", *UNIT).stdout


def test_list_is_a_table_for_people_and_json_for_scripts(run, issued_json, member):
    header, _, row = run("list", *UNIT).stdout.splitlines()
    assert header.split() == FIELDS
    assert row.startswith(issued_json["secret_id"])
    assert json.loads(run("list", *UNIT, "--json").stdout) == member.get("/secrets").json


def test_the_list_of_a_unit_without_credentials_is_empty(run):
    assert json.loads(run("list", *UNIT, "--json").stdout) == []
    assert run("list", *UNIT).returncode == 0


def test_rotate_prints_the_new_secret_once(run, issued_json, rows):
    done = run("rotate", issued_json["secret_id"], *UNIT, "--overlap-seconds", "0", "--json")
    rotated = json.loads(done.stdout)
    assert is_live(rows, rotated["client_secret"])
    assert not is_live(rows, issued_json["client_secret"])


def test_rotate_keeps_the_previous_secret_for_a_day_by_default(run, issued_json, rows):
    run("rotate", issued_json["secret_id"], *UNIT)
    query = "SELECT expires_at > now() + interval '23 hours' AS day FROM client_secrets"
    assert [each["day"] for each in rows(f"{query} WHERE expires_at IS NOT NULL")] == [True]


def test_revoke_ends_the_credential(run, issued_json, rows):
    done = run("revoke", issued_json["secret_id"], *UNIT)
    assert (done.returncode, done.stdout) == (0, f"revoked {issued_json['secret_id']}\n")
    assert not is_live(rows, issued_json["client_secret"])


def test_events_shows_who_did_what(run, issued_json):
    run("revoke", issued_json["secret_id"], *UNIT, "--actor", "incident 42")
    events = json.loads(run("events", issued_json["secret_id"], *UNIT, "--json").stdout)
    assert [(each["event"], each["actor"]) for each in events] == [
        ("revoked", "incident 42"),
        ("issued", "cli:grace"),
    ]
    table = run("events", issued_json["secret_id"], *UNIT).stdout
    assert table.splitlines()[0].split() == ["event", "actor", "at", "request_id", "detail"]


@pytest.mark.parametrize("command", ["rotate", "revoke", "events"])
@pytest.mark.parametrize("whose", ["unknown", "of another unit"])
def test_the_exit_status_is_3_if_the_unit_has_no_such_credential(run, issued_json, command, whose):
    secret_id, unit = (
        ("sec_x", "unit_demo") if whose == "unknown" else (issued_json["secret_id"], "unit_other")
    )
    failed = run(command, secret_id, "--unit", unit)
    assert (failed.returncode, failed.stdout) == (3, "")
    assert failed.stderr == "Error: The unit has no such credential.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("burn",),
        ("list",),
        ("list", "--unit", ""),
        ("list", "--unit", "a\nb"),
        ("issue", *UNIT),
        ("issue", "", *UNIT),
        ("issue", "x" * 51, *UNIT),
        ("issue", "a\x1bb", *UNIT),
        ("issue", b"\xff", *UNIT),
        ("issue", "x", *UNIT, "--actor", ""),
        ("rotate", "sec_x", *UNIT, "--overlap-seconds", "-1"),
        ("rotate", "sec_x", *UNIT, "--overlap-seconds", "2592001"),
        ("rotate", b"\xff", *UNIT),
        ("revoke", *UNIT),
    ],
    ids=ascii,
)
def test_the_exit_status_of_a_usage_error_is_2_and_nothing_is_stored(run, rows, arguments):
    failed = run(*arguments)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert rows.count("credentials") == 0


def test_all_invalid_settings_are_named_and_the_exit_status_is_2(run):
    failed = run("list", *UNIT, DATABASE_URL="", DIGEST_KEY="x", BCRYPT_ROUNDS="1")
    assert failed.returncode == 2
    for name in ("DATABASE_URL", "DIGEST_KEY", "BCRYPT_ROUNDS"):
        assert name in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_exit_status_is_4_if_the_database_is_unreachable(run):
    failed = run("list", *UNIT, DATABASE_URL="postgresql://app:s3cret@127.0.0.1:1/x")
    assert failed.returncode == 4
    assert failed.stderr.startswith("Error: The database is unavailable")
    assert failed.stderr.count("\n") == 1
    assert "s3cret" not in failed.stderr


def test_the_help_explains_the_exit_statuses(run):
    shown = run("--help").stdout
    assert "Exit status: 0 done" in shown
    for command in ("migrate", "list", "issue", "rotate", "revoke", "events"):
        assert command in shown
