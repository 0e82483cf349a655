"""An interrupted run of the tests leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.running_server import HANG_SECONDS, ROOT, clean_environment, wait_until

pytestmark = pytest.mark.long

ENDLESS = """
from pathlib import Path
from time import sleep

def test_endless(server):
    Path({ready!r}).touch()
    sleep({seconds})
"""


def processes_with(directory):
    """Return the command line of each process that uses the directory for temporary files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(directory)):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.fixture
def temporary():
    """A directory with a short path, because Postgres keeps a socket in it."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.fixture(autouse=True)
def _heed_sigint():
    """Undo what the shell does for a run in the background: its children would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path, temporary, number, workers):
    ready = tmp_path / "ready"
    test = ROOT / "tests" / f"test_endless_{os.getpid()}.py"
    test.write_text(ENDLESS.format(ready=str(ready), seconds=HANG_SECONDS * 10))
    try:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", test],
            cwd=ROOT,
            env=clean_environment() | {"TMPDIR": str(temporary)},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: ready.exists() or run.poll() is not None)
        names = " ".join(part for each in processes_with(temporary) for part in each)
        assert "gunicorn" in names
        assert "postgres" in names
        if number == signal.SIGINT:  # as from a terminal
            os.killpg(run.pid, number)
        else:
            run.send_signal(number)
        run.wait(HANG_SECONDS)
    finally:
        test.unlink()
    wait_until(lambda: not processes_with(temporary))
    wait_until(lambda: not list(temporary.iterdir()))
