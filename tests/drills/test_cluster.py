"""The shortest drill of the cluster: the primary's Postgres is killed under load."""

import os

import pytest

from drills.cluster.faults import killed
from drills.cluster.servers import INSTALL, missing_programs, running_cluster

pytestmark = pytest.mark.long


def test_no_acknowledged_change_is_lost_when_the_primary_is_killed():
    if missing := missing_programs():
        message = f"not installed: {', '.join(missing)} ({INSTALL})"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    with running_cluster() as cluster:
        bars = killed(cluster)
    # other tests run beside this one, so times are left to `make cluster-drill`
    assert not [bar for bar in bars if not bar.is_met and bar.unit != "s"]
    assert len(bars) == 5
