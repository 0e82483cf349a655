"""The workload of drills/history on the cluster: its clients repeat every call that gets 503."""

import subprocess
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import psycopg

from drills.bars import Bar
from drills.cluster.servers import ROOT, Cluster
from drills.history.drill import chosen_seed, history_file
from drills.history.history import Fault, Recorder
from drills.history.report import bars_of
from drills.history.run import record
from drills.history.workload import Target
from tests.running_server import clean_environment

_QUIET_SECONDS = 4.0
_CUT_OFF_SECONDS = 3.0
_COMMAND_SECONDS = 60.0


class _Stage:
    """The cluster, as the workload sees it. No host of the service is lost in it."""

    def __init__(self, cluster: Cluster) -> None:
        ports = [each.port for each in cluster.instances]
        self._cluster = cluster
        self.target = Target(ports, cluster.service.issuer, self._command, quota=None)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return self._cluster.connect()

    def end_lost_sessions(self) -> None:
        pass

    def _command(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [ROOT / ".venv" / "bin" / "credentials", *arguments],
            cwd=ROOT,
            env=clean_environment() | self._cluster.settings,
            check=False,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
        )


def history_under_failovers(cluster: Cluster) -> list[Bar]:
    """Clients call every verb while the primary fails, and their history is checked."""
    cluster.await_health()
    seed = chosen_seed()

    def during(recorder: Recorder) -> None:
        for kind, fault in _FAULTS.items():
            sleep(_QUIET_SECONDS)
            began = monotonic()
            fault(cluster)
            cluster.await_health()
            recorder.add(Fault(kind, began, monotonic()))
        sleep(_QUIET_SECONDS)

    history = record(_Stage(cluster), history_file(seed), during, seed=seed)
    return bars_of(history, [])


def _kill_primary(cluster: Cluster) -> None:
    previous = cluster.primary()
    previous.crash_postgres()
    cluster.primary(besides=previous)


def _freeze_primary(cluster: Cluster) -> None:
    previous = cluster.primary()
    previous.freeze()
    cluster.primary(besides=previous)
    previous.thaw()


def _lose_primary_behind_standby(cluster: Cluster) -> None:
    """Lose the primary while its synchronous standby, which then takes over, is cut off."""
    previous, standby = cluster.primary(), cluster.synchronous_standby()
    standby.freeze()
    sleep(_CUT_OFF_SECONDS)
    previous.crash()
    standby.thaw()
    cluster.primary(besides=previous)
    previous.start()


_FAULTS: dict[str, Callable[[Cluster], None]] = {
    "kill_primary": _kill_primary,
    "lose_primary_behind_standby": _lose_primary_behind_standby,
    "freeze_primary": _freeze_primary,
}
