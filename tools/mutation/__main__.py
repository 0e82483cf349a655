"""Change a file line by line, and print the changes that no test notices.

`make mutants FILE=app/…`, or several files; with TESTS=tests/… it runs only these tests. It works
in a copy of the repository. A first run of the tests records which test runs which line. Then it
makes one change at a time, and runs the tests of its line, the fastest first, until one fails.

tools/mutation/equivalent.toml lists the changes that no test can notice.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from time import monotonic

import psycopg
from coverage import CoverageData
from psycopg.sql import SQL, Identifier

from tests.conftest import new_postgres
from tools.mutation.mutations import Mutant, mutants

_EQUIVALENT = Path("tools/mutation/equivalent.toml")
_SLOW = ("browser", "clients", "contract", "dev", "examples")
_WIDE_SECONDS = 60  # how long to try tests on a line that may affect any of them
_NO_TESTS = 5  # pytest's exit status
_TIMEOUT_SECONDS = 30  # in addition to twice the time that the tests usually take


@dataclass(frozen=True)
class Copy:
    """A copy of the repository, with its own Python, which imports the project from the copy."""

    root: Path
    postgres_uri: str

    def pytest(self, *arguments: str, timeout: float | None = None) -> int | None:
        """Run pytest on an empty Postgres and return its exit status, or None if it hangs."""
        self._drop_databases()
        plugins = ["-p", "tools.mutation.pytest_plugin", "-p", "no:schemathesis"]  # slow to import
        environment = os.environ | {
            "TESTS_POSTGRES_URI": self.postgres_uri,
            "TMPDIR": str(self.root.parent / "tmp"),
        }
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [self.root / ".venv/bin/python", "-m", "pytest", "-q", *plugins, *arguments],
                cwd=self.root,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # lets the tests stop what they started
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def notices(self, tests: list[str], seconds: dict[str, float]) -> bool:
        """Tell whether one of the tests fails, or hangs."""
        if not tests:
            return False
        choice = self.root.parent / "choice.json"
        choice.write_text(json.dumps({"chosen": tests, "known": list(seconds)}))
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        timeout = _TIMEOUT_SECONDS + 2 * sum(seconds[test] for test in tests)
        status = self.pytest("-x", "--choose", str(choice), *files, timeout=timeout)
        return status not in (0, _NO_TESTS)

    @property
    def output(self) -> Path:
        return self.root.parent / "output"

    def _drop_databases(self) -> None:
        with psycopg.connect(self.postgres_uri, autocommit=True) as connection:
            query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> %s"
            for (name,) in connection.execute(query, ["postgres"]).fetchall():
                statement = SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name))
                connection.execute(statement)


@contextmanager
def copied_repository() -> Iterator[Copy]:
    with (
        tempfile.TemporaryDirectory(prefix="mut-", ignore_cleanup_errors=True) as directory,
        new_postgres(fsync="off") as uri,
    ):
        root = Path(directory).resolve() / "copy"
        (root.parent / "tmp").mkdir()
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listing, text=True).split("\0"):
            if Path(name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(name, root / name)
        _make_environment(root)
        yield Copy(root, uri)


def _make_environment(root: Path) -> None:
    """Give the copy our packages and commands, but not the project that is installed here."""
    venv.create(root / ".venv", symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root / ".venv")}))
    # The .pth files of our packages are not read, so the editable project stays out.
    (packages / "copy.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    ours = Path(sys.executable).parent
    for command in ours.iterdir():
        text = command.read_bytes() if command.is_file() else b""
        if text.startswith(f"#!{ours}/".encode()):
            theirs = root / ".venv/bin" / command.name
            theirs.write_bytes(text.replace(str(ours).encode(), str(theirs.parent).encode(), 1))
            theirs.chmod(0o755)


class Trace:
    """Which tests run which lines, and how long each test takes."""

    def __init__(self, copy: Copy, tests: list[str]) -> None:
        self._copy = copy
        note = copy.root.parent / "seconds.json"
        chosen = tests or [f"--ignore=tests/{name}" for name in _SLOW]
        options = ("--cov", "--cov-report=", "--cov-context=test", "-p", "no:cacheprovider")
        status = copy.pytest(*options, "--note", str(note), *chosen)
        if not note.exists():
            sys.exit(f"The tests do not run:\n{copy.output.read_text()}")
        self.seconds: dict[str, float] = json.loads(note.read_text())
        if status:
            print("Some tests fail on the unchanged code. They are left out:")
            print("\n".join(copy.output.read_text().splitlines()[-20:]))
        self._data = CoverageData(str(copy.root / ".coverage"))
        self._data.read()

    def tests(self, name: str, mutant: Mutant) -> list[str]:
        """Return the tests that may notice the change: those that run the line, fastest first.

        A line that runs on import, or once for many tests, may affect any test. Then all others
        follow, even those that run nothing else in the file, until their time is up.
        """
        found = self._found(name, mutant)
        direct = self._passing(found)
        if not self._is_wide(found):
            return self._fastest(direct)
        tests = [*self._fastest(direct), *self._fastest(self.seconds.keys() - direct)]
        spent = accumulate(self.seconds[test] for test in tests)
        return [
            test
            for test, seconds in zip(tests, spent, strict=True)
            if test in direct or seconds < _WIDE_SECONDS
        ]

    def verdict(self, name: str, mutant: Mutant, tests: list[str]) -> str:
        if not tests:
            return "no test runs it"
        left_out = len(self.seconds) - len(tests) if self._is_wide(self._found(name, mutant)) else 0
        slower = f"; {left_out} slower ones were not tried" if left_out else ""
        return f"none of {len(tests)} tests noticed{slower}"

    def _is_wide(self, contexts: set[str]) -> bool:
        return any(context == "" or context.endswith("|setup") for context in contexts)

    def _found(self, name: str, mutant: Mutant) -> set[str]:
        lines = self._contexts(name)
        return {context for line in mutant.statement for context in lines.get(line, [])}

    def _contexts(self, name: str) -> dict[int, list[str]]:
        path = str(self._copy.root / name)
        if path not in self._data.measured_files():
            sys.exit(f"No test imports {name}.")
        return self._data.contexts_by_lineno(path)

    def _passing(self, contexts: set[str]) -> set[str]:
        return {context.rpartition("|")[0] for context in contexts} & self.seconds.keys()

    def _fastest(self, tests: set[str]) -> list[str]:
        return sorted(tests, key=lambda test: self.seconds[test])


def try_file(copy: Copy, trace: Trace, name: str, equivalent: list[dict[str, str]]) -> int:
    """Print the changes to the file that no test notices, and return how many there are."""
    path = copy.root / name
    original = path.read_bytes()
    start = monotonic()
    everything = list(mutants(original))
    killed = survived = 0
    stale = list(equivalent)
    for number, mutant in enumerate(everything, 1):
        tests = trace.tests(name, mutant)
        _write(path, mutant.text, number)
        if copy.notices(tests, trace.seconds):
            killed += 1
        elif marks := [entry for entry in equivalent if _marks(entry, mutant)]:
            stale = [entry for entry in stale if entry not in marks]
        else:
            survived += 1
            print(f"{name}:{mutant.line}  {trace.verdict(name, mutant, tests)}")
            print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
        if number % 10 == 0:
            print(f"… {number} of {len(everything)}", file=sys.stderr, flush=True)
    _write(path, original, len(everything) + 1)
    # A test that now fails for another reason would kill every mutant.
    if copy.pytest("--last-failed", "--last-failed-no-failures=none") not in (0, _NO_TESTS):
        sys.exit(f"A test fails on the unchanged file too:\n{copy.output.read_text()}")
    for entry in stale:
        print(f"{_EQUIVALENT}: no surviving mutant matches this entry any more: {entry}")
    print(
        f"{name}: {len(everything)} mutants, {killed} killed, {survived} survived, "
        f"{len(everything) - killed - survived} equivalent, in {monotonic() - start:.0f} s"
    )
    return survived


def _marks(entry: dict[str, str], mutant: Mutant) -> bool:
    return (entry["line"], entry.get("becomes", mutant.after)) == (mutant.before, mutant.after)


def _write(path: Path, text: bytes, number: int) -> None:
    """Write the file with a new time; otherwise Python might run an earlier compiled version."""
    path.write_bytes(text)
    os.utime(path, (number, number))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended from outside"))  # and so cleans up
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--tests", default="", help="the tests to try, instead of all quick ones")
    arguments = parser.parse_args()
    equivalent = tomllib.loads(_EQUIVALENT.read_text())
    with copied_repository() as copy:
        trace = Trace(copy, arguments.tests.split())
        files = arguments.files
        survived = [try_file(copy, trace, name, equivalent.get(name, [])) for name in files]
    return int(any(survived))


if __name__ == "__main__":
    sys.exit(main())
