"""Does the service go on once a fault is healed? How long feeds and changes stood still after that.

A busy machine answers 503 more often, so one 503 counts for nothing: only the time counts in which
the same thing never succeeded although nothing was broken.
"""

from collections import defaultdict
from collections.abc import Sequence

from drills.history.checker import identity
from drills.history.history import Fault, History

_CHANGES = {"update", "rotate", "end_secret", "revoke"}
_MIN_ATTEMPTS = 6
_MAX_GAP_SECONDS = 5.0


def feed_delay(history: History) -> float:
    """Return how long, at most, an acknowledged event was missing from a feed without a fault.

    The time begins with the acknowledgement or, if that is later, with the end of the last fault.
    """
    acknowledged = {
        each.request_id: each.returned for each in history.operations if each.outcome == "ok"
    }
    known = {
        event.request_id: acknowledged[identity(event)]
        for event in history.events
        if identity(event) in acknowledged
    }
    return max(
        (
            page.returned - _healed_before(history.faults, page.returned, known[request_id])
            for page in history.pages
            for request_id in (event["request_id"] for event in page.events)
            if request_id in known
        ),
        default=0.0,
    )


def change_delay(history: History) -> float:
    """Return how long, at most, changes of one credential got no answer without a fault.

    Only six and more attempts count, without a long gap and without an answer to any of them.
    Conditional revocations do not count: after a process was killed, they get 503 for up to 80 s
    (ADR 23).
    """
    about = defaultdict(list)
    for each in sorted(history.operations, key=lambda each: each.invoked):
        if each.verb in _CHANGES and "unused_for" not in each.asked:
            about[each.secret_id].append(each)
    longest = 0.0
    for operations in about.values():
        began = last = 0.0
        attempts = 0
        for each in operations:
            is_disturbed = (
                _healed_before(history.faults, each.returned, each.invoked) > each.invoked
            )
            if each.outcome != "unknown" or is_disturbed:
                attempts = 0
                continue
            was_disturbed = _healed_before(history.faults, each.returned, began) > began
            if attempts == 0 or was_disturbed or each.invoked > last + _MAX_GAP_SECONDS:
                began, attempts = each.invoked, 0
            attempts, last = attempts + 1, each.returned
            if attempts >= _MIN_ATTEMPTS:
                longest = max(longest, last - began)
    return longest


def _healed_before(faults: Sequence[Fault], at: float, since: float) -> float:
    """Return when the last fault that began before `at` had been healed, but not before `since`.

    If it has not been healed by `at`, return `at`.
    """
    return min(at, max([since, *(each.healed for each in faults if each.began < at)]))
