"""A Postgres for one test or drill, which can be stopped, frozen and started again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
from psycopg import sql

from app.dev.postgres import embedded_postgres


@contextmanager
def postgres_directory() -> Iterator[Path]:
    """Make a directory for the data of a Postgres, and remove it at the end."""
    with TemporaryDirectory(prefix="lv-pg-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # as root, the server runs as another user
        yield directory


class Postgres:
    """A Postgres that keeps its data in the directory `data`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._running = ExitStack()

    def start(self) -> None:
        # tests and drills do not measure the disk, which other programs use too
        self.uri = self._running.enter_context(embedded_postgres(self.data, fsync="off"))

    def stop(self) -> None:
        self._running.close()

    @property
    def socket_directory(self) -> Path:
        return Path(str(psycopg.conninfo.conninfo_to_dict(self.uri)["host"]))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend its processes: connections stay open, but nothing answers on them."""
        postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def configured(self, **settings: str) -> Iterator[None]:
        """Change parameters of the server for a while."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(
                    sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value)
                )
            connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            with psycopg.connect(self.uri, autocommit=True) as connection:
                for name in settings:
                    statement = sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name))
                    connection.execute(statement)
                connection.execute("SELECT pg_reload_conf()")


@contextmanager
def running_postgres(data: Path) -> Iterator[Postgres]:
    """Run a Postgres on the data directory."""
    postgres = Postgres(data)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
