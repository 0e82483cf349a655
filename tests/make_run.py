"""`make run`, without the set-up that comes before every target."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running_server import HANG_SECONDS, ROOT, clean_environment, free_port, wait_until


class Run:
    """A process of `make run` and its output."""

    def __init__(self, var: Path, **settings: str) -> None:
        self.var = var
        self._output = var.parent / f"{var.name}-{free_port()}.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.dev.run", str(var)],
                cwd=ROOT,
                env=clean_environment() | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def printed(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.printed() or self.process.poll() is not None)
        assert text in self.printed(), self.printed()


@contextmanager
def running(var: Path, **settings: str) -> Iterator[Run]:
    run = Run(var, **{"PORT": str(free_port()), "WEB_CONCURRENCY": "1"} | settings)
    try:
        run.wait_for("Ctrl-C stops it.")
        yield run
    finally:
        run.process.terminate()
        run.process.wait(HANG_SECONDS)
