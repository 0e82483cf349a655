"""A short form of `make drill`: the drills that find most in a few seconds.

Times in milliseconds and ratios to a quiet time are left to `make drill`, since other tests run
beside these.
"""

from functools import partial
from pathlib import Path

import pytest

from drills.commits import behind_pgbouncer, clock_steps_back
from drills.crowds import a_large_unit, one_proxy_for_all
from drills.endings import nothing_works_after_its_end
from drills.outages import frozen
from drills.restarts import rolling_restart
from drills.service import running_testbed
from drills.signals import reload_with_bad_keys
from tests.helpers import require

pytestmark = pytest.mark.long

DRILLS = {
    "a large unit": partial(a_large_unit, size=3000, seconds=1),
    "a frozen database": partial(frozen, seconds=3),
    "PgBouncer": partial(behind_pgbouncer, rounds=100),
    "what has ended": partial(nothing_works_after_its_end, endings=300),
    "one proxy for all": one_proxy_for_all,
    "reload with bad keys": reload_with_bad_keys,
    "the clock steps back": clock_steps_back,
    "a rolling restart": rolling_restart,
}
NEEDED = {"PgBouncer": "pgbouncer", "a rolling restart": "nginx"}


@pytest.fixture(scope="module")
def testbed():
    with running_testbed(Path(__file__).parents[2]) as testbed:
        yield testbed


@pytest.mark.parametrize("name", DRILLS)
def test_a_fault_affects_nobody_else(testbed, name):
    if name in NEEDED:
        require(NEEDED[name], install="apt-get install nginx-light pgbouncer")
    bars = DRILLS[name](testbed)
    missed = [bar for bar in bars if not bar.is_met and bar.unit not in {"ms", "x quiet"}]
    assert not missed
