"""Peers: other software that checks keys, each with its nearest equivalent of a verification.

Each folder here has a peer's pinned packages, its server, and a script that fills its database. The
script makes keys with the peer's own functions, adds many similar rows, and prints the keys as
JSON. The packages are installed in var/bench/peers, apart from the service's own.
"""

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data import PAIRS, libpq_variables
from bench.load import Request, Requests
from bench.servers import ROOT, Command

ROWS = 100_000

_SOURCES = Path(__file__).parent
_INSTALLED = ROOT / "var" / "bench" / "peers"
_RESOURCE_SERVER = "Basic " + b64encode(b"resource-server:resource-server-secret").decode()


@dataclass(frozen=True)
class Peer(ABC):
    """How to ask a peer about a key, and what it does and does not do in comparison."""

    name: str
    title: str
    packages: tuple[str, ...]
    does: str
    does_not: str
    request: Callable[[str], Request]
    contains: str

    @abstractmethod
    def install(self) -> None:
        """Install the pinned packages, unless they are already installed."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the pinned version of each package."""

    @abstractmethod
    def command(self, database_url: str) -> Command:
        """Return the command that starts one process of it."""

    @abstractmethod
    def _fill_command(self) -> list[str]: ...

    def fill(self, database_url: str) -> list[str]:
        """Fill the empty database, and return some valid keys. Exits if that fails."""
        run = subprocess.run(
            [*self._fill_command(), str(ROWS), str(PAIRS)],
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], **libpq_variables(database_url)},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            sys.exit(f"make bench: the database of {self.name} was not filled.\n{run.stderr}")
        return json.loads(run.stdout)

    def requests(self, keys: list[str]) -> Requests:
        """Return the requests that ask about the keys."""
        return Requests(self.name, [self.request(key) for key in keys], contains=self.contains)

    @property
    def _source(self) -> Path:
        return _SOURCES / self.name

    @property
    def _directory(self) -> Path:
        """The directory with its packages and a copy of its source."""
        return _INSTALLED / self.name

    def _is_current(self, lock: str) -> bool:
        """Copy the source, and tell whether the installed packages are those of the lock file."""
        ready = self._directory / ".ready"
        shutil.copytree(self._source, self._directory, dirs_exist_ok=True)
        return ready.exists() and ready.read_text() == (self._source / lock).read_text()

    def _mark_current(self, lock: str) -> None:
        shutil.copy(self._source / lock, self._directory / ".ready")


class PythonPeer(Peer):
    """A peer under gunicorn's own worker with four threads, in a virtual environment."""

    def install(self) -> None:
        if self._is_current("requirements.txt"):
            return
        environment = self._directory / "env"
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", environment])
        subprocess.check_call(
            [
                *(environment / "bin" / "pip", "install", "-qq", "--disable-pip-version-check"),
                *("--require-hashes", "-r", self._source / "requirements.txt"),
            ]
        )
        self._mark_current("requirements.txt")

    def versions(self) -> dict[str, str]:
        lines = (self._source / "requirements.txt").read_text().splitlines()
        pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
        return {package: pins[package] for package in self.packages}

    def command(self, database_url: str) -> Command:
        return Command(
            name=self.name,
            arguments=[
                str(self._directory / "env" / "bin" / "gunicorn"),
                "service:application",
                "--worker-class=gthread",
                "--threads=4",
                "--bind=127.0.0.1:$PORT",
                "--no-control-socket",
            ],
            environment=libpq_variables(database_url),
            directory=self._directory,
        )

    def _fill_command(self) -> list[str]:
        return [str(self._directory / "env" / "bin" / "python"), "fill.py"]


class NodePeer(Peer):
    """A peer in one process of Node.js."""

    def install(self) -> None:
        if self._is_current("package-lock.json"):
            return
        shutil.copy(ROOT / ".npmrc", self._directory)
        subprocess.check_call(
            ["npm", "ci", "--loglevel=error"], cwd=self._directory, stdout=subprocess.DEVNULL
        )
        self._mark_current("package-lock.json")

    def versions(self) -> dict[str, str]:
        pins = json.loads((self._source / "package.json").read_text())["dependencies"]
        return {package: pins[package] for package in self.packages}

    def command(self, database_url: str) -> Command:
        return Command(
            name=self.name,
            arguments=["node", "service.mjs"],
            environment={"NODE_ENV": "production", **libpq_variables(database_url)},
            directory=self._directory,
        )

    def _fill_command(self) -> list[str]:
        return ["node", "fill.mjs"]


def _introspection(path: str, body: str) -> Request:
    headers = {
        "Authorization": _RESOURCE_SERVER,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return Request(path, headers, method="POST", body=body)


PEERS: list[Peer] = [
    PythonPeer(
        name="drf_api_key",
        title="djangorestframework-api-key",
        packages=("djangorestframework-api-key", "django"),
        does="finds the key by its prefix through Django's ORM, compares its SHA-512 in constant "
        "time, and checks revocation and expiry; a plain Django view without middleware",
        does_not="record the use, count failures, write a log line or tell whose key it is",
        request=lambda key: Request("/check", {"Authorization": f"Api-Key {key}"}),
        contains='"valid": true',
    ),
    NodePeer(
        name="better_auth",
        title="better-auth's API-key plugin",
        packages=("better-auth", "@better-auth/api-key"),
        does="finds the key by its SHA-256, checks whether it is enabled, its expiry and its "
        "remaining uses, and updates its row, so that each verification waits for a commit; "
        "node:http without a framework",
        does_not="count failures or write a log line; its rate limit, by default ten requests a "
        "day for a key, is off",
        request=lambda key: Request("/", {"X-Api-Key": key}),
        contains='"valid":true',
    ),
    NodePeer(
        name="oidc_provider",
        title="oidc-provider's token introspection",
        packages=("oidc-provider",),
        does="authenticates the resource server from its configuration, finds the opaque token by "
        "its ID and checks its expiry; Postgres through an adapter of forty lines",
        does_not="hash the token, record the use, count failures or write a log line",
        request=lambda key: _introspection(
            "/token/introspection", f"token={key}&token_type_hint=client_credentials"
        ),
        contains='"active":true',
    ),
    PythonPeer(
        name="django_oauth_toolkit",
        title="django-oauth-toolkit's token introspection",
        packages=("django-oauth-toolkit", "django"),
        does="authenticates the resource server from the database, finds the token by its SHA-256 "
        "through Django's ORM, and checks its expiry; no middleware",
        does_not="record the use, count failures or write a log line; the resource server's secret "
        "is kept in plain text, because its default, PBKDF2, takes longer than all the rest",
        request=lambda key: _introspection("/o/introspect/", f"token={key}"),
        contains='"active": true',
    ),
]
