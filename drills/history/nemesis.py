"""The nemesis: it breaks something, heals it, and waits, again and again, as its seed says."""

from contextlib import suppress
from random import Random
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

import psutil
import psycopg

from drills.history.history import Fault, Recorder
from drills.history.stage import Instance, Stage
from drills.service import OUR_NAME, ROLE

if TYPE_CHECKING:
    from collections.abc import Callable

_QUIET_SECONDS = (0.5, 3.0)
# after the loss of a host: long enough to see whether the other instance goes on
_WATCH_SECONDS = 14.0

_SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE usename = %s AND application_name <> %s AND datname = current_database()
"""


class Nemesis(Thread):
    """Applies faults in a random order, each kind as often as the others, until stopped.

    With `spare`, the processes of the first instance live on: the soak watches them.
    """

    def __init__(
        self,
        stage: Stage,
        recorder: Recorder,
        *,
        seed: int,
        quiet_seconds: tuple[float, float] = _QUIET_SECONDS,
        spare: bool = False,
    ) -> None:
        super().__init__(name="nemesis", daemon=True)
        self.error: Exception | None = None
        self.done: list[str] = []
        self._stage = stage
        self._recorder = recorder
        self._random = Random(f"{seed} nemesis")
        self._quiet_seconds = quiet_seconds
        self._victims = stage.instances[1:] if spare else stage.instances
        self._stopped = Event()
        self._faults: dict[str, Callable[[], None]] = {
            "kill_worker": self._kill_worker,
            "freeze_worker": self._freeze_worker,
            "kill_instance": self._kill_instance,
            "lose_host": self._lose_host,
            "terminate_some": self._terminate_some,
            "terminate_all": self._terminate_all,
            "restart_postgres": self._restart_postgres,
            "freeze_postgres": self._freeze_postgres,
            "cut_network": self._cut_network,
            "black_hole": self._black_hole,
            "lock_rows": self._lock_rows,
        }

    def run(self) -> None:
        try:
            while True:
                kinds = list(self._faults)
                self._random.shuffle(kinds)
                for kind in kinds:
                    if self._stopped.wait(self._random.uniform(*self._quiet_seconds)):
                        return
                    self._break(kind)
        except Exception as error:  # noqa: BLE001  `stop` raises it
            self.error = error

    def stop(self) -> None:
        """Heal the present fault, and end. Raises what the thread has raised."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        if self.error is not None:
            raise self.error

    def _break(self, kind: str) -> None:
        began = monotonic()
        self._faults[kind]()
        self._stage.await_ready()
        self._recorder.add(Fault(kind, began, monotonic()))
        self.done.append(kind)
        if kind == "lose_host":
            self._stopped.wait(_WATCH_SECONDS)
            if not self._stopped.is_set():
                self._stage.end_lost_sessions()

    def _for_a_while(self, least: float, most: float) -> None:
        self._stopped.wait(self._random.uniform(least, most))

    def _victim(self) -> Instance:
        return self._random.choice(self._victims)

    def _worker(self) -> psutil.Process | None:
        workers = self._victim().workers()
        return self._random.choice(workers) if workers else None

    # --- the faults ---

    def _kill_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def _freeze_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
                self._for_a_while(0.5, 3.0)
                worker.resume()

    def _kill_instance(self) -> None:
        instance = self._victim()
        instance.kill()
        self._for_a_while(0.0, 1.5)
        instance.start()

    def _lose_host(self) -> None:
        """Kill the second instance, whose connections Postgres goes on to believe in."""
        self._stage.proxy.lose_client()
        instance = self._stage.instances[1]
        instance.kill()
        self._for_a_while(0.0, 1.5)
        instance.start()

    def _terminate_some(self) -> None:
        self._terminate(share=self._random.uniform(0.1, 0.9))

    def _terminate_all(self) -> None:
        self._terminate(share=1.0)

    def _terminate(self, *, share: float) -> None:
        with self._stage.connect() as connection:
            found = connection.execute(_SESSIONS, [ROLE, OUR_NAME]).fetchall()
            pids = [pid for (pid,) in found if self._random.random() <= share]
            connection.execute("SELECT pg_terminate_backend(unnest(%s::int[]))", [pids])

    def _restart_postgres(self) -> None:
        self._stage.restart_postgres()

    def _freeze_postgres(self) -> None:
        with self._stage.testbed.postgres.frozen():
            self._for_a_while(0.5, 3.5)

    def _cut_network(self) -> None:
        self._stage.proxy.close()
        self._for_a_while(0.2, 2.5)
        self._stage.proxy.reopen()

    def _black_hole(self) -> None:
        with self._stage.proxy.black_hole():
            self._for_a_while(0.5, 4.0)

    def _lock_rows(self) -> None:
        """Hold the rows of a unit's client secrets, as an operator's session in psql might."""
        unit = self._random.choice(self._stage.target.units)
        with (
            suppress(psycopg.OperationalError),
            self._stage.connect() as connection,
            connection.transaction(),
        ):
            connection.execute(
                "SELECT FROM client_secrets JOIN credentials USING (secret_id) "
                "WHERE unit_id = %s ORDER BY client_secret_id FOR UPDATE OF client_secrets",
                [unit],
            )
            self._for_a_while(1.0, 4.0)
