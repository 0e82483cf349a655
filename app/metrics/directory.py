"""The directory where the worker processes share their metrics.

prometheus-client keeps files for each process there. gunicorn's hooks call these functions.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from prometheus_client.multiprocess import mark_process_dead

_PREFIX = "leadvibe-metrics-"

_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")  # a file for each
_FILE_BYTES = 256 * 1024  # more than all series of a process need

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerFiles:
    """The files of one worker process.

    A new worker takes the number of a worker that has ended, and continues its files. So no counts
    are lost, and the files do not grow in number with each restart.
    """

    directory: Path
    number: int

    def prepare(self) -> None:
        """Make the files that are missing, at their full size. Raises OSError if the disk is full.

        prometheus-client would let them grow as it writes. On a full disk that would kill the
        process, and other processes could read an unfinished file.
        """
        for kind in _KINDS:
            path = self.directory / f"{kind}_{self.number}.db"
            if not path.exists():
                unfinished = path.with_suffix(".new")
                with unfinished.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
                unfinished.rename(path)

    def become_leader(self) -> bool:
        """Try to become the process that does the shared work. Return False if another one does it.

        Do not call it again once it has returned True. The lock is released when the process ends.
        """
        lock = os.open(self.directory / "leader", os.O_RDWR | os.O_CREAT, 0o600)
        if _try_lock(lock):
            return True
        os.close(lock)
        return False

    def remove_gauges(self) -> None:
        """Remove the gauges, which are true only while the process lives."""
        mark_process_dead(self.number, str(self.directory))  # type: ignore[no-untyped-call]  # theirs


class MetricsDirectory:
    """A temporary directory for the life of a gunicorn master.

    The master and its workers hold a lock on it. So a new master can tell which directories were
    left behind by killed masters, and removes them. systemd-tmpfiles, which removes old files,
    leaves a locked directory alone.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self._path = path
        self._lock = lock

    @classmethod
    def make(cls) -> Self:
        """Make an empty directory that only this user can enter (mkdtemp)."""
        _remove_abandoned()
        while True:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            lock = _open_and_lock(path)
            if lock is not None and path.exists():
                return cls(path, lock)

    def worker_files(self, taken: Iterable[WorkerFiles | None]) -> WorkerFiles | None:
        """Return the files with the lowest number that is free, or None if the disk is full.

        A process without files still serves, but shows only its own metrics.
        """
        numbers = {each.number for each in taken if each is not None}
        files = WorkerFiles(self._path, next(each for each in count() if each not in numbers))
        try:
            files.prepare()
        except OSError as error:
            _logger.warning("a process cannot share its metrics: %s", error.strerror)
            return None
        return files

    def remove(self) -> None:
        """Remove the directory, once all workers have ended."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if path.lstat().st_uid == os.geteuid() and not path.is_symlink():
            lock = _open_and_lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _open_and_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None if the path is gone or somebody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if _try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
