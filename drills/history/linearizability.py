"""Search for a linearization of a credential's operations, whose changes have a known order.

Only the times of the changes are open. The search goes through time and keeps every configuration:
how many changes have happened, and which pending observations a version has already allowed. An
observation changes nothing, so it is taken as soon as a version allows it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drills.history.history import Operation
from drills.history.model import Version, Window

_FOREVER = float("inf")


@dataclass(frozen=True)
class Step:
    """A change: it happens at a time between `invoked` and `until`, and makes the version."""

    invoked: float
    until: float
    version: Version
    operation: Operation


@dataclass(frozen=True)
class Stuck:
    """What no linearization explains. The versions are those that were possible at that time."""

    operation: Operation
    versions: list[Version]


_Configurations = dict[int, list[frozenset[int]]]


def search(
    first: Version,
    steps: Sequence[Step],
    observations: Sequence[Operation],
    allowed: Callable[[Version, Operation], list[Window]],
    *,
    slack: float,
) -> list[Stuck]:
    """Return what cannot be linearized. After each of these, the search goes on without it.

    `slack` is by how many seconds the windows may be wrong.
    """
    versions = [first, *(step.version for step in steps)]
    cache: dict[tuple[int, int], list[Window]] = {}

    def windows(position: int, number: int) -> list[Window]:
        if (position, number) not in cache:
            found = allowed(versions[position], observations[number])
            cache[position, number] = [(a - slack, b + slack) for a, b in found]
        return cache[position, number]

    expiries = {
        bound
        for version in versions
        for secret in version.secrets
        for bound in secret.expires
        if bound != _FOREVER
    }
    times = {bound + shift for bound in expiries for shift in (-slack, slack)}
    times |= {time for each in observations for time in (each.invoked, each.returned)}
    times |= {time for step in steps for time in (step.invoked, step.until)}
    times.add(_FOREVER)
    begins = _by_time((each.invoked, n) for n, each in enumerate(observations))
    ends = _by_time((each.returned, n) for n, each in enumerate(observations))
    deadlines = _by_time((step.until, n) for n, step in enumerate(steps, 1))
    stuck: list[Stuck] = []
    pending: set[int] = set()
    states: _Configurations = {0: [frozenset()]}
    for time, end in pairwise(sorted(times)):
        pending |= set(begins.get(time, ()))
        if pending or end in deadlines:
            states = _closure(states, steps, time, end, pending, windows)
        for number in ends.get(end, ()):
            pending.discard(number)
            left = {
                position: [seen - {number} for seen in each if number in seen]
                for position, each in states.items()
            }
            left = {position: each for position, each in left.items() if each}
            if left:
                states = left
            else:
                stuck.append(Stuck(observations[number], [versions[each] for each in states]))
        if end == _FOREVER:
            continue
        for position in deadlines.get(end, ()):
            left = {each: seen for each, seen in states.items() if each >= position}
            if left:
                states = left
            else:
                stuck.append(Stuck(steps[position - 1].operation, [versions[e] for e in states]))
                states = {position: [frozenset(pending)]}
    return stuck


def _by_time(pairs: Iterable[tuple[float, int]]) -> dict[float, list[int]]:
    found: dict[float, list[int]] = {}
    for time, number in pairs:
        found.setdefault(time, []).append(number)
    return found


def _closure(  # noqa: PLR0913, PLR0917  each is a part of the search's state
    states: _Configurations,
    steps: Sequence[Step],
    time: float,
    end: float,
    pending: set[int],
    windows: Callable[[int, int], list[Window]],
) -> _Configurations:
    """Return every configuration that can be reached between two neighbouring times."""
    allowed: dict[int, frozenset[int]] = {}

    def allowed_at(position: int) -> frozenset[int]:
        if position not in allowed:
            allowed[position] = frozenset(
                number
                for number in pending
                if any(a <= time and end <= b for a, b in windows(position, number))
            )
        return allowed[position]

    reached: _Configurations = {}
    for first, each in states.items():
        for seen in each:
            position, taken = first, seen | allowed_at(first)
            _keep(reached, position, taken)
            while position < len(steps) and steps[position].invoked <= time:
                position += 1
                taken |= allowed_at(position)
                _keep(reached, position, taken)
    return reached


def _keep(reached: _Configurations, position: int, taken: frozenset[int]) -> None:
    """Add the configuration, unless one that allows more is known."""
    known = reached.setdefault(position, [])
    if not any(taken <= each for each in known):
        known[:] = [each for each in known if not each <= taken]
        known.append(taken)
