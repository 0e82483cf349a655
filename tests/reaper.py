"""End what a run of the tests leaves behind, even if it is killed.

Everything that a run starts inherits a TMPDIR of its own. A process outside of the run, the reaper,
waits for its end. Then it ends all processes with this TMPDIR, and removes the directory.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import psutil

_STOP_SECONDS = 30


@contextmanager
def reaper() -> Iterator[Path]:
    """Give this process and its children their own TMPDIR, and clean up at the end."""
    directory = tempfile.mkdtemp(prefix="lv-tests-")
    Path(directory).chmod(0o711)  # as root, Postgres runs as another user
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reaper", directory],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        start_new_session=True,  # so that no signal to the run reaches it
    )
    os.environ["TMPDIR"] = directory
    tempfile.tempdir = directory
    try:
        yield Path(directory)
    finally:
        process.communicate()


def _main() -> None:
    directory = sys.argv[1]
    sys.stdin.read()  # ends with the run, however that ends
    while processes := _processes(directory):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)  # Postgres and gunicorn disconnect their clients
        _, remaining = psutil.wait_procs(processes, _STOP_SECONDS)
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    rmtree(directory, ignore_errors=True)


def _processes(directory: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(directory):
                found.append(process)
    return found


if __name__ == "__main__":
    _main()
