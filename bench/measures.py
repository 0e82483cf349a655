"""Measures in rounds, and the ratios between them."""

import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bench.servers import Server


@dataclass(frozen=True)
class Measure:
    """The figures of one target in one round.

    The rate counts right answers only. `failed` is the share of all others: 0.01 is one request in
    a hundred.
    """

    requests_per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_seconds_per_1000: float | None = None
    failed: float = 0.0


class Target(Protocol):
    """Something to measure. `server` is None if it is not a server."""

    server: Server | None

    def measure(self, seconds: int) -> Measure:
        """Put it under load for `seconds`."""


# If the machine has other load, the service refuses requests that would wait too long.
_TOLERATED_FAILURES = 0.5

Targets = Mapping[str, Target]
Measures = dict[str, list[Measure]]


def measure_in_turns(targets: Targets, *, rounds: int, seconds: int) -> Measures:
    """Measure every target in every round.

    Each round begins with another target, so that no target always follows the same one.
    """
    measures: Measures = {name: [] for name in targets}
    for turn in range(rounds):
        for name in _rotated(list(targets), turn):
            measures[name].append(targets[name].measure(seconds))
        print(f"  round {turn + 1} of {rounds}", flush=True)
    return measures


def warm_up(targets: Targets) -> None:
    """Load each server for a second, so that connections, statements and caches are ready."""
    one_per_server = {id(each.server or each): each for each in targets.values()}
    for target in one_per_server.values():
        target.measure(1)


def check_failures(name: str, failed: float) -> None:
    """Exit if too many answers were wrong for the rate to mean anything."""
    if failed > _TOLERATED_FAILURES:
        sys.exit(f"make bench: {name} failed {failed:.0%} of its requests.")


def median(rounds: list[Measure], attribute: str) -> float | None:
    """Return the median over the rounds, or None if the measure does not have the attribute."""
    values = [getattr(each, attribute) for each in rounds]
    return None if None in values else statistics.median(values)


@dataclass(frozen=True)
class Ratio:
    """One target's measure over another's in the same round."""

    of: str
    over: str
    attribute: str = "requests_per_second"

    def values(self, measures: Measures) -> list[float] | None:
        """Return the ratio of each round, or None if one of the two was not measured."""
        if self.of not in measures or self.over not in measures:
            return None
        return list(self._each(measures[self.of], measures[self.over]))

    def _each(self, of: list[Measure], over: list[Measure]) -> Iterator[float]:
        for one, other in zip(of, over, strict=True):
            yield getattr(one, self.attribute) / getattr(other, self.attribute)


def _rotated(names: list[str], by: int) -> list[str]:
    # an odd step, so that few rounds already reach every part of a long list
    start = by * (len(names) // 2 + 1) % len(names)
    return names[start:] + names[:start]
