"""`credentials leaked`: from a client secret alone to its credential, and its end."""

import json

import pytest

from app.credentials.generator import generate_client_secret, hint_of
from tests.conftest import environment
from tests.helpers import caller, is_live, typo_of

OTHER_KEY = b"n" * 32


def leaked(run, *secrets, options=("--json",), **changes):
    return run("leaked", *options, stdin="\n".join(secrets), **changes)


def leaks(rows):
    return rows("SELECT * FROM credential_events WHERE event = 'leaked' ORDER BY event_id")


def test_it_leads_from_a_client_secret_to_its_credential(run, service, issued, rows):
    other = service.issue(caller("unit_emea"), name="Shop")
    rows.execute(
        "UPDATE client_secrets SET last_used_at = '2025-06-03T09:30:00Z', "
        "last_used_from = '192.0.2.7'"
    )
    done = leaked(run, issued.client_secret, generate_client_secret(), other.client_secret)
    assert done.returncode == 0
    first, unknown, second = json.loads(done.stdout)
    assert first == {
        "hint": hint_of(issued.client_secret),
        "status": "live",
        "unit_id": "unit_demo",
        "secret_id": issued.secret_id,
        "client_id": issued.client_id,
        "name": issued.name,
        "last_used_at": "2025-06-03T09:30:00Z",
        "last_used_from": "192.0.2.7",
        "ended_at": None,
    }
    assert (unknown["status"], unknown["secret_id"]) == ("not_live", None)
    assert (second["unit_id"], second["name"]) == ("unit_emea", "Shop")
    assert is_live(rows, issued.client_secret)
    assert leaks(rows) == []


def test_people_get_a_table_without_the_client_secrets(run, issued):
    lines = (issued.client_secret, generate_client_secret(), "x")
    done = leaked(run, *lines, options=())
    for text in ("unit_demo", issued.secret_id, issued.name, "live", "no live client secret"):
        assert text in done.stdout
    for each in lines[:2]:
        assert each not in done.stdout + done.stderr


def test_a_line_that_is_not_a_client_secret_is_told_at_the_end(run, issued, rows):
    typo = typo_of(issued.client_secret)
    options = ("--json", "--end", "--yes")
    done = leaked(run, "", typo, f"  {issued.client_secret}\r", issued.client_id, options=options)
    assert done.returncode == 1
    assert "Not a client secret: number 1, 3 of 3." in done.stderr
    assert typo not in done.stdout + done.stderr
    assert [each["status"] for each in json.loads(done.stdout)] == [
        "malformed", "ended", "malformed",
    ]  # fmt: skip
    assert not is_live(rows, issued.client_secret)


def test_end_ends_what_is_live_and_leaves_an_event(run, issued, rows):
    secrets = [issued.client_secret, issued.client_secret, generate_client_secret()]
    done = leaked(run, *secrets, options=("--end", "--yes", "--json", "--actor", "grace"))
    assert done.returncode == 0
    assert [each["status"] for each in json.loads(done.stdout)] == ["ended", "ended", "not_live"]
    assert rows.count("client_secrets") == 0
    [event] = leaks(rows)
    assert (event["actor"], event["via"], event["address"]) == ("grace", "cli", None)
    assert event["detail"] == {"hint": hint_of(issued.client_secret), "ended": True}
    [again] = json.loads(
        leaked(run, issued.client_secret, options=("--end", "--yes", "--json")).stdout
    )
    assert (again["status"], again["secret_id"]) == ("ended", issued.secret_id)
    assert again["ended_at"] is not None
    assert f"ended on {again['ended_at']}" in leaked(run, issued.client_secret, options=()).stdout
    assert len(leaks(rows)) == 1


def test_end_asks_before_it_ends_anything(run, issued, rows):
    done = leaked(run, issued.client_secret, options=("--end",))
    assert done.returncode == 2
    assert "Confirm with --yes" in done.stderr
    assert is_live(rows, issued.client_secret)


def test_nothing_to_end_needs_no_confirmation(run, rows):
    done = leaked(run, generate_client_secret(), options=("--end", "--json"))
    assert done.returncode == 0


@pytest.mark.parametrize("stdin", ["", "\n \n"])
def test_no_client_secret_at_all_is_a_usage_error(run, rows, stdin):
    done = run("leaked", stdin=stdin)
    assert done.returncode == 2
    assert "Write each client secret to a line of standard input." in done.stderr


@pytest.mark.parametrize("loss", ["key", "digest"])
def test_without_a_digest_bcrypt_finds_it(run, service, settings, issued, rows, loss):
    other = service.issue(caller(), name="other")
    changes = {}
    if loss == "key":
        changes = {"DIGEST_KEY": environment(settings, digest_keys=(OTHER_KEY,))["DIGEST_KEY"]}
    else:
        rows.execute("UPDATE client_secrets SET digest = NULL")
    # a client secret with the same hint is another one
    rows.execute("UPDATE client_secrets SET hint = %(hint)s", hint=hint_of(issued.client_secret))
    lines = (issued.client_secret, generate_client_secret())
    done = leaked(run, *lines, options=("--json", "--end", "--yes"), **changes)
    assert [each["status"] for each in json.loads(done.stdout)] == ["ended", "not_live"]
    [left] = rows("SELECT secret_id FROM client_secrets")
    assert left["secret_id"] == other.secret_id


def test_a_previous_digest_key_finds_it_too(run, settings, issued):
    keys = (OTHER_KEY, *settings.digest_keys)
    variables = environment(settings, digest_keys=keys)
    done = leaked(run, issued.client_secret, DIGEST_KEY=variables["DIGEST_KEY"])
    assert [each["status"] for each in json.loads(done.stdout)] == ["live"]


def test_an_end_is_applied_again_after_a_restore(run, service, issued, rows):
    """The restored database has the client secret, and the trail has its end."""
    follow = ("events", "--unit", "unit_demo", "--json")
    kept = rows("SELECT * FROM client_secrets")[0]
    leaked(run, issued.client_secret, options=("--end", "--yes"))
    events = json.loads(run(*follow).stdout)
    columns = ", ".join(kept)
    values = ", ".join(f"%({name})s" for name in kept)
    rows.execute(
        f"INSERT INTO client_secrets ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})",
        **kept,
    )
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER USER")
    rows.execute("DELETE FROM credential_events WHERE event = 'leaked'")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER USER")
    assert is_live(rows, issued.client_secret)
    done = run("reapply-revocations", stdin=json.dumps(events))
    assert done.returncode == 0, done.stderr
    assert "ended 1 client secret" in done.stdout
    assert not is_live(rows, issued.client_secret)
