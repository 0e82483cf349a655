"""`make soak`: run the workload under rare faults for long, and watch what grows.

make soak MINUTES=60
SEED=7 .venv/bin/python -m drills.history --minutes 5
.venv/bin/python -m drills.history --check var/history-7.jsonl
"""

import argparse
import signal
import sys
from pathlib import Path

from drills.attempt import attempt
from drills.bars import Bar, write_bars
from drills.history.drill import soak
from drills.history.history import History
from drills.history.report import bars_of
from drills.service import running_testbed

_ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m drills.history")
    parser.add_argument("--minutes", type=float, default=60, help="how long the soak takes")
    parser.add_argument("--check", type=Path, help="check this history instead")
    arguments = parser.parse_args()
    # SIGTERM would otherwise leave the servers behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.check is not None:
        bars = attempt(
            str(arguments.check),
            lambda: bars_of(History.read(arguments.check), []),
            missed="MISSED",
        )
    else:
        bars = _soak(arguments.minutes)
        write_bars(_ROOT / "var" / "soak.json", {"soak": bars})
    sys.exit(not all(bar.is_met for bar in bars))


def _soak(minutes: float) -> list[Bar]:
    with running_testbed(_ROOT) as testbed:
        title = f"{minutes:g} minutes of history"
        return attempt(title, lambda: soak(testbed, minutes=minutes), missed="MISSED")


if __name__ == "__main__":
    main()
