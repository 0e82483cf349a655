"""Run the cluster on this machine: the files of deploy/cluster with other addresses and ports.

All files are in a temporary directory, and all servers listen on free ports of 127.0.0.1. Postgres
refuses to run as root, so if we are root, everything but the service runs as Debian's `postgres`.
"""

import json
import os
import random
import re
import secrets
import shutil
import socket
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import psycopg

from app.database.migrations import migrate
from drills.nginx import nginx
from drills.service import (
    CannotRun,
    Client,
    await_start,
    connect,
    new_digest_key,
    running,
    start,
)
from tests.helpers import service_role
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.running_server import free_port

ROOT = Path(__file__).parents[2]
_FILES = ROOT / "deploy" / "cluster"
NEEDED = ("patroni", "etcd", "haproxy", "pgbouncer", "nginx")
INSTALL = (
    "apt-get install --no-install-recommends "
    "postgresql patroni etcd-server python3-etcd haproxy pgbouncer nginx-light"
)

_PATH = f"{os.environ['PATH']}:/usr/sbin"
_POSTGRES_PROGRAMS = "/usr/lib/postgresql/15/bin"  # Debian 12's
_NAMES = ("db1", "db2", "db3")
_ADDRESSES = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
_MACHINE_PORTS = (5432, 8008, 2379, 2380)
_SERVER_PORTS = range(20_000, 32_000)  # below those that Linux gives to clients
_START_SECONDS = 120.0
_ANSWER_SECONDS = 1.0
_FIRST_CHECKS_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


def missing_programs() -> list[str]:
    """Return the names of the needed programs that are not installed."""
    missing = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
    return missing + ([] if Path(_POSTGRES_PROGRAMS).is_dir() else ["postgresql"])


def render(file: str, replaced: dict[str, str]) -> str:
    """Return a file of deploy/cluster with each text replaced. Raises CannotRun without a match."""
    text = (_FILES / file).read_text()
    for stated, actual in replaced.items():
        if stated not in text:
            raise CannotRun(f"{file} has no {stated!r}")
        text = text.replace(stated, actual)
    return text


@dataclass
class Machine:
    """One of the three machines: etcd, Patroni and its Postgres, in their own directory."""

    name: str
    directory: Path
    api_port: int
    commands: dict[str, list[str | Path]]
    environment: dict[str, str]
    user: str | None
    _processes: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Start etcd and Patroni, which starts Postgres."""
        self._processes = [
            start(
                command,
                self.directory / f"{name}.log",
                cwd=self.directory,
                env=self.environment,
                user=self.user,
            )
            for name, command in self.commands.items()
        ]

    def is_primary(self) -> bool:
        """Ask Patroni whether it is the primary, as HAProxy does."""
        return self.ask("OPTIONS", "/primary")[0] == 200

    def ask(
        self, method: str, path: str, *, seconds: float = _ANSWER_SECONDS, **sent: Any
    ) -> tuple[int, bytes]:
        """Ask Patroni, and return the status of its answer (0 if there is none) and its body."""
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=seconds)
        try:
            connection.request(method, path, **sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def crash_postgres(self) -> None:
        """Kill Postgres alone, as the kernel's out-of-memory killer would."""
        _signal(self._postgres(), "kill")

    def crash(self) -> None:
        """Kill everything, as when the power fails."""
        # Patroni first, so that it does not start Postgres again
        _signal([*self._ours(), *self._postgres()], "kill")
        for each in self._processes:
            each.wait()

    def freeze(self) -> None:
        """Stop every process where it is, as when a virtual machine is moved."""
        _signal([*self._ours(), *self._postgres()], "suspend")

    def thaw(self) -> None:
        """Resume every process."""
        _signal([*self._postgres(), *self._ours()], "resume")

    def _ours(self) -> list[psutil.Process]:
        processes = []
        for each in reversed(self._processes):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(each.pid)
                processes += [process, *process.children(recursive=True)]
        return processes

    def _postgres(self) -> list[psutil.Process]:
        """Return Postgres' processes, the postmaster first. It is not a child of Patroni."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            file = self.directory / "data" / "postmaster.pid"
            postmaster = psutil.Process(int(file.read_text().split()[0]))
            if postmaster.name() == "postgres":
                return [postmaster, *postmaster.children(recursive=True)]
        return []


def _signal(processes: list[psutil.Process], verb: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            getattr(process, verb)()


@dataclass
class Cluster:
    """Three machines, the proxies to their primary, and two instances of the service with nginx."""

    machines: list[Machine]
    haproxy_port: int
    pgbouncer_port: int
    instances: list[Client]
    service: Client  # nginx, which leads to the instances
    superuser_url: str = field(repr=False)
    patroni_password: str = field(repr=False)
    settings: dict[str, str] = field(repr=False)  # of the second instance, and of commands

    def primary(self, *, besides: Machine | None = None) -> Machine:
        """Wait until a machine other than `besides` is the primary, and return it."""
        return _primary(self.machines, besides)

    def synchronous_standby(self) -> Machine:
        """Return the machine that confirms commits."""
        roles = {each["name"]: each["role"] for each in self._members()}
        return next(each for each in self.machines if roles.get(each.name) == "sync_standby")

    def await_health(self) -> None:
        """Wait until there is a primary, a synchronous standby and another one that streams."""
        deadline = monotonic() + _START_SECONDS
        while not self._is_healthy():
            if monotonic() > deadline:
                raise CannotRun(f"the cluster did not become healthy: {self._members()}")
            sleep(0.5)

    def switch_over(self, source: Machine) -> None:
        """Ask Patroni for another primary, as `patronictl switchover` does."""
        token = b64encode(f"patroni:{self.patroni_password}".encode()).decode()
        status, text = source.ask(
            "POST",
            "/switchover",
            seconds=60,
            body=json.dumps({"leader": source.name}),
            headers={"Authorization": f"Basic {token}"},
        )
        if status != 200:
            raise CannotRun(f"switchover: {status} {text!r}")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the primary as the superuser."""
        return connect(self.superuser_url, connect_timeout=5)

    def _is_healthy(self) -> bool:
        members = self._members()
        roles = sorted(str(each["role"]) for each in members)
        are_running = all(each["state"] in {"running", "streaming"} for each in members)
        return are_running and roles == ["leader", "replica", "sync_standby"]

    def _members(self) -> list[dict[str, Any]]:
        """Return Patroni's list of the machines, empty if none of them answers."""
        for machine in self.machines:
            status, body = machine.ask("GET", "/cluster")
            if status == 200:
                return list(json.loads(body)["members"])
        return []


def _primary(machines: list[Machine], besides: Machine | None = None) -> Machine:
    deadline = monotonic() + _START_SECONDS
    while monotonic() < deadline:
        for machine in machines:
            if machine is not besides and machine.is_primary():
                return machine
        sleep(_PAUSE_SECONDS)
    raise CannotRun("no machine became the primary")


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run the whole cluster. Raises CannotRun if a program is missing or does not start."""
    if missing := missing_programs():
        raise CannotRun(f"missing: {', '.join(missing)}. {INSTALL}")
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="lv-cluster-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        if user is not None:
            shutil.chown(directory, user)
        yield _Builder(directory, user, stack).build()


class _Builder:
    """Writes the files and starts the servers, which the exit stack stops."""

    def __init__(self, directory: Path, user: str | None, stack: ExitStack) -> None:
        self._directory = directory
        self._user = user
        self._stack = stack
        self._passwords = {
            name: secrets.token_hex(16)
            for name in ("SUPERUSER", "REPLICATION", "REWIND", "RESTAPI", "OWNER", "SERVICE")
        }
        # each address and port in the files becomes a port of this machine
        stated = [f"{address}:{port}" for address in _ADDRESSES for port in _MACHINE_PORTS]
        ports = _free_ports(len(stated))
        self._moved = {each: f"127.0.0.1:{port}" for each, port in zip(stated, ports, strict=True)}

    def build(self) -> Cluster:
        machines = [self._machine(*each) for each in zip(_NAMES, _ADDRESSES, strict=True)]
        self._stack.callback(lambda: [each.crash() for each in machines])
        for machine in machines:
            machine.start()
        _primary(machines)
        haproxy_port = self._haproxy(machines)
        superuser_url = self._url("postgres", "SUPERUSER", haproxy_port, database="postgres")
        self._make_database(superuser_url, haproxy_port)
        pgbouncer_port = self._pgbouncer(haproxy_port)
        # one instance through each proxy, so that a drill tries both
        urls = [
            self._url("credentials_service", "SERVICE", port)
            for port in (pgbouncer_port, haproxy_port)
        ]
        issuer = Issuer()
        settings = self._settings(issuer)
        instances = self._instances(urls, settings, issuer)
        (self._directory / "nginx").mkdir()
        self._hand_over(self._directory / "nginx")
        ports = [each.port for each in instances]
        proxy = self._stack.enter_context(nginx(self._directory / "nginx", ports, user=self._user))
        return Cluster(
            machines,
            haproxy_port,
            pgbouncer_port,
            instances,
            Client(proxy.port, issuer),
            self._url("postgres", "SUPERUSER", haproxy_port),
            self._passwords["RESTAPI"],
            settings | {"DATABASE_URL": urls[-1]},
        )

    def _machine(self, name: str, address: str) -> Machine:
        directory = self._directory / name
        directory.mkdir()
        self._hand_over(directory)
        moved = self._moved

        def peers(port: int) -> dict[str, str]:
            return {f"{each}:{port}": moved[f"{each}:{port}"] for each in _ADDRESSES}

        def own(*ports: int) -> dict[str, str]:
            return {f"@ADDRESS@:{port}": moved[f"{address}:{port}"] for port in ports}

        patroni = self._write(
            f"{name}/patroni.yml",
            render(
                "patroni.yml",
                own(8008, 5432)
                | peers(2379)
                | {
                    "@NAME@": name,
                    **{
                        f"@{each}_PASSWORD@": self._passwords[each]
                        for each in ("SUPERUSER", "REPLICATION", "REWIND", "RESTAPI")
                    },
                    "/var/lib/postgresql/15/credentials": f"{directory}/data",
                    "/var/lib/postgresql/credentials.pgpass": f"{directory}/pgpass",
                    # three servers share the machine, and a disk that others use too
                    "unix_socket_directories: /var/run/postgresql": (
                        "unix_socket_directories: ''\n    fsync: 'off'"
                    ),
                    "10.0.0.0/24": "127.0.0.1/32",
                },
            ),
        )
        variables = render(
            "etcd.env",
            own(2379, 2380)
            | peers(2380)
            | {"@NAME@": name, "/var/lib/etcd/credentials": f"{directory}/etcd"},
        )
        return Machine(
            name=name,
            directory=directory,
            api_port=int(moved[f"{address}:8008"].split(":")[1]),
            commands={"etcd": ["etcd"], "patroni": ["patroni", patroni]},
            environment=dict(re.findall(r"^(ETCD_\w+)=(.*)$", variables, re.MULTILINE)),
            user=self._user,
        )

    def _haproxy(self, machines: list[Machine]) -> int:
        port = free_port()
        servers = {
            f"{address}:5432 check port 8008": (
                f"{self._moved[f'{address}:5432']} check port {machine.api_port}"
            )
            for address, machine in zip(_ADDRESSES, machines, strict=True)
        }
        file = self._write(
            "haproxy.cfg", render("haproxy.cfg", {"127.0.0.1:5000": f"127.0.0.1:{port}"} | servers)
        )
        url = self._url("postgres", "SUPERUSER", port, database="postgres")
        self._run("haproxy", ["/usr/sbin/haproxy", "-db", "-f", file], url)
        return port

    def _pgbouncer(self, haproxy_port: int) -> int:
        port = free_port()
        users = self._write(
            "userlist.txt", f'"credentials_service" "{self._passwords["SERVICE"]}"\n'
        )
        file = self._write(
            "pgbouncer.ini",
            render(
                "pgbouncer.ini",
                {
                    "port=5000": f"port={haproxy_port}",
                    "listen_port = 6432": f"listen_port = {port}",
                    "/etc/pgbouncer/userlist.txt": str(users),
                },
            ),
        )
        url = self._url("credentials_service", "SERVICE", port)
        # as `Restart=always` does: see docs/cluster.md
        forever = (
            "trap 'kill $child; exit' TERM; "
            'while :; do /usr/sbin/pgbouncer "$0" & child=$!; wait $child; sleep 1; done'
        )
        self._run("pgbouncer", ["/bin/sh", "-c", forever, file], url)
        return port

    def _make_database(self, superuser_url: str, haproxy_port: int) -> None:
        """Make the roles and the database, as docs/cluster.md says."""
        with connect(superuser_url) as connection:
            connection.execute(
                f"CREATE ROLE credentials_owner LOGIN PASSWORD '{self._passwords['OWNER']}'"
            )
            connection.execute("CREATE DATABASE credentials OWNER credentials_owner")
        owner = self._url("credentials_owner", "OWNER", haproxy_port)
        migrate(owner)
        with connect(self._url("postgres", "SUPERUSER", haproxy_port)) as connection:
            connection.execute(service_role())
            connection.execute(
                f"ALTER ROLE credentials_service PASSWORD '{self._passwords['SERVICE']}'"
            )

    def _settings(self, issuer: Issuer) -> dict[str, str]:
        keys = self._directory / "jwks.json"
        keys.write_bytes(issuer.jwks())
        return {
            "JWT_PUBLIC_KEY_FILE": str(keys),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "DIGEST_KEY": new_digest_key(),
            "WEB_CONCURRENCY": "1",
            "THREADS": "8",
            "TRUSTED_PROXIES": "1",
            "ISSUE_LIMIT": "0",
            "CHANGE_LIMIT": "0",
            "VERIFY_FAILURE_LIMIT": "0",
            "MAX_CREDENTIALS_PER_UNIT": "1000000",
        }

    def _instances(self, urls: list[str], settings: dict[str, str], issuer: Issuer) -> list[Client]:
        instances = []
        for number, url in enumerate(urls):
            port = free_port()
            output = self._directory / f"service{number + 1}.log"
            process = self._stack.enter_context(
                running(
                    [ROOT / ".venv" / "bin" / "python", "-m", "gunicorn", "wsgi:app"],
                    output,
                    cwd=ROOT,
                    env=settings | {"DATABASE_URL": url, "PORT": str(port)},
                )
            )
            instance = Client(port, issuer)
            await_start(
                process,
                output,
                lambda instance=instance: instance.request("GET", "/readyz").status == 200,
            )
            instances.append(instance)
        return instances

    def _run(self, name: str, command: list[str | Path], url: str) -> None:
        """Start the proxy, and wait until it leads to the primary."""
        started = monotonic()

        def leads() -> bool:
            with connect(url, connect_timeout=2, target_session_attrs="primary"):
                # HAProxy treats every server as up until its first checks have run
                return monotonic() - started > _FIRST_CHECKS_SECONDS

        output = self._directory / f"{name}.log"
        process = self._stack.enter_context(
            running(command, output, cwd=self._directory, env={}, user=self._user)
        )
        await_start(process, output, leads)

    def _url(self, role: str, password: str, port: int, *, database: str = "credentials") -> str:
        return f"postgresql://{role}:{self._passwords[password]}@127.0.0.1:{port}/{database}"

    def _write(self, name: str, text: str) -> Path:
        """Write a file that only the cluster's user can read."""
        file = self._directory / name
        file.touch(mode=0o600)
        file.write_text(text)
        self._hand_over(file)
        return file

    def _hand_over(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user, self._user)
        if path.is_dir():
            path.chmod(0o700)


def _free_ports(count: int) -> list[int]:
    """Return `count` free ports, outside the range that Linux gives to clients' connections."""
    found: list[int] = []
    for port in random.sample(_SERVER_PORTS, len(_SERVER_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found
