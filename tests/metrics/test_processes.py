"""The metrics of several processes, which share a directory."""

import os
import signal
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from app.metrics.directory import MetricsDirectory
from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic
from tests.metrics.reading import values_in
from tests.running_server import HANG_SECONDS, running_server, wait_until

ACCEPTED = 'leadvibe_verifications_total{outcome="accepted"}'
PLACES = 'leadvibe_places{work="verification"}'


@pytest.fixture
def start(settings, tmp_path):
    """Return a context manager that runs the service in two processes."""

    @contextmanager
    def start(worker_class="fastpath"):
        changed = environment(settings, web_concurrency=2, worker_class=worker_class)
        with running_server(changed | {"TMPDIR": str(tmp_path)}) as server:
            wait_until(lambda: read(server).get(PLACES) == 8)
            yield server

    return start


def read(server):
    answer = server.request("GET", "/metrics")
    assert answer.status == 200
    return values_in(answer.body.decode())


def directories(tmp_path):
    return list(tmp_path.glob("leadvibe-metrics-*"))


def workers(server):
    return psutil.Process(server.process.pid).children()


def verify(server, issued, times):
    pair = basic(issued.client_id, issued.client_secret)
    for _ in range(times):
        wait_until(lambda: server.request("GET", "/verify", **pair).status == 200)


def replace_workers(server):
    """Let gunicorn replace its workers, and wait until it has."""
    before = {each.pid for each in workers(server)}
    server.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: len(workers(server)) == 2 and not before & {each.pid for each in workers(server)}
    )


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_the_counts_are_those_of_all_processes(start, issued, worker_class):
    with start(worker_class) as server:
        verify(server, issued, 40)
        wait_until(lambda: read(server)[ACCEPTED] == 40)
        assert read(server)["leadvibe_database_pool_size"] == 18


def test_only_the_user_can_enter_the_directory(start, tmp_path):
    with start():
        (directory,) = directories(tmp_path)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_counters_outlive_their_process_and_gauges_do_not(start, issued, tmp_path):
    with start() as server:
        verify(server, issued, 20)
        wait_until(lambda: read(server)[ACCEPTED] == 20)
        (directory,) = directories(tmp_path)
        replace_workers(server)
        wait_until(lambda: read(server)[PLACES] == 8)
        wait_until((directory / "leader").exists)  # made a second after the start
        most = len(list(directory.iterdir()))
        for _ in range(2):
            replace_workers(server)
        verify(server, issued, 20)
        wait_until(lambda: read(server)[ACCEPTED] == 40)
        wait_until(lambda: read(server)[PLACES] == 8)
        assert len(list(directory.iterdir())) <= most, "the files do not grow in number"


def test_a_worker_that_is_killed_leaves_no_files_behind(start, issued, tmp_path):
    with start() as server:
        verify(server, issued, 20)
        wait_until(lambda: read(server)[ACCEPTED] == 20)
        (directory,) = directories(tmp_path)
        wait_until((directory / "leader").exists)  # made a second after the start
        before = sorted(each.name for each in directory.iterdir())
        for _ in range(3):
            killed = workers(server)[0]
            killed.kill()
            wait_until(lambda killed=killed: killed not in workers(server))
            wait_until(lambda: len(workers(server)) == 2)
            wait_until(lambda: read(server)[PLACES] == 8)
        assert read(server)[ACCEPTED] == 20
        assert sorted(each.name for each in directory.iterdir()) == before


def test_a_stop_leaves_no_directory_behind(start, tmp_path):
    with start() as server:
        assert directories(tmp_path)
        server.process.terminate()
        server.process.wait(HANG_SECONDS)
    assert directories(tmp_path) == []


def test_the_next_start_removes_what_a_killed_service_left_behind(start, tmp_path):
    with start() as server:
        (left_behind,) = directories(tmp_path)
        orphans = workers(server)
        server.process.kill()
        psutil.wait_procs(orphans, HANG_SECONDS)
    assert directories(tmp_path) == [left_behind]
    with start():
        (directory,) = directories(tmp_path)
        assert directory != left_behind


def test_two_services_on_one_machine_keep_their_metrics_apart(start, issued, tmp_path):
    with start() as one, start() as other:
        assert len(directories(tmp_path)) == 2
        verify(one, issued, 5)
        wait_until(lambda: read(one)[ACCEPTED] == 5)
        assert read(other)[ACCEPTED] == 0


def test_one_process_counts_the_client_secrets_that_expire_soon(start, issued, rows):
    rows.execute("UPDATE client_secrets SET expires_at = now() + interval '3 days'")
    series = 'leadvibe_client_secrets_ending{within_days="7"}'
    with start() as server:
        wait_until(lambda: read(server).get(series) == 1)
        workers(server)[0].kill()
        wait_until(lambda: len(workers(server)) == 2 and read(server).get(series) == 1)


def test_the_service_serves_even_if_the_disk_is_full(settings, issued, tmp_path):
    resource = pytest.importorskip("resource")
    too_little = (100 * 1024, resource.RLIM_INFINITY)
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, too_little)  # gunicorn inherits it
        with running_server(environment(settings) | {"TMPDIR": str(tmp_path)}) as server:
            verify(server, issued, 3)
            assert read(server)[ACCEPTED] == 3
            assert any("cannot share its metrics" in line["message"] for line in server.log())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_directories_of_other_users_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign, link = tmp_path / "leadvibe-metrics-foreign", tmp_path / "leadvibe-metrics-link"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    kept = tmp_path / "kept"
    kept.mkdir()
    link.symlink_to(kept)
    own = MetricsDirectory.make()
    assert foreign.exists()
    assert kept.exists()
    own.remove()
    assert {each.name for each in Path(tmp_path).iterdir()} == {foreign.name, link.name, "kept"}
