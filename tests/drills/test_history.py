"""The history checker: what it accepts, and that it notices each planted fault.

The recorded history is a real one, without faults: `record` of drills/history with six clients.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from drills.history.availability import change_delay, feed_delay
from drills.history.checker import KINDS, check
from drills.history.drill import history_under_faults
from drills.history.history import Fault, History, line_of
from drills.history.mutations import MUTATIONS, try_mutation
from drills.service import running_testbed

RECORDED = Path(__file__).parent / "clean_history.jsonl"


@pytest.fixture(scope="module")
def clean():
    return History.read(RECORDED)


def test_a_clean_history_passes(clean):
    result = check(clean)
    assert not result.violations
    assert result.counts["reads checked"] > 100
    assert result.counts["replays"] > 0
    assert result.counts["deliveries"] == 2 * len(clean.events)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
def test_a_planted_fault_is_noticed(clean, mutation):
    found = [try_mutation(mutation, clean, seed) for seed in range(3)]
    assert None not in found, "the history has no place for it"
    assert all(found)


def test_each_kind_of_violation_has_a_planted_fault():
    assert set(KINDS) == set().union(*MUTATIONS.values())


def test_a_feed_that_stands_still_is_seen_unless_a_fault_explains_it(clean):
    pages = [each for each in clean.pages if each.events]
    late = [
        type(page)(page.follower, page.unit, page.invoked, page.returned + 100, page.events)
        for page in pages
    ]
    history = History.of(each for each in clean.records() if each not in pages)
    history.pages += late
    assert feed_delay(clean) < 50 < feed_delay(history)
    history.faults.append(Fault("black_hole", 0.0, max(page.returned for page in late)))
    assert feed_delay(history) == 0


def test_changes_that_stand_still_are_seen_unless_a_fault_explains_them(clean):
    update = next(each for each in clean.operations if each.verb == "update")
    members = vars(update) | {"secret_id": "sec_stuck", "outcome": "unknown", "status": 503}
    stuck = [
        type(update)(**members | {"invoked": 4.0 * n, "returned": 4.0 * n + 1}) for n in range(10)
    ]
    assert change_delay(History(operations=stuck)) == 37
    assert change_delay(History(operations=stuck, faults=[Fault("cut_network", 1, 50)])) == 0
    conditional = [replace(each, asked={"unused_for": 60}) for each in stuck]
    assert change_delay(History(operations=conditional)) == 0


def test_a_history_is_read_as_it_was_written(clean, tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text("".join(map(line_of, clean.records())))
    assert History.read(file) == clean


@pytest.mark.long
def test_no_fault_loses_a_change_or_revives_a_credential():
    with running_testbed(Path(__file__).parents[2]) as testbed:
        bars = history_under_faults(testbed, seconds=10)
    # other tests run beside this one, so times are left to `make drill`
    assert not [bar for bar in bars if not bar.is_met and bar.unit != "s"]
