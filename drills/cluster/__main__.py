"""`make cluster-drill`: make the primary of a cluster fail, and check the promises to callers.

    make cluster-drill
    .venv/bin/python -m drills.cluster --only killed,frozen

The figures depend on the machine.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from drills.attempt import attempt
from drills.bars import Bar, write_bars
from drills.cluster import faults
from drills.cluster.histories import history_under_failovers
from drills.cluster.servers import Cluster, running_cluster
from drills.service import CannotRun

_RESULT = Path(__file__).parents[2] / "var" / "cluster-drill.json"

DRILLS: list[Callable[[Cluster], list[Bar]]] = [
    faults.killed,
    faults.switched_over,
    faults.lost,
    faults.frozen,
    faults.standby_frozen,
    faults.both_lost,
    history_under_failovers,
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m drills.cluster")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[""], help="parts of drills' names"
    )
    only = parser.parse_args().only
    # SIGTERM would otherwise leave the servers behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict[str, list[Bar]] = {}
    try:
        with running_cluster() as cluster:
            for drill in DRILLS:
                if any(word in drill.__name__ for word in only):
                    results[drill.__name__] = _run(drill, cluster)
    except CannotRun as reason:
        sys.exit(f"make cluster-drill: {reason}")
    write_bars(_RESULT, results)
    missed = sum(not bar.is_met for bars in results.values() for bar in bars)
    print(f"\n{missed} promises broken" if missed else "\nall promises kept")
    sys.exit(missed > 0)


def _run(drill: Callable[[Cluster], list[Bar]], cluster: Cluster) -> list[Bar]:
    title = str(drill.__doc__).splitlines()[0]
    return attempt(title, lambda: drill(cluster), missed="BROKEN")


if __name__ == "__main__":
    main()
