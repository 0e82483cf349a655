"""A primary and its standby, for one test."""

import subprocess
from contextlib import ExitStack, contextmanager

import psycopg

from app.database.migrations import migrate
from app.dev.postgres import embedded_postgres
from tests.conftest import execute
from tests.running_server import wait_until


class Pair:
    """A primary and its standby. `url` names both, first the original primary."""

    def __init__(self, directory):
        self._first, self._second = directory / "first", directory / "second"
        self._running = {}
        self.start_first()
        migrate(self.first)
        execute(self.first, "CREATE ROLE service LOGIN IN ROLE pg_write_all_data, pg_read_all_data")
        self.stop_first()
        subprocess.run(["cp", "-a", self._first, self._second], check=True)
        self.start_first()
        with (self._second / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = 'host={socket_of(self.first)} user=postgres'\n")
        (self._second / "standby.signal").touch()
        self.start_second()
        self.url = (
            f"postgresql://service@/postgres?host={socket_of(self.first)},{socket_of(self.second)}"
        )

    def start_first(self):
        self.first = self._start(self._first)

    def stop_first(self):
        self._running.pop(self._first).close()

    def start_second(self):
        self.second = self._start(self._second)

    def stop_second(self):
        self._running.pop(self._second).close()

    def make_synchronous(self):
        """Let commits on the first wait for the second from now on."""
        self._configure("SET synchronous_standby_names = '*'")
        state = "SELECT string_agg(sync_state, ' ') FROM pg_stat_replication"
        wait_until(lambda: value(self.first, state) == "sync")

    @contextmanager
    def asynchronous(self):
        """Let commits on the first wait for no standby meanwhile."""
        self._configure("RESET synchronous_standby_names")
        yield
        self._configure("SET synchronous_standby_names = '*'")

    def fail_over(self):
        self.wait_for_second()
        self.stop_first()
        execute(self.second, "SELECT pg_promote()")

    def fail_over_with_loss(self, lost):
        """Promote the second without what `lost` does on the first."""
        execute(self.second, "ALTER SYSTEM SET primary_conninfo = ''")
        execute(self.second, "SELECT pg_reload_conf()")
        receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
        wait_until(lambda: not value(self.second, receivers))
        lost()
        self.stop_first()
        execute(self.second, "SELECT pg_promote()")

    def wait_for_second(self):
        written = value(self.first, "SELECT pg_current_wal_lsn()")
        behind = f"SELECT pg_last_wal_replay_lsn() < '{written}'"
        wait_until(lambda: not value(self.second, behind))

    def cut_connections_to_second(self):
        execute(
            self.second,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE usename = 'service'",
        )

    def stop(self):
        for each in reversed(self._running.values()):
            each.close()

    def _configure(self, change):
        execute(self.first, f"ALTER SYSTEM {change}")
        execute(self.first, "SELECT pg_reload_conf()")

    def _start(self, data):
        self._running[data] = ExitStack()
        return self._running[data].enter_context(embedded_postgres(data))


def socket_of(uri):
    return psycopg.conninfo.conninfo_to_dict(uri)["host"]


def value(uri, query):
    with psycopg.connect(uri) as connection:
        return connection.execute(query).fetchone()[0]
