"""The short form of `make drill`: the drills that tell most in a few seconds.

Times in milliseconds and ratios to a quiet time are left to `make drill`, since other tests run
beside these.
"""

from functools import partial
from pathlib import Path

import pytest

from drills.commits import behind_pgbouncer, clock_steps_back
from drills.crowds import a_large_unit, one_proxy_for_all
from drills.outages import frozen
from drills.service import ground, has_pgbouncer
from drills.signals import reload_with_bad_keys

DRILLS = {
    "a large unit": partial(a_large_unit, size=3000, seconds=1),
    "a frozen database": partial(frozen, seconds=3),
    "PgBouncer": partial(behind_pgbouncer, rounds=100),
    "one proxy for all": one_proxy_for_all,
    "reload with bad keys": reload_with_bad_keys,
    "the clock steps back": clock_steps_back,
}


def _marks(name):
    if name == "PgBouncer" and not has_pgbouncer():
        return [pytest.mark.skip(reason="pgbouncer is not installed")]
    return []


@pytest.fixture(scope="module")
def place():
    with ground(Path(__file__).parents[2]) as place:
        yield place


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in DRILLS])
def test_what_one_fault_does_reaches_nobody_else(place, name):
    bars = DRILLS[name](place)
    missed = [bar for bar in bars if not bar.is_met and bar.unit not in {"ms", "x quiet"}]
    assert not missed
