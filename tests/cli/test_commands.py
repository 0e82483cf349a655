"""`credentials`, as an operator and a script use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.helpers import FIELDS, ISSUED_FIELDS, is_live, time_in
from tests.server import clean_environment

CREDENTIALS = Path(sys.executable).parent / "credentials"
UNIT = ("--unit", "unit_demo")


@pytest.fixture
def variables(settings, rows):
    """The settings that a command needs, with an empty database."""
    needed = ("DATABASE_URL", "DIGEST_KEY")
    variables = {name: value for name, value in environment(settings).items() if name in needed}
    return clean_environment() | {"USER": "grace"} | variables


@pytest.fixture
def run(variables):
    """Return a function that runs the command."""

    def run(*arguments, **changes):
        return subprocess.run(
            [CREDENTIALS, *arguments],
            env=variables | changes,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def start(variables):
    """Return a function that starts the command in the background."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [CREDENTIALS, *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()


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
    assert table.splitlines()[0].split() == [
        "secret_id", "client_id", "name", "event", "actor", "via", "address", "at", "request_id",
        "detail",
    ]  # fmt: skip


def test_events_without_a_credential_shows_the_whole_unit(run, issued_json):
    run("issue", "another", *UNIT)
    events = json.loads(run("events", *UNIT, "--event", "issued", "--json").stdout)
    assert [each["name"] for each in events] == ["another", "CRM backend"]
    assert {each["via"] for each in events} == {"cli"}
    assert {each["address"] for each in events} == {None}


def test_show_and_whois_show_the_same(run, issued_json, member):
    shown = run("show", issued_json["secret_id"], *UNIT, "--json").stdout
    assert json.loads(shown) == member.get(f"/secrets/{issued_json['secret_id']}").json
    assert run("whois", issued_json["client_id"], "--json").stdout == shown
    assert run("whois", "lv_ci_" + "0" * 20).returncode == 3


def test_update_changes_the_name_and_the_consent_flag(run, issued_json, member):
    secret_id = issued_json["secret_id"]
    done = run("update", secret_id, *UNIT, "--name", "New", "--trust-upstream-consent")
    assert (done.returncode, done.stdout) == (0, f"updated {secret_id}\n")
    shown = member.get(f"/secrets/{secret_id}").json
    assert (shown["name"], shown["trust_upstream_consent"]) == ("New", True)
    run("update", secret_id, *UNIT, "--distrust-upstream-consent")
    assert member.get(f"/secrets/{secret_id}").json["trust_upstream_consent"] is False


def test_list_takes_the_filters_of_the_api(run, issued_json):
    run("issue", "Web shop", *UNIT, "--expires-at", time_in(days=1))

    def names(*filters):
        listed = json.loads(run("list", *UNIT, "--json", *filters).stdout)
        return [each["name"] for each in listed]

    assert names("--name", "crm") == ["CRM backend"]
    assert names("--client-id", issued_json["client_id"]) == ["CRM backend"]
    assert names("--expiring-before", time_in(days=2)) == ["Web shop"]
    assert names("--disabled") == []
    assert names("--enabled", "--unused-since", time_in(days=0)) == ["Web shop", "CRM backend"]


def test_end_secret_ends_one_of_two(run, issued_json, rows):
    secret_id, hint = issued_json["secret_id"], issued_json["client_secret"][-4:]
    last = run("end-secret", secret_id, hint, *UNIT)
    assert (last.returncode, rows.count("client_secrets")) == (1, 1)
    rotated = json.loads(run("rotate", secret_id, *UNIT, "--json").stdout)
    assert run("rotate", secret_id, *UNIT).returncode == 1
    assert run("end-secret", secret_id, "xxxx", *UNIT).returncode == 3
    assert run("end-secret", secret_id, hint, *UNIT).returncode == 0
    assert not is_live(rows, issued_json["client_secret"])
    assert is_live(rows, rotated["client_secret"])


def test_disable_and_enable_one_credential(run, issued_json, rows):
    secret_id = issued_json["secret_id"]
    assert run("disable", secret_id, *UNIT).stdout == f"disabled {secret_id}\n"
    assert not is_live(rows, issued_json["client_secret"])
    assert run("enable", secret_id, *UNIT).stdout == f"enabled {secret_id}\n"
    assert is_live(rows, issued_json["client_secret"])


def test_enable_all_wakes_only_what_disable_all_put_to_sleep(run, issued_json, rows):
    other = json.loads(run("issue", "x", *UNIT, "--json").stdout)
    foreign = json.loads(run("issue", "x", "--unit", "unit_other", "--json").stdout)
    run("disable", other["secret_id"], *UNIT)
    assert run("disable", "--all", *UNIT).stdout == "disabled 1\n"
    assert run("disable", "--all", *UNIT).returncode == 3
    assert not is_live(rows, issued_json["client_secret"])
    assert is_live(rows, foreign["client_secret"])
    assert run("enable", "--all", *UNIT).stdout == "enabled 1\n"
    assert is_live(rows, issued_json["client_secret"])
    assert not is_live(rows, other["client_secret"])
    assert run("enable", "--all", *UNIT).returncode == 3
    details = rows("SELECT event, detail FROM credential_events WHERE detail::text LIKE '%%all%%'")
    assert [each["event"] for each in details] == ["disabled", "enabled"]


def test_what_is_disabled_by_itself_stays_so_when_its_unit_is_enabled(run, issued_json, rows):
    run("disable", "--all", *UNIT)
    run("disable", issued_json["secret_id"], *UNIT)
    assert run("enable", "--all", *UNIT).returncode == 3
    assert not is_live(rows, issued_json["client_secret"])


def test_revoke_all_revokes_the_unit_with_an_event_for_each(run, issued_json, rows):
    run("issue", "x", *UNIT)
    foreign = json.loads(run("issue", "x", "--unit", "unit_other", "--json").stdout)
    assert run("revoke", "--all", *UNIT).stdout == "revoked 2\n"
    assert rows.count("credentials") == 1
    assert is_live(rows, foreign["client_secret"])
    revoked = rows("SELECT secret_id FROM credential_events WHERE event = 'revoked'")
    assert len({each["secret_id"] for each in revoked}) == 2
    assert run("revoke", "--all", *UNIT).returncode == 3


def test_revoke_refuses_what_is_in_use(run, issued_json, rows):
    rows.execute("UPDATE client_secrets SET last_used_at = now()")
    failed = run("revoke", issued_json["secret_id"], *UNIT, "--unused-for", "3600")
    assert failed.returncode == 1
    assert "in use" in failed.stderr
    assert is_live(rows, issued_json["client_secret"])


def test_follow_streams_events_until_it_is_terminated(start, run, issued_json):
    following = start("events", *UNIT, "--follow", "--json")
    first = json.loads(following.stdout.readline())
    assert (first["event"], first["secret_id"]) == ("issued", issued_json["secret_id"])
    run("revoke", issued_json["secret_id"], *UNIT)
    assert json.loads(following.stdout.readline())["event"] == "revoked"
    following.terminate()
    out, err = following.communicate(timeout=10)
    assert (following.returncode, out, err) == (0, "", "")


def test_follow_ends_cleanly_when_its_reader_goes_away(start, run, issued_json):
    following = start("events", *UNIT, "--follow", "--json")
    following.stdout.readline()
    following.stdout.close()
    run("revoke", issued_json["secret_id"], *UNIT)
    assert following.wait(10) == 0
    assert following.stderr.read() == ""


@pytest.mark.parametrize("command", ["show", "update", "rotate", "disable", "revoke", "events"])
@pytest.mark.parametrize("whose", ["unknown", "of another unit"])
def test_the_exit_status_is_3_if_the_unit_has_no_such_credential(run, issued_json, command, whose):
    secret_id, unit = (
        ("sec_x", "unit_demo") if whose == "unknown" else (issued_json["secret_id"], "unit_other")
    )
    options = ("--name", "x") if command == "update" else ()
    failed = run(command, secret_id, "--unit", unit, *options)
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
        ("revoke", "sec_x", "--all", *UNIT),
        ("revoke", "--all", "--unused-for", "60", *UNIT),
        ("revoke", "sec_x", "--unused-for", "59", *UNIT),
        ("disable", *UNIT),
        ("enable", "sec_x", "--all", *UNIT),
        ("update", "sec_x", *UNIT),
        ("whois", "sec_x"),
        ("issue", "x", *UNIT, "--expires-at", "tomorrow"),
        ("issue", "x", *UNIT, "--expires-at", "2020-01-01T00:00:00Z"),
        ("rotate", "sec_x", *UNIT, "--expires-at", "2027-01-01T00:00:00+01:00"),
        ("events", *UNIT, "--event", "burned"),
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
    for command in (
        "migrate", "list", "show", "whois", "issue", "update", "rotate", "end-secret", "disable",
        "enable", "revoke", "events",
    ):  # fmt: skip
        assert command in shown
