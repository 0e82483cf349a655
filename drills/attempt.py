"""Run one drill and print its bars."""

from collections.abc import Callable
from time import monotonic

import psycopg

from drills.bars import Bar
from drills.service import CannotRun


def attempt(title: str, drill: Callable[[], list[Bar]], *, missed: str) -> list[Bar]:
    """Run a drill and print its bars; `missed` is the word for one that is not met."""
    started = monotonic()
    print(title, flush=True)
    try:
        bars = drill()
    except (CannotRun, OSError, ValueError, psycopg.Error) as error:
        # that the drill cannot run is a result too
        bars = [Bar(f"the drill runs ({type(error).__name__})", 1, 0, note=str(error)[-200:])]
    for bar in bars:
        print(f"  {'ok    ' if bar.is_met else missed} {bar.limit_text()}: {bar.text()}")
    print(f"  {monotonic() - started:.0f} s", flush=True)
    return bars
