"""`make env`: print the shell commands with which `credentials` works on a running `make run`."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from app.settings import CREDENTIAL_VARIABLES, SECRET_FILES

_READ = CREDENTIAL_VARIABLES | set(SECRET_FILES.values())
_PREFIX = "JWT_"  # `credentials token check` reads these too


def main() -> None:
    """Print the commands for the `make run` that uses the directory in the first argument."""
    commands = _running_commands(Path(sys.argv[1]) / "env")
    if commands is None:
        sys.exit("make env: the service does not run here; start it in another terminal: make run")
    print(commands, end="")


@contextmanager
def published(path: Path) -> Iterator[None]:
    """Keep the commands that set this process's environment in a file.

    The file is locked while they are valid. A second `make run`, on another database, writes none.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield
            return
        file.truncate()
        file.write(_commands())
        file.flush()
        try:
            yield
        finally:
            path.unlink()


def _commands() -> str:
    given = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in _READ or name.startswith(_PREFIX)
    }
    lines = [f"export {name}={quote(value)}\n" for name, value in given.items()]
    programs = quote(str(Path(sys.executable).parent))
    return "".join([*lines, f'export PATH={programs}:"$PATH"\n'])


def _running_commands(path: Path) -> str | None:
    """Return the commands if the `make run` that wrote them still runs, and so holds the lock."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return path.read_text()
    return None  # a killed `make run` left the file behind


if __name__ == "__main__":
    main()
