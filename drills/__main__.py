"""`make drill`: break things on purpose, and compare what callers see with the promises.

    make drill                       the service of this checkout
    make drill ROOT=/other/checkout  the service of another checkout, which has its own .venv
    .venv/bin/python -m drills --only locked,frozen
    .venv/bin/python -m drills --only siege           all drills of a module

The figures depend on the machine. To compare two versions, drill both on the same machine.
"""

import argparse
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from drills import (
    commits,
    crowds,
    endings,
    key_fetches,
    locks,
    outages,
    restarts,
    siege,
    siege_strangers,
    signals,
)
from drills.attempt import attempt
from drills.bars import Bar, write_bars
from drills.history.drill import history_under_faults
from drills.service import Testbed, is_installed, running_testbed

_HERE = Path(__file__).parent
_RESULT = _HERE.parent / "var" / "drill.json"

Drill = Callable[[Testbed], list[Bar]]

DRILLS: list[Drill] = [
    crowds.issue_flood,
    crowds.one_unit_issues,
    crowds.planned_change_of_key,
    crowds.lost_key,
    locks.a_locked_table,
    locks.a_locked_row,
    locks.slow_audit_events,
    outages.stopped,
    outages.refusing,
    outages.full,
    outages.frozen,
    outages.black_hole,
    outages.all_connections_cut,
    commits.no_standby_confirms,
    commits.clock_steps_back,
    commits.behind_pgbouncer,
    signals.reload_with_bad_keys,
    key_fetches.cached_keys,
    key_fetches.forged_tokens_at_a_cold_start,
    crowds.a_large_unit,
    crowds.one_proxy_for_all,
    signals.stop_with_half_a_request,
    restarts.rolling_restart,
    endings.nothing_works_after_its_end,
    endings.nothing_works_after_its_report,
    siege.sleeps,
    siege.filters,
    siege.issues,
    siege.updates,
    siege.lists,
    siege.slow_bodies,
    siege.a_busy_processor,
    siege_strangers.lost_key_from_one_network,
    siege_strangers.lost_key_from_many_networks,
    siege_strangers.scrapes,
    siege_strangers.leak_reports,
    siege_strangers.silent_connections,
    siege_strangers.hostile_redis,
    siege_strangers.costly_requests,
    siege_strangers.known_and_unknown,
    siege_strangers.refusals_of_one_client_id,
    history_under_faults,
]

_NEEDS: dict[Drill, str] = {
    commits.behind_pgbouncer: "pgbouncer",
    restarts.rolling_restart: "nginx",
}


def main() -> None:
    arguments = _arguments()
    # SIGTERM would otherwise leave the servers behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    drills = [each for each in DRILLS if any(word in _name(each) for word in arguments.only)]
    results: dict[str, list[Bar]] = {}
    started = monotonic()
    with running_testbed(arguments.root.resolve()) as testbed:
        for drill in drills:
            results[drill.__name__] = _run(drill, testbed)
    write_bars(arguments.result, results)
    print(f"\n{arguments.root.resolve()}, {monotonic() - started:.0f} s\n")
    print(_table(results))
    missed = sum(not bar.is_met for bars in results.values() for bar in bars)
    print(f"\n{missed} of {sum(map(len, results.values()))} bars missed" if missed else "\nall met")
    sys.exit(missed > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m drills", description="See drills/__main__.py.")
    parser.add_argument("--root", type=Path, default=_HERE.parent, help="the service's checkout")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[""], help="parts of drills' names"
    )
    parser.add_argument("--result", type=Path, default=_RESULT, help="where the figures are kept")
    return parser.parse_args()


def _run(drill: Drill, testbed: Testbed) -> list[Bar]:
    needed = _NEEDS.get(drill)
    if needed is not None and not is_installed(needed):
        print(f"{_title(drill)}: left out, {needed} is not installed", flush=True)
        return []
    bars = _attempt(drill, testbed)
    missed = [bar for bar in bars if not bar.is_met]
    if missed and all(bar.is_close for bar in missed):
        print("  narrowly missed, which may be noise: trying once more", flush=True)
        bars = _attempt(drill, testbed)
    return bars


def _attempt(drill: Drill, testbed: Testbed) -> list[Bar]:
    return attempt(_title(drill), lambda: drill(testbed), missed="MISSED")


def _name(drill: Drill) -> str:
    """Return the names of the drill's module and function, such as `siege.sleeps`."""
    return f"{drill.__module__.removeprefix('drills.')}.{drill.__name__}"


def _title(drill: Drill) -> str:
    """Return the first line of the drill's docstring, without its full stop."""
    return (drill.__doc__ or drill.__name__).splitlines()[0].rstrip(".")


def _table(results: dict[str, list[Bar]]) -> str:
    rows = [("drill", "bar", "measured", "")]
    titles = {each.__name__: _title(each) for each in DRILLS}
    for name, bars in results.items():
        for number, bar in enumerate(bars):
            done = titles[name] if number == 0 else ""
            verdict = "ok" if bar.is_met else "MISSED"
            rows.append((done, bar.limit_text(), bar.text(), verdict))
    width = max(100, shutil.get_terminal_size((140, 24)).columns) - 6 - 3 * 3
    widths = [width * 36 // 100, width * 36 // 100, width * 28 // 100, 6]
    return "\n".join(_lines(row, widths) for row in rows)


def _lines(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    return "\n".join(
        " | ".join(
            (cell[line] if line < len(cell) else "").ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        ).rstrip()
        for line in range(height)
    )


if __name__ == "__main__":
    main()
