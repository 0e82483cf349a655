"""A history's result as bars: the violations by group, and how long anything stood still."""

from pathlib import Path

from drills.bars import Bar, none_of, within
from drills.history.availability import change_delay, feed_delay
from drills.history.checker import KINDS, check
from drills.history.history import History

# After a fault, Postgres ends the transactions of a lost host within some seconds.
STAND_STILL_SECONDS = 10.0
_SHOWN = 5

_GROUPS = {
    "acknowledged changes without their one event": (
        "event missing", "event doubled", "event of nobody", "refused change made", "wrong event",
    ),
    "ended ones accepted, valid ones refused": ("ended one accepted", "valid one refused"),
    "reads that no order explains": ("stale read", "stored differs"),
    "orders of one trail that disagree": ("two orders",),
    "events skipped, doubled, disordered in feeds": (
        "feed skipped", "feed incomplete", "feed doubled", "feed disordered", "feed of nobody",
    ),
    "replays that differ": ("replay differs",),
    "answers of somebody else, or not allowed": ("foreign answer", "wrong answer"),
    "quotas exceeded, or refused below": ("quota exceeded", "refused below quota"),
    "used ones revoked as unused, unused ones kept": ("used one revoked", "unused one kept"),
}  # fmt: skip
assert sorted(KINDS) == sorted(kind for kinds in _GROUPS.values() for kind in kinds)


def bars_of(history: History, logs: list[Path]) -> list[Bar]:
    """Check the history, print the first violations of each group, and return the bars."""
    result = check(history)
    counts = result.counts
    of = {
        "acknowledged changes without their one event": counts["events"],
        "reads that no order explains": counts["reads checked"],
        "ended ones accepted, valid ones refused": counts["reads checked"],
        "orders of one trail that disagree": counts["events"],
        "events skipped, doubled, disordered in feeds": counts["deliveries"],
        "replays that differ": counts["replays"],
        "answers of somebody else, or not allowed": counts["operations"],
    }
    text = ", ".join(f"{value:,} {name}" for name, value in sorted(counts.items()))
    print(f"  seed {history.settings.seed}: {text}", flush=True)
    bars = []
    for name, kinds in _GROUPS.items():
        found = result.of(*kinds)
        for each in found[:_SHOWN]:
            print(f"    {each.kind}: {each.text}")
        bars.append(none_of(name, len(found), of.get(name)))
    return [
        *bars,
        none_of("tracebacks in the logs", sum(_tracebacks(each) for each in logs)),
        within("feed stood still without a fault for", feed_delay(history), STAND_STILL_SECONDS),
        within(
            "changes of one credential stood still for", change_delay(history), STAND_STILL_SECONDS
        ),
    ]


def _tracebacks(log: Path) -> int:
    with log.open(errors="replace") as lines:
        return sum("Traceback (most recent call last)" in line for line in lines)
