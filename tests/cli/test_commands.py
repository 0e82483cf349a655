"""The command `credentials`, used by operators and by scripts."""

import json
import os
import pty
import re
import resource
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import click
import psycopg
import pytest

from app.cli.commands import main
from app.cli.failures import reported
from app.credentials import management
from app.credentials.errors import (
    InvalidName,
)
from app.credentials.model import CHANGEABLE_FIELDS, UPDATED_FIELDS
from app.database.pool import STATEMENT_SECONDS
from tests.helpers import (
    FIELDS,
    ISSUED_FIELDS,
    VERIFIED_FIELDS,
    caller,
    domain_errors,
    is_live,
    time_in,
    typo_of,
)
from tests.running_server import HANG_SECONDS, ROOT

CREDENTIALS = Path(sys.executable).parent / "credentials"
UNIT = ("--unit", "unit_demo")


@pytest.fixture
def run_process(variables):
    """Return a function that runs the command in a new process, as an operator's shell does."""

    def run_process(*arguments, stdin="", **changes):
        return subprocess.run(
            [CREDENTIALS, *arguments],
            env=variables | changes,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_process


@pytest.fixture
def run_redirected(variables):
    """Return a function that runs the command with a redirection of the shell, such as `>&-`."""

    def run_redirected(redirection, *arguments):
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", CREDENTIALS, *arguments],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_redirected


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


def test_issue_prints_the_secret_once(run_process, run, rows):
    done = run_process("issue", "CRM backend", *UNIT)
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(shown) == ISSUED_FIELDS
    assert shown["name"] == "CRM backend"
    assert is_live(rows, shown["client_secret"])
    assert shown["client_secret"] not in run("list", *UNIT).stdout


def test_list_is_a_table_for_people_and_json_for_scripts(run, issued_json, member):
    header, _, row = run("list", *UNIT).stdout.splitlines()
    assert header.split() == [*FIELDS, "disabled_at", "last_used_at", "next_expiry"]
    assert row.startswith(issued_json["secret_id"])
    detailed = member.get("/secrets?detailed=true").json
    assert json.loads(run("list", *UNIT, "--json").stdout) == detailed


def test_the_table_shows_the_state_of_each_credential(run, issued_json, service, rows):
    secret_id = issued_json["secret_id"]
    service.rotate(caller(), secret_id, overlap_seconds=3600)
    rows.execute("UPDATE client_secrets SET last_used_at = '2025-06-03T09:30:00Z'")
    rows.execute("UPDATE credentials SET disabled_at = '2025-06-04T09:30:00Z'")
    row = run("list", *UNIT).stdout.splitlines()[-1]
    shown = json.loads(run("show", secret_id, *UNIT, "--json").stdout)
    expiry = shown["secrets"][1]["expires_at"]
    assert row.split()[-3:] == ["2025-06-04T09:30:00Z", "2025-06-03T09:30:00Z", expiry]


def test_an_empty_list_says_so_on_standard_error(run):
    as_json = run("list", *UNIT, "--json")
    assert (json.loads(as_json.stdout), as_json.stderr) == ([], "")
    for arguments, words in (
        (("list",), "The unit unit_demo has no credentials.\n"),
        (("list", "--name", "x"), "The unit unit_demo has no such credentials.\n"),
        (("events",), "The unit unit_demo has no such events.\n"),
    ):
        table = run(*arguments, *UNIT)
        assert (table.returncode, table.stdout, table.stderr) == (0, "", words)


def test_the_unit_may_come_from_the_environment(run, issued_json):
    listed = run("list", "--json", LEADVIBE_UNIT="unit_demo")
    assert [each["secret_id"] for each in json.loads(listed.stdout)] == [issued_json["secret_id"]]
    assert run("list", *UNIT, "--json", LEADVIBE_UNIT="unit_other").stdout == listed.stdout
    assert "LEADVIBE_UNIT" in run("list").stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_output_writes_the_secret_to_a_private_file(run, rows, tmp_path, as_json):
    options = (*UNIT, *(("--json",) if as_json else ()))
    issued = run("issue", "CRM backend", *options, "--output", tmp_path / "issued")
    [secret_id] = [each["secret_id"] for each in rows("SELECT secret_id FROM credentials")]
    rotated = run("rotate", secret_id, *options, "--output", tmp_path / "rotated")
    for done, path in ((issued, tmp_path / "issued"), (rotated, tmp_path / "rotated")):
        client_secret = path.read_text()
        assert client_secret.endswith("\n")
        assert is_live(rows, client_secret.strip())
        assert path.stat().st_mode & 0o777 == 0o600
        assert secret_id in done.stdout
        assert "lv_cs_" not in done.stdout + done.stderr


def test_output_does_not_overwrite_a_file_and_nothing_is_issued(run, rows, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "no" / "directory"):
        failed = run("issue", "x", *UNIT, "--output", path)
        assert failed.returncode == 2
        assert str(path) in failed.stderr
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
    assert rows.count("credentials") == 0


def test_output_leaves_no_file_if_nothing_is_issued(run, tmp_path):
    path = tmp_path / "secret"
    assert run("rotate", "sec_x", *UNIT, "--output", path).returncode == 3
    assert not path.exists()


def test_output_that_cannot_be_written_tells_how_to_get_another_secret(variables, rows, tmp_path):
    path = tmp_path / "secret"
    limited = 'ulimit -f 0; exec "$@"'  # no file may have any content
    failed = subprocess.run(
        ["sh", "-c", limited, "sh", CREDENTIALS, "issue", "x", *UNIT, "--output", path],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    [secret_id] = [each["secret_id"] for each in rows("SELECT secret_id FROM credentials")]
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.endswith(f"Rotate {secret_id} to get another one.\n")
    assert not path.exists()


def test_verify_shows_the_credential_of_a_valid_pair(run, issued_json, rows):
    secret = issued_json["client_secret"]
    verify = ("verify", issued_json["client_id"])
    done = run(*verify, stdin=f"{secret}\n")
    assert [line.split()[0] for line in done.stdout.splitlines()] == VERIFIED_FIELDS
    as_json = json.loads(run(*verify, "--json", stdin=secret).stdout)
    assert as_json == {name: issued_json[name] for name in VERIFIED_FIELDS}
    assert rows("SELECT last_used_at FROM client_secrets") == [{"last_used_at": None}]


def test_verify_refuses_an_invalid_pair_with_status_5(run, issued_json):
    secret, other = (
        issued_json["client_secret"],
        json.loads(run("issue", "another", *UNIT, "--json").stdout),
    )
    for client_id, given, words in (
        (other["client_id"], secret, "not valid"),
        ("lv_ci_" + "0" * 20, secret, "not valid"),
        (issued_json["client_id"], typo_of(secret), "malformed"),
        (issued_json["client_id"], secret[:-1], "malformed"),
    ):
        failed = run("verify", client_id, stdin=given)
        assert (failed.returncode, failed.stdout) == (5, "")
        assert words in failed.stderr
        assert given not in failed.stderr
    run("disable", issued_json["secret_id"], *UNIT)
    assert run("verify", issued_json["client_id"], stdin=secret).returncode == 5


def test_verify_without_a_secret_is_a_usage_error(run_process, issued_json):
    for stdin in ("", "\n"):
        failed = run_process("verify", issued_json["client_id"], stdin=stdin)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "standard input" in failed.stderr


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
    done = run("revoke", issued_json["secret_id"], *UNIT, "--yes")
    assert (done.returncode, done.stdout) == (0, f"Revoked {issued_json['secret_id']}.\n")
    assert not is_live(rows, issued_json["client_secret"])


def test_events_shows_who_did_what(run, issued_json):
    run("revoke", issued_json["secret_id"], *UNIT, "--yes", "--actor", "incident 42")
    events = json.loads(run("events", issued_json["secret_id"], *UNIT, "--json").stdout)
    assert [(each["event"], each["actor"]) for each in events] == [
        ("revoked", "incident 42"),
        ("issued", "cli:grace"),
    ]
    table = run("events", issued_json["secret_id"], *UNIT).stdout
    assert table.splitlines()[0].split() == [
        "event", "actor", "via", "address", "at", "request_id", "detail",
    ]  # fmt: skip


def test_events_without_a_credential_shows_the_whole_unit(run, issued_json):
    run("issue", "another", *UNIT)
    events = json.loads(run("events", *UNIT, "--event", "issued", "--json").stdout)
    assert [each["name"] for each in events] == ["another", "CRM backend"]
    assert {each["via"] for each in events} == {"cli"}
    assert {each["address"] for each in events} == {None}
    table = run("events", *UNIT).stdout
    assert table.splitlines()[0].split()[:4] == ["secret_id", "client_id", "name", "event"]


def test_show_and_whois_show_the_same(run, issued_json, member):
    shown = run("show", issued_json["secret_id"], *UNIT, "--json").stdout
    assert json.loads(shown) == member.get(f"/secrets/{issued_json['secret_id']}").json
    assert run("whois", issued_json["client_id"], "--json").stdout == shown
    assert run("whois", "lv_ci_" + "0" * 20).returncode == 3


@pytest.mark.parametrize("command", ["show", "whois"])
def test_the_client_secrets_of_a_credential_are_a_table_below_it(run, issued_json, rows, command):
    run("rotate", issued_json["secret_id"], *UNIT)
    wanted = {"show": (issued_json["secret_id"], *UNIT), "whois": (issued_json["client_id"],)}
    record, table = run(command, *wanted[command]).stdout.split("\n\n")
    assert f"name                    {issued_json['name']}" in record.splitlines()
    header, _, _, previous = table.splitlines()
    assert header.split() == [
        "hint", "created_at", "last_used_at", "last_used_from", "expires_at",
    ]  # fmt: skip
    assert previous.startswith(issued_json["client_secret"][-4:])
    rows.execute("UPDATE client_secrets SET expires_at = now()")
    expired = run(command, *wanted[command]).stdout
    assert expired.endswith("\n\nAll its client secrets have expired.\n")


def make_old(rows):
    rows.execute("UPDATE client_secrets SET created_at = created_at - interval '1 day'")


def test_end_secret_ends_nothing_that_is_in_use(run, issued_json, rows):
    secret_id, hint = issued_json["secret_id"], issued_json["client_secret"][-4:]
    run("rotate", secret_id, *UNIT)
    make_old(rows)
    rows.execute("UPDATE client_secrets SET last_used_at = now() WHERE expires_at > now()")
    command = ("end-secret", secret_id, hint, "--yes", *UNIT, "--unused-for")
    assert run(*command, "59").returncode == 2
    failed = run(*command, "60")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "within --unused-for (last_used_at " in failed.stderr
    rows.execute("UPDATE client_secrets SET last_used_at = now() - interval '1 hour'")
    assert run(*command, "60").stdout == f"Ended the client secret {hint} of {secret_id}.\n"


def test_finish_rotations_ends_what_nobody_uses_any_more(run, issued_json, rows):
    secret_id, hint = issued_json["secret_id"], issued_json["client_secret"][-4:]
    command = ("finish-rotations", *UNIT, "--unused-for", "60")
    run("rotate", secret_id, *UNIT)
    make_old(rows)
    nothing = run(*command)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "The unit unit_demo has no rotation to finish.\n"
    rows.execute("UPDATE client_secrets SET last_used_at = now() WHERE expires_at IS NULL")
    expected = {
        "secret_id": secret_id,
        "client_id": issued_json["client_id"],
        "name": issued_json["name"],
        "hint": hint,
        "last_used_at": None,
    }
    planned = run(*command, "--dry-run", "--json")
    assert (planned.returncode, json.loads(planned.stdout)) == (0, [expected])
    assert rows.count("client_secrets") == 2
    header, _, row = run(*command).stdout.splitlines()
    assert header.split() == list(expected)
    assert row.split()[0] == secret_id
    assert rows.count("client_secrets") == 1
    [event] = rows("SELECT * FROM credential_events WHERE event = 'secret_ended'")
    assert event["detail"] == {"hint": hint}
    assert (event["via"], event["actor"]) == ("cli", "cli:grace")
    assert json.loads(run(*command, "--json").stdout) == []


def test_finish_rotations_needs_a_time(run, rows):
    assert run("finish-rotations", *UNIT).returncode == 2
    assert run("finish-rotations", *UNIT, "--unused-for", "59").returncode == 2


def test_credentials_with_refused_senders_are_listed(run, issued_json, rows):
    command = ("list", *UNIT, "--json", "--refused-since", "2025-06-01T00:00:00Z")
    assert json.loads(run(*command).stdout) == []
    rows.execute("UPDATE credentials SET last_refused_at = '2025-06-01Z'")
    [listed] = json.loads(run(*command).stdout)
    assert listed["secret_id"] == issued_json["secret_id"]


def test_show_says_why_a_sender_is_refused(run, issued_json, rows):
    rows.execute(
        "UPDATE credentials SET last_refused_at = '2025-06-01Z', last_refused_reason = 'ended', "
        "last_refused_from = '192.0.2.7', last_refused_hint = 'abcd'"
    )
    shown = run("show", issued_json["secret_id"], *UNIT).stdout
    assert (
        '{"at": "2025-06-01T00:00:00Z", "reason": "ended", "from": "192.0.2.7", "hint": "abcd"}'
        in shown
    )


def test_update_changes_the_name_and_the_consent_flag(run, issued_json, member):
    secret_id = issued_json["secret_id"]
    done = run("update", secret_id, *UNIT, "--name", "New", "--trust-upstream-consent")
    assert (done.returncode, done.stdout) == (0, f"Updated {secret_id}.\n")
    shown = member.get(f"/secrets/{secret_id}").json
    assert (shown["name"], shown["trust_upstream_consent"]) == ("New", True)
    run("update", secret_id, *UNIT, "--distrust-upstream-consent")
    assert member.get(f"/secrets/{secret_id}").json["trust_upstream_consent"] is False


def test_a_command_changes_only_what_it_names(run, issued_json, member):
    secret_id = issued_json["secret_id"]
    run("update", secret_id, *UNIT, "--trust-upstream-consent")
    for command in (
        ("update", secret_id, "--name", "New"),
        ("disable", secret_id),
        ("enable", secret_id),
        ("rotate", secret_id),
    ):
        assert run(*command, *UNIT).returncode == 0, command
    shown = member.get(f"/secrets/{secret_id}").json
    assert (shown["name"], shown["trust_upstream_consent"]) == ("New", True)
    assert shown["disabled_at"] is None
    run("update", secret_id, *UNIT, "--distrust-upstream-consent")
    run("update", secret_id, *UNIT, "--name", "Newer")
    shown = member.get(f"/secrets/{secret_id}").json
    assert (shown["name"], shown["trust_upstream_consent"]) == ("Newer", False)


def test_list_takes_the_filters_of_the_api(run, issued_json):
    run("issue", "Web shop", *UNIT, "--expires-at", time_in(days=1))

    def names(*filters):
        listed = json.loads(run("list", *UNIT, "--json", *filters).stdout)
        return [each["name"] for each in listed]

    assert names("--name", "crm") == ["CRM backend"]
    assert names("--client-id", issued_json["client_id"]) == ["CRM backend"]
    assert names("--expiring-before", time_in(days=2)) == ["Web shop"]
    assert names("--disabled") == []
    assert names("--enabled", "--unused-since", time_in(days=1)) == ["Web shop", "CRM backend"]


def test_a_time_may_have_an_offset_and_a_fraction(run, issued_json):
    expires_at = time_in(days=9)
    written = f"{expires_at[:-1]}.75-00:00"
    issued = json.loads(run("issue", "x", *UNIT, "--json", "--expires-at", written).stdout)
    shown = json.loads(run("show", issued["secret_id"], *UNIT, "--json").stdout)
    assert shown["secrets"][0]["expires_at"] == expires_at
    for arguments, count in (
        (("list", "--expiring-before", f"{time_in(days=10)[:-1]}+01:00"), 1),
        (("list", "--unused-since", f"{time_in(days=-1)[:-1]}.5+01:00"), 0),
        (("events", "--since", f"{time_in(days=-1)[:-1]}-01:00"), 2),
        (("events", "--until", f"{time_in(days=-1)[:-1].replace('T', 't')}z"), 0),
    ):
        listed = run(*arguments, *UNIT, "--json")
        assert len(json.loads(listed.stdout)) == count, arguments


def test_end_secret_ends_one_of_two(run, issued_json, rows):
    secret_id, hint = issued_json["secret_id"], issued_json["client_secret"][-4:]
    last = run("end-secret", secret_id, hint, *UNIT, "--yes")
    assert (last.returncode, rows.count("client_secrets")) == (1, 1)
    rotated = json.loads(run("rotate", secret_id, *UNIT, "--json").stdout)
    assert run("rotate", secret_id, *UNIT).returncode == 1
    assert run("end-secret", secret_id, "xxxx", *UNIT, "--yes").returncode == 3
    done = run("end-secret", secret_id, hint, *UNIT, "--yes", "--json")
    assert json.loads(done.stdout) == {"done": "ended", "secret_id": secret_id, "hint": hint}
    assert not is_live(rows, issued_json["client_secret"])
    assert is_live(rows, rotated["client_secret"])


def test_disable_and_enable_one_credential(run, issued_json, rows):
    secret_id = issued_json["secret_id"]
    assert run("disable", secret_id, *UNIT).stdout == f"Disabled {secret_id}.\n"
    assert not is_live(rows, issued_json["client_secret"])
    assert run("enable", secret_id, *UNIT).stdout == f"Enabled {secret_id}.\n"
    assert is_live(rows, issued_json["client_secret"])


def test_enable_all_enables_only_what_disable_all_disabled(run, issued_json, rows):
    other = json.loads(run("issue", "x", *UNIT, "--json").stdout)
    foreign = json.loads(run("issue", "x", "--unit", "unit_other", "--json").stdout)
    run("disable", other["secret_id"], *UNIT)
    assert run("disable", "--all", *UNIT, "--yes").stdout == "Disabled 1 credential of unit_demo.\n"
    assert not is_live(rows, issued_json["client_secret"])
    assert is_live(rows, foreign["client_secret"])
    assert run("enable", "--all", *UNIT).stdout == "Enabled 1 credential of unit_demo.\n"
    assert is_live(rows, issued_json["client_secret"])
    assert not is_live(rows, other["client_secret"])
    details = rows("SELECT event, detail FROM credential_events WHERE detail::text LIKE '%%all%%'")
    assert [each["event"] for each in details] == ["disabled", "enabled"]


def test_enable_all_skips_a_credential_that_was_disabled_alone(run, issued_json, rows):
    run("disable", "--all", *UNIT, "--yes")
    run("disable", issued_json["secret_id"], *UNIT)
    assert run("enable", "--all", *UNIT).stdout == "Enabled 0 credentials of unit_demo.\n"
    assert not is_live(rows, issued_json["client_secret"])


def test_revoke_all_revokes_the_unit_with_an_event_for_each(run, issued_json, rows):
    run("issue", "x", *UNIT)
    foreign = json.loads(run("issue", "x", "--unit", "unit_other", "--json").stdout)
    assert run("revoke", "--all", *UNIT, "--yes").stdout == "Revoked 2 credentials of unit_demo.\n"
    assert rows.count("credentials") == 1
    assert is_live(rows, foreign["client_secret"])
    revoked = rows("SELECT secret_id FROM credential_events WHERE event = 'revoked'")
    assert len({each["secret_id"] for each in revoked}) == 2


@pytest.mark.parametrize("command", ["disable", "enable", "revoke"])
def test_a_change_of_a_whole_unit_may_be_repeated(run, issued_json, command):
    options = (*UNIT, *(() if command == "enable" else ("--yes",)))
    if command != "enable":
        run(command, "--all", *options)
    done = run(command, "--all", *options)
    words = f"{command.capitalize()}d 0 credentials of unit_demo.\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, words, "")
    as_json = run(command, "--all", *options, "--json")
    assert json.loads(as_json.stdout) == {"done": f"{command}d", "count": 0}


@pytest.fixture
def slow(rows):
    """Return a function that makes every change of credentials take so many seconds."""

    def slow(seconds):
        rows.execute(
            "CREATE OR REPLACE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$"
        )
        rows.execute(
            "CREATE TRIGGER take_long BEFORE UPDATE OR DELETE ON credentials "
            "FOR EACH STATEMENT EXECUTE FUNCTION take_long()"
        )

    yield slow
    rows.execute("DROP FUNCTION take_long CASCADE")


def test_a_change_of_a_whole_unit_may_take_longer_than_a_request(run, issued_json, rows, slow):
    slow(STATEMENT_SECONDS + 0.1)
    done = run("disable", "--all", *UNIT, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_live(rows, issued_json["client_secret"])


def test_a_slow_database_is_distinguished_from_one_that_does_not_answer(run, issued_json, slow):
    slow(600)
    failed = run("disable", issued_json["secret_id"], *UNIT)
    assert failed.returncode == 4
    assert failed.stderr == "Error: The database is unavailable: it took too long.\n"


def test_a_change_of_a_whole_unit_that_takes_too_long_says_so(
    run, issued_json, rows, slow, monkeypatch
):
    slow(600)
    monkeypatch.setattr(management, "UNIT_CHANGE_SECONDS", STATEMENT_SECONDS + 0.5)
    failed = run("disable", "--all", *UNIT, "--yes")
    assert (failed.returncode, failed.stdout) == (4, "")
    assert failed.stderr.startswith(
        "Error: Nothing was disabled: to change all credentials of unit_demo took the database "
    )
    assert is_live(rows, issued_json["client_secret"])


NEW_VALUES = {
    "trust_upstream_consent": True,
    "name": "renamed",
    "enabled": False,
    "scopes": ["ingest"],
    "addresses": ["192.0.2.0/24"],
}


def test_every_changeable_field_is_changed_shown_and_recorded(run, issued_json, member):
    assert NEW_VALUES.keys() == set(CHANGEABLE_FIELDS)
    path = f"/secrets/{issued_json['secret_id']}"
    before = member.get(path).json
    assert member.patch(path, json=NEW_VALUES).status_code == 204
    shown = json.loads(run("show", issued_json["secret_id"], *UNIT, "--json").stdout)
    assert shown == member.get(path).json
    events = {each["event"]: each["detail"] for each in member.get(f"{path}/events").json}
    assert shown["disabled_at"] is not None
    assert events["disabled"] == {}
    assert events["updated"].keys() == set(UPDATED_FIELDS)
    for field in UPDATED_FIELDS:
        assert shown[field] == NEW_VALUES[field] != before[field]
        assert events["updated"][field] == {"from": before[field], "to": NEW_VALUES[field]}


def test_update_has_an_option_for_every_field_that_it_changes(run, issued_json):
    """`disable` and `enable` change the other field."""
    options = {option.name for option in main.commands["update"].params}
    assert set(UPDATED_FIELDS) <= options
    done = run(
        "update", issued_json["secret_id"], *UNIT, "--name", "renamed", "--trust-upstream-consent",
        "--scope", "ingest", "--address", "192.0.2.0/24",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(run("show", issued_json["secret_id"], *UNIT, "--json").stdout)
    assert {field: shown[field] for field in UPDATED_FIELDS} == {
        field: NEW_VALUES[field] for field in UPDATED_FIELDS
    }


def test_restrictions_can_be_given_at_the_issue_and_removed(run):
    done = run(
        "issue", "x", *UNIT, "--scope", "leads.read", "--scope", "ingest",
        "--address", "2001:DB8::/32", "--address", "192.0.2.1", "--json",
    )  # fmt: skip
    secret_id = json.loads(done.stdout)["secret_id"]

    def restrictions():
        shown = json.loads(run("show", secret_id, *UNIT, "--json").stdout)
        return shown["scopes"], shown["addresses"]

    assert restrictions() == (["ingest", "leads.read"], ["2001:db8::/32", "192.0.2.1"])
    assert run("list", *UNIT, "--unrestricted", "--json").stdout == "[]\n"
    assert len(json.loads(run("list", *UNIT, "--restricted", "--json").stdout)) == 1
    assert run("update", secret_id, *UNIT, "--all-scopes").returncode == 0
    assert restrictions() == (None, ["2001:db8::/32", "192.0.2.1"])
    assert run("update", secret_id, *UNIT, "--any-address").returncode == 0
    assert restrictions() == (None, None)
    assert len(json.loads(run("list", *UNIT, "--unrestricted", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scope", "nonsense"), "(scopes/0: Must be one of: events, ingest, leads.read)"),
        (("--address", "192.0.2.1", "--address", "192.0.2.1/24"), "(addresses/1: Must not have"),
        (("--scope", "ingest", "--all-scopes"), "or --all-scopes"),
        (("--address", "192.0.2.1", "--any-address"), "or --any-address"),
    ],
)
def test_an_invalid_restriction_is_a_usage_error(run, issued_json, options, message):
    for command in (("issue", "x"), ("update", issued_json["secret_id"])):
        failed = run(*command, *UNIT, *options)
        assert failed.returncode == 2
        assert message in failed.stderr


def test_without_scopes_a_scope_is_a_usage_error(run, issued_json):
    for option in (("--scope", "ingest"), ("--all-scopes",)):
        failed = run("update", issued_json["secret_id"], *UNIT, *option, SCOPES=None)
        assert failed.returncode == 2
        assert "scopes are not configured." in failed.stderr


def test_verify_asks_for_a_scope_and_from_an_address(run):
    options = ("--scope", "ingest", "--address", "192.0.2.0/24", "--json")
    issued = json.loads(run("issue", "x", *UNIT, *options).stdout)

    def verify(*options):
        done = run("verify", issued["client_id"], *options, stdin=issued["client_secret"])
        return done.returncode, done.stderr

    here = ("--address", "192.0.2.7")
    assert verify("--scope", "ingest", *here) == (0, "")
    assert verify("--scope", "events", *here) == (
        5, "Error: The credential does not have the scope events.\n",
    )  # fmt: skip
    assert verify(*here) == (5, "Error: Ask for a scope: --scope.\n")
    elsewhere = (
        5,
        "Error: The pair is valid, but must not be used from that address (--address).\n",
    )
    assert verify("--scope", "ingest") == elsewhere
    assert verify("--scope", "ingest", "--address", "::ffff:198.51.100.7") == elsewhere
    assert verify("--scope", "ingest", "--address", "[::ffff:192.0.2.9]:443") == (0, "")
    assert verify("--scope", "nonsense", *here)[0] == 2
    assert verify("--address", "nowhere")[0] == 2


@pytest.mark.parametrize("command", ["issue", "rotate"])
def test_a_command_with_an_idempotency_key_is_carried_out_once(run, issued_json, rows, command):
    arguments = {
        "issue": ("issue", "CRM", *UNIT),
        "rotate": ("rotate", issued_json["secret_id"], *UNIT),
    }[command]
    key = ("--idempotency-key", "k" * 16, "--json")
    first, second = run(*arguments, *key), run(*arguments, *key)
    assert (first.returncode, first.stdout) == (second.returncode, second.stdout)
    assert first.returncode == 0, first.stderr
    assert rows.count("client_secrets") == 2
    other = run(*arguments, "--expires-at", time_in(days=9), *key)
    assert other.returncode == 1
    assert "This --idempotency-key belongs to a different request." in other.stderr


def test_an_idempotency_key_must_be_long_enough(run):
    failed = run("issue", "CRM", *UNIT, "--idempotency-key", "k" * 15)
    assert failed.returncode == 2
    assert "16-128 visible ASCII characters" in failed.stderr


def test_revoke_refuses_a_credential_in_use(run, issued_json, rows):
    rows.execute("UPDATE client_secrets SET last_used_at = now()")
    failed = run("revoke", issued_json["secret_id"], *UNIT, "--unused-for", "3600", "--yes")
    assert failed.returncode == 1
    assert "used within --unused-for (last_used_at 20" in failed.stderr
    assert is_live(rows, issued_json["client_secret"])


def test_revoke_refuses_a_credential_that_is_too_new_to_be_unused(run, issued_json, rows):
    failed = run("revoke", issued_json["secret_id"], *UNIT, "--unused-for", "3600", "--yes")
    assert failed.returncode == 1
    assert "The newest client secret was created within --unused-for.\n" in failed.stderr
    assert is_live(rows, issued_json["client_secret"])


def test_revoke_tells_that_a_process_has_not_recorded_its_uses(run, issued_json, rows):
    rows.execute("INSERT INTO writers (writer_id) VALUES (gen_random_uuid())")
    failed = run("revoke", issued_json["secret_id"], *UNIT, "--unused-for", "3600", "--yes")
    assert failed.returncode == 4
    assert "Another process has not recorded its latest uses yet." in failed.stderr
    assert is_live(rows, issued_json["client_secret"])


@pytest.fixture
def run_at_terminal(variables):
    """Return a function that runs the command at a terminal, and types the text.

    The function also returns what the terminal shows.
    """

    def run_at_terminal(*arguments, typed):
        person, terminal = pty.openpty()
        process = subprocess.Popen(
            [CREDENTIALS, *arguments],
            env=variables,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            start_new_session=True,
        )
        os.close(terminal)
        shown = b""
        while not shown.endswith(b": "):
            shown += os.read(person, 1024)
        os.write(person, typed.encode())
        out, _ = process.communicate(timeout=HANG_SECONDS)
        with suppress(OSError):  # on Linux, it means that the terminal is closed
            while more := os.read(person, 1024):
                shown += more
        os.close(person)
        return subprocess.CompletedProcess(arguments, process.returncode, out, shown.decode())

    return run_at_terminal


def test_revoke_asks_a_person_first(run_at_terminal, issued_json, rows):
    revoke = ("revoke", issued_json["secret_id"], *UNIT)
    refused = run_at_terminal(*revoke, typed="n\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"Revoke CRM backend ({issued_json['client_id']}, never used)?" in refused.stderr
    assert is_live(rows, issued_json["client_secret"])
    agreed = run_at_terminal(*revoke, typed="y\n")
    assert (agreed.returncode, agreed.stdout) == (0, f"Revoked {issued_json['secret_id']}.\n")
    assert not is_live(rows, issued_json["client_secret"])


def test_changes_of_a_whole_unit_ask_a_person_first(run, run_at_terminal, issued_json, rows):
    run("issue", "x", *UNIT)
    disabled = run_at_terminal("disable", "--all", *UNIT, typed="y\n")
    assert "Disable all 2 credentials of unit_demo?" in disabled.stderr
    assert disabled.stdout == "Disabled 2 credentials of unit_demo.\n"
    refused = run_at_terminal("revoke", "--all", *UNIT, typed="\n")
    assert "Revoke all 2 credentials of unit_demo?" in refused.stderr
    assert rows.count("credentials") == 2


def test_end_secret_asks_a_person_first(run, run_at_terminal, issued_json, rows):
    run("rotate", issued_json["secret_id"], *UNIT)
    hint = issued_json["client_secret"][-4:]
    refused = run_at_terminal("end-secret", issued_json["secret_id"], hint, *UNIT, typed="n\n")
    assert refused.returncode == 1
    assert is_live(rows, issued_json["client_secret"])


def test_a_person_types_the_secret_without_an_echo(run_at_terminal, issued_json):
    typed = f"{issued_json['client_secret']}\n"
    done = run_at_terminal("verify", issued_json["client_id"], "--json", typed=typed)
    assert json.loads(done.stdout)["secret_id"] == issued_json["secret_id"]
    assert done.stderr.strip() == "Client secret:"


def test_follow_streams_events_until_it_is_terminated(start, run, issued_json):
    following = start("events", *UNIT, "--follow", "--json")
    first = json.loads(following.stdout.readline())
    assert (first["event"], first["secret_id"]) == ("issued", issued_json["secret_id"])
    run("revoke", issued_json["secret_id"], *UNIT, "--yes")
    assert json.loads(following.stdout.readline())["event"] == "revoked"
    following.terminate()
    out, err = following.communicate(timeout=HANG_SECONDS)
    assert (following.returncode, out, err) == (0, "", "")


def test_follow_goes_on_after_a_second_restore_of_one_backup(start, service, database_url, rows):
    """It has read events of the first restored database, and prints none twice."""
    following = start("events", *UNIT, "--follow", "--json")

    def printed():
        return json.loads(following.stdout.readline())["name"]

    service.issue(caller(), name="in the backup")
    assert printed() == "in the backup"
    rows.execute("UPDATE trail_histories SET server = 'the one that was lost'")
    service.issue(caller(), name="lost")
    assert printed() == "lost"
    with psycopg.connect(database_url) as restore:
        restore.execute("ALTER TABLE credential_events DISABLE TRIGGER USER")
        restore.execute("DELETE FROM credential_events WHERE name = 'lost'")
        restore.execute("ALTER TABLE credential_events ENABLE TRIGGER USER")
        restore.execute("UPDATE trail_histories SET base = base + 10^12 WHERE base > 0")
    service.issue(caller(), name="new")
    assert printed() == "new"
    following.terminate()
    out, err = following.communicate(timeout=10)
    assert (following.returncode, out) == (0, "")
    assert err == "Some of these events were lost in a failover or a restore; going on.\n"


def test_follow_ends_cleanly_when_its_reader_goes_away(start, run, issued_json):
    following = start("events", *UNIT, "--follow", "--json")
    following.stdout.readline()
    following.stdout.close()
    run("revoke", issued_json["secret_id"], *UNIT, "--yes")
    assert following.wait(HANG_SECONDS) == 0
    assert following.stderr.read() == ""


FULL = "Error: Standard output cannot be written: No space left on device."
BROKEN = "Error: Standard output cannot be written: Broken pipe."


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_lost_client_secret_is_reported(run_redirected, rows, as_json):
    failed = run_redirected("> /dev/full", "issue", "x", *UNIT, *as_json)
    (issued,) = rows("SELECT secret_id, hint FROM client_secrets")
    assert failed.returncode == 1
    assert failed.stderr == (
        f"{FULL} The client secret {issued['hint']} is lost. "
        f"Rotate {issued['secret_id']} to get another one.\n"
    )


@pytest.fixture(params=[FULL, BROKEN], ids=["full", "broken"])
def run_unwritable(request, variables):
    """Return a function that runs the command with a full disk, or a pipe without a reader."""

    def run_unwritable(*arguments):
        reader, output = os.pipe()
        os.close(reader)
        if request.param is FULL:
            os.close(output)
            output = os.open("/dev/full", os.O_WRONLY)
        failed = subprocess.run(
            [CREDENTIALS, *arguments],
            env=variables,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(output)
        assert failed.returncode == 1
        assert failed.stderr.startswith(request.param)
        return failed.stderr.removeprefix(request.param).strip()

    return run_unwritable


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_lost_client_secret_of_a_rotation_can_be_replaced(
    run_unwritable, run, issued_json, rows, as_json
):
    secret_id = issued_json["secret_id"]
    said = run_unwritable("rotate", secret_id, *UNIT, *as_json)
    (lost,) = rows("SELECT hint FROM client_secrets ORDER BY created_at DESC LIMIT 1")
    assert said == (
        f"The client secret {lost['hint']} is lost. "
        f"End it (`credentials end-secret {secret_id} {lost['hint']}`), then rotate again."
    )
    run("end-secret", secret_id, lost["hint"], *UNIT, "--yes")
    assert run("rotate", secret_id, *UNIT).returncode == 0
    assert is_live(rows, issued_json["client_secret"])


def test_with_an_idempotency_key_the_same_command_prints_a_lost_client_secret(
    run_unwritable, run, rows
):
    command = ("issue", "x", *UNIT, "--idempotency-key", "a-key-of-the-tests")
    said = run_unwritable(*command)
    again = json.loads(run(*command, "--json").stdout)
    assert is_live(rows, again["client_secret"])
    assert rows.count("credentials") == 1
    assert said == (
        "Run the same command again: it prints the client secret "
        f"{again['client_secret'][-4:]} of {again['secret_id']}."
    )


def test_a_file_that_takes_only_a_part_of_a_client_secret_is_reported(variables, rows, tmp_path):
    path = tmp_path / "secret"
    failed = subprocess.run(
        [CREDENTIALS, "issue", "x", *UNIT, "--output", path],
        # without files of compiled code, which the limit would cut off too
        env=variables | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)),
        capture_output=True,
        text=True,
        check=False,
    )
    (issued,) = rows("SELECT secret_id FROM credentials")
    assert failed.returncode == 1
    assert failed.stderr == (
        "Error: The client secret was not written: File too large. "
        f"Rotate {issued['secret_id']} to get another one.\n"
    )
    assert not path.exists()


NAME = "日本 Ünité €"


@pytest.fixture
def run_encoded(variables):
    """Return a function that runs the command with an encoding for standard output."""

    def run_encoded(encoding, *arguments):
        done = subprocess.run(
            [CREDENTIALS, *arguments],
            env=variables | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode(encoding.partition(":")[0].replace("ascii", "utf-8"))

    return run_encoded


@pytest.mark.parametrize(
    "encoding", ["latin-1", "latin-1:strict", "cp1252", "ascii:strict", "shift_jis", "utf-16"]
)
def test_no_output_is_lost_if_standard_output_cannot_encode_it(run_encoded, rows, encoding):
    """The locale of a terminal or of a scheduled job may be any."""
    codec = encoding.partition(":")[0].replace("ascii", "utf-8")  # click replaces ASCII
    name = NAME.encode(codec, "backslashreplace").decode(codec)
    issued = fields_of(run_encoded(encoding, "issue", NAME, *UNIT))
    assert is_live(rows, issued["client_secret"])
    assert issued["name"] == name
    secret_id, hint = issued["secret_id"], issued["client_secret"][-4:]
    rotated = json.loads(run_encoded(encoding, "rotate", secret_id, *UNIT, "--json"))
    assert is_live(rows, rotated["client_secret"])
    assert rotated["name"] == NAME
    done = run_encoded(encoding, "end-secret", secret_id, hint, *UNIT, "--yes")
    assert done == f"Ended the client secret {hint} of {secret_id}.\n"
    for command in (("list",), ("show", secret_id), ("whois", issued["client_id"]), ("events",)):
        options = UNIT if command[0] != "whois" else ()
        assert name in run_encoded(encoding, *command, *options)


def fields_of(lines):
    return dict(line.split(maxsplit=1) for line in lines.splitlines())


def test_a_client_secret_in_a_file_is_not_lost(run_redirected, rows, tmp_path):
    path = tmp_path / "secret"
    failed = run_redirected("> /dev/full", "issue", "x", *UNIT, "--output", path)
    (issued,) = rows("SELECT secret_id FROM credentials")
    assert failed.returncode == 1
    assert failed.stderr == f"{FULL} The client secret of {issued['secret_id']} is in the file.\n"
    assert is_live(rows, path.read_text().strip())


def test_a_change_that_cannot_be_printed_is_reported_as_done(run_redirected, issued_json, rows):
    secret_id = issued_json["secret_id"]
    failed = run_redirected("> /dev/full", "revoke", secret_id, *UNIT, "--yes")
    assert failed.returncode == 1
    assert failed.stderr == f"{FULL} The command has done its work: Revoked {secret_id}.\n"
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("options", [("list",), ("list", "--json"), ("events", "--follow")])
def test_output_that_cannot_be_printed_ends_the_command(run_redirected, issued_json, options):
    failed = run_redirected("> /dev/full", *options, *UNIT)
    assert (failed.returncode, failed.stderr) == (1, f"{FULL}\n")


def test_without_standard_output_nothing_is_done(run_redirected, rows):
    failed = run_redirected(">&-", "issue", "x", *UNIT)
    assert failed.returncode == 1
    assert failed.stderr == "Error: Standard output is closed, so the command did nothing.\n"
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("command", ["update", "disable", "enable", "revoke"])
def test_every_change_can_be_reported_as_json(run, issued_json, command):
    secret_id = issued_json["secret_id"]
    options = {"update": ("--name", "x"), "revoke": ("--yes",)}.get(command, ())
    done = run(command, secret_id, *UNIT, *options, "--json")
    assert json.loads(done.stdout) == {"done": f"{command}d", "secret_id": secret_id}


def test_changes_of_a_whole_unit_can_be_reported_as_json(run, issued_json):
    for command in ("disable", "enable", "revoke"):
        options = () if command == "enable" else ("--yes",)
        done = run(command, "--all", *UNIT, *options, "--json")
        assert json.loads(done.stdout) == {"done": f"{command}d", "count": 1}


@pytest.mark.parametrize("command", ["show", "update", "rotate", "disable", "revoke", "events"])
@pytest.mark.parametrize("whose", ["unknown", "of another unit"])
def test_the_exit_status_is_3_if_the_unit_has_no_such_credential(run, issued_json, command, whose):
    secret_id, unit = (
        ("sec_x", "unit_demo") if whose == "unknown" else (issued_json["secret_id"], "unit_other")
    )
    options = {"update": ("--name", "x"), "revoke": ("--yes",)}.get(command, ())
    failed = run(command, secret_id, "--unit", unit, *options)
    assert (failed.returncode, failed.stdout) == (3, "")
    words = "has never had a credential" if command == "events" else "has no credential"
    assert failed.stderr == f"Error: The unit {unit} {words} {secret_id}.\n"


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
        ("revoke", "sec_x", *UNIT),
        ("revoke", "--all", *UNIT),
        ("disable", "--all", *UNIT),
        ("end-secret", "sec_x", "abcd", *UNIT),
        ("revoke", "sec_x", "--all", *UNIT),
        ("revoke", "--all", "--unused-for", "60", *UNIT),
        ("revoke", "sec_x", "--unused-for", "59", *UNIT),
        ("revoke", "sec_x", "--unused-fro", "60", *UNIT, "--yes"),
        ("disable", *UNIT),
        ("enable", "sec_x", "--all", *UNIT),
        ("update", "sec_x", *UNIT),
        ("whois", "sec_x"),
        ("issue", "x", *UNIT, "--expires-at", "tomorrow"),
        ("issue", "x", *UNIT, "--expires-at", "2020-01-01T00:00:00Z"),
        ("rotate", "sec_x", *UNIT, "--expires-at", "2027-01-01T00:00:00"),
        ("events", *UNIT, "--event", "burned"),
    ],
    ids=ascii,
)
def test_the_exit_status_of_a_usage_error_is_2_and_nothing_is_stored(run, rows, arguments):
    failed = run(*arguments)
    assert failed.returncode == 2
    assert rows.count("credentials") == 0


def test_a_usage_error_shows_no_traceback(run_process):
    failed = run_process("issue", b"\xff", *UNIT)
    assert failed.returncode == 2
    assert failed.stderr.startswith("Usage: credentials issue")
    assert "Traceback" not in failed.stderr


def test_each_invalid_setting_is_an_error_and_the_exit_status_is_2(run_process):
    failed = run_process("list", *UNIT, DATABASE_URL="", DIGEST_KEY="x", BCRYPT_ROUNDS="1")
    assert failed.returncode == 2
    assert [line.split(": ")[:2] for line in failed.stderr.splitlines()] == [
        ["Error", "BCRYPT_ROUNDS"],
        ["Error", "DATABASE_URL"],
        ["Error", "DIGEST_KEY"],
    ]


@pytest.mark.parametrize("command", ["list", "migrate"])
def test_the_exit_status_is_4_if_the_database_is_unreachable(run_process, command):
    options = UNIT if command == "list" else ()
    failed = run_process(command, *options, DATABASE_URL="postgresql://app:s3cret@127.0.0.1:1/x")
    assert (failed.returncode, failed.stdout) == (4, "")
    assert failed.stderr.startswith("Error: The database is unavailable: ")
    assert failed.stderr.endswith("Connection refused.\n")
    assert failed.stderr.count("\n") == 1
    assert "s3cret" not in failed.stderr


def test_each_host_of_an_unreachable_database_is_named(run):
    failed = run("list", *UNIT, DATABASE_URL="postgresql://127.0.0.1:1,127.0.0.1:2/x")
    assert failed.returncode == 4
    assert "port 1 failed" in failed.stderr
    assert "port 2 failed" in failed.stderr


def test_a_database_that_is_not_migrated_is_reported_as_such(run, empty_database):
    failed = run("list", *UNIT, DATABASE_URL=empty_database)
    assert failed.returncode == 4
    assert failed.stderr == "Error: The database is unavailable: it is not migrated.\n"
    assert len(json.loads(run("migrate", "--json", DATABASE_URL=empty_database).stdout)["applied"])
    again = run("migrate", DATABASE_URL=empty_database)
    assert again.stdout == "The database is up to date.\n"
    assert json.loads(run("migrate", "--json", DATABASE_URL=empty_database).stdout) == {
        "applied": []
    }


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_explains_the_exit_statuses(run, option):
    shown = run(option).stdout
    assert "Exit status: 0 done" in shown
    for command in (
        "migrate", "list", "show", "whois", "verify", "issue", "update", "rotate", "end-secret",
        "disable", "enable", "revoke", "events", "token",
    ):  # fmt: skip
        assert command in shown
    assert run("token", "check", option).stdout.startswith("Usage: ")


def test_the_version_is_that_of_the_package(run):
    assert run("--version").stdout.endswith(f" {version('leadvibe-credentials')}\n")


def test_every_command_that_prints_takes_json(run):
    for name, command in main.commands.items():
        if name in ("token", "serve"):
            continue
        assert "--json" in {option for each in command.params for option in each.opts}, name


def test_the_readme_names_every_command_and_only_options_that_exist():
    lines = re.findall(r"^credentials (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = {line.split()[0] for line in lines}
    assert named == main.commands.keys()
    for line in lines:
        words = shlex.split(line, comments=True)
        command = main.commands[words[0]]
        if words[0] == "token":
            command = command.commands[words[1]]
        known = {option for each in command.params for option in each.opts + each.secondary_opts}
        assert {word for word in words if word.startswith("--")} <= known


TOLD_BY_A_PARAMETER = {InvalidName}


@pytest.mark.parametrize(
    "error", domain_errors(without=TOLD_BY_A_PARAMETER), ids=lambda error: type(error).__name__
)
def test_every_error_of_the_domain_ends_a_command_with_a_message(error):
    with pytest.raises(click.ClickException), reported():
        raise error
