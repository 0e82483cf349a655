"""Check a history: a pure function from its records to what violates the contract."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from drills.history import linearizability, model
from drills.history.history import Event, History, Operation
from drills.history.linearizability import Step
from drills.history.model import ABSENT, Version

# Uses that were answered so long before a conditional revocation count. The contract says 0.2 s; a
# busy machine may take longer.
_RECORDED_SECONDS = 3.0
_RECORDED_ONCE_SECONDS = 60  # a last use is recorded at most so often
_MAKES_ONE_EVENT = {"issue", "rotate", "end_secret", "revoke"}
_SHOWN = ("client_id", "name", "actor", "via", "detail")  # of an event in a page of a follower

# Answers that do not say what the credential was like: they come before it is looked at.
_SAYS_NOTHING = {"request-under-way", "answer-erased", "credential-limit"}
# A held row does not keep a process from recording the uses of others.
_EXCUSES_NOTHING = {"lock_rows"}


class Violation(NamedTuple):
    """What went wrong, and where."""

    kind: str
    text: str


KINDS = (
    "wrong answer",  # a status that the contract does not have there, or another X-Request-Id
    "foreign answer",  # somebody else's credential
    "event missing",  # of an acknowledged change
    "event doubled",
    "event of nobody",
    "refused change made",
    "wrong event",  # not what the change makes of the version before it, as after a lost update
    "ended one accepted",
    "valid one refused",
    "stale read",
    "stored differs",
    "two orders",  # the unit's trail and the credential's disagree
    "feed skipped",
    "feed incomplete",  # it does not go on, however long one waits
    "feed doubled",
    "feed disordered",
    "feed of nobody",
    "replay differs",
    "quota exceeded",
    "refused below quota",
    "used one revoked",
    "unused one kept",
)


@dataclass(frozen=True)
class Result:
    """The violations, and how much was checked."""

    violations: list[Violation]
    counts: dict[str, int]

    def of(self, *kinds: str) -> list[Violation]:
        return [each for each in self.violations if each.kind in kinds]


def check(history: History) -> Result:
    """Return everything in the history that violates the contract."""
    checker = _Checker(history)
    return Result(list(checker.violations()), checker.counts)


def identity(event: Event) -> str:
    """Return the `request_id` of the operation that made the event: a command's is its actor."""
    return event.actor if event.via == "cli" else event.request_id


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._operations = {each.request_id: each for each in history.operations}
        self._events: dict[str, list[Event]] = defaultdict(list)  # by credential
        self._made: dict[str, set[str]] = defaultdict(set)  # credentials, by operation
        for event in history.events:
            if event.via == "verify":  # no change, so no operation has to explain it
                continue
            self._events[event.secret_id].append(event)
            self._made[identity(event)].add(event.secret_id)
        self._repeated: dict[tuple[str, str], list[Operation]] = defaultdict(list)
        self._about: dict[str, list[Operation]] = defaultdict(list)
        self._lists: dict[str, list[Operation]] = defaultdict(list)  # and commands, by unit
        for each in history.operations:
            if "key" in each.asked:
                self._repeated[each.client, each.asked["key"]].append(each)
            if each.secret_id is not None:
                self._about[each.secret_id].append(each)
            elif each.outcome == "ok" and (each.verb == "list" or each.verb.endswith("_all")):
                self._lists[each.unit].append(each)
        self._steps: dict[str, list[Step]] = {}
        self.counts: Counter[str] = Counter()

    def violations(self) -> Iterator[Violation]:
        self.counts["operations"] = len(self._history.operations)
        self.counts["unknown"] = sum(o.outcome == "unknown" for o in self._history.operations)
        self.counts["events"] = len(self._history.events)
        self.counts["faults"] = len(self._history.faults)
        yield from self._answers()
        for secret_id in self._events.keys() | self._about.keys():
            yield from self._credential(secret_id)
        yield from self._acknowledged()
        yield from self._repetitions()
        yield from self._quotas()
        yield from self._unused()
        yield from self._feeds()

    # --- each answer by itself ---

    def _answers(self) -> Iterator[Violation]:
        for each in self._history.operations:
            what = _text(each)
            echo = each.answer.get("echo", each.request_id)
            if each.outcome == "wrong":
                yield Violation("wrong answer", what)
            elif echo != each.request_id or (each.outcome == "ok" and not self._is_own(each)):
                yield Violation("foreign answer", what)

    def _is_own(self, operation: Operation) -> bool:
        answer, unit = operation.answer, operation.unit
        if operation.verb == "verify":
            client_id = operation.asked["client_id"]
            found = (answer["secret_id"], answer["unit_id"], answer["client_id"])
            headers = [*found, str(answer["trust"]).lower()]
            asked = (operation.secret_id, unit, client_id)
            return found == asked and answer["headers"] == headers
        if operation.verb == "list":
            return all(
                each["unit_id"] == unit and each["secret_id"] in self._events
                for each in answer["credentials"]
            )
        if operation.verb in {"get", "rotate"}:
            return (answer["secret_id"], answer["unit_id"]) == (operation.secret_id, unit)
        if operation.verb == "issue":
            return (answer["name"], answer["unit_id"]) == (operation.asked["name"], unit)
        return True

    # --- each credential ---

    def _credential(self, secret_id: str) -> Iterator[Violation]:
        steps = self._steps[secret_id] = []
        yield from self._trail(secret_id, steps)
        observations = list(self._observations(secret_id, steps))
        self.counts["reads checked"] += len(observations)
        stuck = linearizability.search(
            ABSENT,
            steps,
            observations,
            lambda version, operation: model.windows(version, operation, secret_id),
            slack=self._history.settings.slack,
        )
        for each in stuck:
            yield Violation(_kind(each.operation), f"{_text(each.operation)}, {each.versions}")
        yield from self._stored(secret_id, steps[-1].version if steps else ABSENT)

    def _trail(self, secret_id: str, steps: list[Step]) -> Iterator[Violation]:
        """Turn the credential's events into steps, and compare each with what was asked."""
        events = self._events[secret_id]
        transactions = [each.transaction_id for each in events]
        if transactions != sorted(transactions):
            yield Violation("two orders", f"{secret_id}: {[identity(each) for each in events]}")
        seen = set()
        version = ABSENT
        for maker, group in groupby(events, key=identity):
            made = list(group)
            operation = self._operations.get(maker)
            names = [each.event for each in made]
            if operation is None:
                yield Violation("event of nobody", f"{secret_id}: {names} by {maker}")
                continue
            if maker in seen or len(set(names)) < len(names):
                yield Violation("event doubled", f"{secret_id}: {names} by {maker}")
                continue
            seen.add(maker)
            if operation.outcome == "refused":
                yield Violation("refused change made", f"{secret_id}: {_text(operation)}")
            shown = self._shown(operation)
            # a client secret may expire between the decision and its event
            for at in (made[-1].at, operation.invoked):
                effect = model.apply(version, operation, at=at, shown=shown)
                made_version = effect.version
                if made_version.exists:
                    made_version = replace(made_version, client_id=made[0].client_id)
                if not effect.is_refused and _is_made_by(operation, made, effect, made_version):
                    break
            else:
                yield Violation("wrong event", f"{secret_id}: {_text(operation)} made {made}")
            version = made_version
            until = self._known_done(operation)
            steps.append(Step(operation.invoked, until, version, operation))

    def _shown(self, operation: Operation) -> dict[str, Any] | None:
        """Return the answer to the operation, or to one of its repetitions."""
        answers = [e.answer for e in self._attempts(operation) if e.outcome == "ok"]
        return answers[0] if answers and "secret" in answers[0] else None

    def _known_done(self, operation: Operation) -> float:
        """Return when the client knew that the change was made."""
        known = [e.returned for e in self._attempts(operation) if _is_acknowledged(e)]
        return min(known, default=float("inf"))

    def _attempts(self, operation: Operation) -> list[Operation]:
        if "key" not in operation.asked:
            return [operation]
        return self._repeated[operation.client, operation.asked["key"]]

    def _observations(self, secret_id: str, steps: list[Step]) -> Iterator[Operation]:
        for each in self._about[secret_id]:
            if (each.outcome == "refused" and each.answer["problem"] not in _SAYS_NOTHING) or (
                each.outcome == "ok"
                and (
                    each.verb in {"verify", "get"}
                    or (each.verb == "update" and each.request_id not in self._made)
                )
            ):
                yield each
        if not self._events[secret_id]:
            return
        for each in self._lists[self._events[secret_id][0].unit]:
            if self._is_about(each, secret_id, steps):
                yield each

    def _is_about(self, operation: Operation, secret_id: str, steps: list[Step]) -> bool:
        """Tell whether a list or a command says something about the credential."""
        if operation.verb == "list":
            if any(e["secret_id"] == secret_id for e in operation.answer["credentials"]):
                return True
        elif secret_id in self._made.get(operation.request_id, ()):
            return False
        if not steps or operation.returned < steps[0].invoked:
            return False
        return steps[-1].version.exists or operation.invoked <= steps[-1].until

    def _stored(self, secret_id: str, version: Version) -> Iterator[Violation]:
        stored = [each for each in self._history.stored if each.secret_id == secret_id]
        if len(stored) != version.exists:
            yield Violation("stored differs", f"{secret_id}: {stored}, not {version}")
        elif stored:
            [row] = stored
            slack = self._history.settings.slack
            answer = {"name": row.name, "trust": row.trust, "enabled": row.enabled}
            found = model.detailed(version, answer | {"hints": row.hints})
            is_right = any(a - slack <= row.at <= b + slack for a, b in found)
            if not is_right or (row.with_unit, row.client_id) != (
                version.with_unit,
                version.client_id,
            ):
                yield Violation("stored differs", f"{secret_id}: {row}, not {version}")

    # --- changes ---

    def _acknowledged(self) -> Iterator[Violation]:
        for each in self._history.operations:
            if (
                _is_acknowledged(each)
                and each.verb in _MAKES_ONE_EVENT
                and not any(attempt.request_id in self._made for attempt in self._attempts(each))
            ):
                yield Violation("event missing", _text(each))
            if each.outcome == "ok" and each.verb.endswith("_all"):
                made = len(self._made.get(each.request_id, ()))
                if made != each.answer["count"]:
                    yield Violation("event missing", f"{_text(each)} made {made} events")
        for maker, secret_ids in self._made.items():
            operation = self._operations.get(maker)
            if operation is None or operation.verb.endswith("_all"):
                continue
            if len(secret_ids) > 1:
                yield Violation("event doubled", f"{_text(operation)} for {sorted(secret_ids)}")

    def _repetitions(self) -> Iterator[Violation]:
        for attempts in self._repeated.values():
            made = [each for each in attempts if each.request_id in self._made]
            if len(made) > 1:
                yield Violation("event doubled", f"one key: {[_text(each) for each in made]}")
            answered = [each for each in attempts if each.outcome == "ok"]
            self.counts["replays"] += sum(each.answer["replayed"] for each in answered)
            for each in answered:
                members = each.answer.keys() - {"echo", "replayed"}
                first = answered[0].answer
                is_same = all(each.answer[name] == first.get(name) for name in members)
                if not is_same or each.answer["replayed"] == (each in made):
                    yield Violation("replay differs", f"{_text(each)}, not {_text(answered[0])}")
            for each in attempts:
                if each.answer.get("problem") == "answer-erased" and not self._may_be_erased(each):
                    yield Violation("replay differs", f"{_text(each)}: nothing has erased it")

    def _may_be_erased(self, operation: Operation) -> bool:
        """Tell whether the client secret may have been used or ended before the answer."""
        shown = self._shown(operation)
        made = {s for e in self._attempts(operation) for s in self._made.get(e.request_id, ())}
        for secret_id in made:
            if shown is None and len(self._steps[secret_id]) > 1:
                return True
            if any(
                each.invoked < operation.returned
                and (
                    each.verb != "verify"
                    or shown is None
                    or each.asked["secret"] == shown["secret"]
                )
                and each.verb != "get"
                and each not in self._attempts(operation)
                for each in self._about[secret_id]
            ):
                return True
            if any(
                step.operation.verb.endswith("_all") and step.invoked < operation.returned
                for step in self._steps[secret_id]
            ):
                return True
        return False

    # --- limits and conditions ---

    def _quotas(self) -> Iterator[Violation]:
        quota = self._history.settings.quota
        if quota is None:
            return
        for count in self._history.counts:
            if count.credentials > quota:
                yield Violation("quota exceeded", f"{count}")
        for each in self._history.operations:
            if each.answer.get("problem") == "credential-limit":
                most = sum(
                    steps[0].invoked <= each.returned
                    and (steps[-1].version.exists or steps[-1].until >= each.invoked)
                    for secret_id, steps in self._steps.items()
                    if steps and self._events[secret_id][0].unit == each.unit
                )
                if most < quota:
                    yield Violation("refused below quota", f"{_text(each)}: at most {most} of them")

    def _unused(self) -> Iterator[Violation]:
        for each in self._history.operations:
            seconds = each.asked.get("unused_for")
            if seconds is None or each.secret_id is None:
                continue
            tries = [e for e in self._about[each.secret_id] if e.verb == "verify"]
            if each.request_id in self._made:
                for use in tries:
                    if (
                        use.outcome == "ok"
                        and each.invoked - seconds
                        < use.invoked
                        < use.returned
                        < each.invoked - _RECORDED_SECONDS
                        and not self._is_disturbed(use.invoked, each.returned)
                    ):
                        yield Violation("used one revoked", f"{_text(each)} after {_text(use)}")
                        break
            elif each.answer.get("problem") == "credential-in-use":
                since = each.invoked - seconds - _RECORDED_SECONDS
                was_tried = any(
                    since - _RECORDED_ONCE_SECONDS < use.returned
                    and use.invoked < each.returned
                    and use.outcome != "refused"
                    for use in tries
                )
                if not was_tried and not self._has_new_secret(each, since):
                    yield Violation("unused one kept", _text(each))

    def _has_new_secret(self, operation: Operation, since: float) -> bool:
        """Tell whether the credential may have got a client secret between then and the answer."""
        return any(
            step.operation.verb in {"issue", "rotate"}
            and since < step.until
            and step.invoked < operation.returned
            for step in self._steps.get(operation.secret_id or "", [])
        )

    def _is_disturbed(self, began: float, ended: float) -> bool:
        return any(
            fault.began < ended and began < fault.healed + _RECORDED_SECONDS
            for fault in self._history.faults
            if fault.kind not in _EXCUSES_NOTHING
        )

    # --- feeds ---

    def _feeds(self) -> Iterator[Violation]:
        pages = defaultdict(list)
        for page in self._history.pages:
            pages[page.follower, page.unit] += page.events
        by_unit: dict[str, list[Event]] = defaultdict(list)
        for event in sorted(
            self._history.events, key=lambda each: (each.transaction_id, each.event_id)
        ):
            by_unit[event.unit].append(event)
        for (follower, unit), delivered in pages.items():
            self.counts["deliveries"] += len(delivered)
            for violation in _compare(delivered, by_unit[unit]):
                yield Violation(violation.kind, f"{follower}: {violation.text}")


def _compare(delivered: list[dict[str, Any]], stored: list[Event]) -> Iterator[Violation]:
    """Compare what a follower got with the trail in the database's order."""
    got = [(each["request_id"], each["secret_id"], each["event"]) for each in delivered]
    right = {(each.request_id, each.secret_id, each.event): each for each in stored}
    for key, count in Counter(got).items():
        if key not in right:
            yield Violation("feed of nobody", f"{key}")
        elif count > 1:
            yield Violation("feed doubled", f"{key}")
    order, delivered_keys = list(right), set(got)
    reached = max((n for n, key in enumerate(order, 1) if key in delivered_keys), default=0)
    missing = right.keys() - delivered_keys
    skipped = missing.intersection(order[:reached])
    if skipped:
        yield Violation("feed skipped", f"{len(skipped)} of {len(right)}: {sorted(skipped)[:5]}")
    if reached < len(order):
        yield Violation("feed incomplete", f"it ends after {reached} of {len(right)}")
    once = [key for key in dict.fromkeys(got) if key in right]
    expected = [key for key in right if key not in missing]
    if once != expected:
        first = next(
            n for n, pair in enumerate(zip(once, expected, strict=True)) if len({*pair}) > 1
        )
        yield Violation("feed disordered", f"{once[first]} before {expected[first]}")
    for key, each in zip(got, delivered, strict=True):
        if key in right and any(each[name] != getattr(right[key], name) for name in _SHOWN):
            yield Violation("feed of nobody", f"{each}, not {right[key]}")


def _is_acknowledged(operation: Operation) -> bool:
    return operation.outcome == "ok" or operation.answer.get("problem") == "answer-erased"


def _is_made_by(
    operation: Operation, made: list[Event], effect: model.Effect, version: Version
) -> bool:
    """Tell whether the events are what the operation makes of the version before it."""
    first = made[0]
    actor = operation.request_id if first.via == "cli" else operation.client
    asked = operation.secret_id or first.secret_id
    if any(
        (each.actor, each.unit, each.secret_id) != (actor, operation.unit, asked) for each in made
    ):
        return False
    details = {each.event: each.detail for each in made}
    if operation.verb == "issue":
        wanted = {"client_id": first.client_id, "name": operation.asked["name"]}
        shown = effect.version.client_id
        return details == {"issued": wanted} and shown in {"", first.client_id}
    named = version.name if version.exists else first.name
    return details == effect.events and all(
        (each.name, each.client_id) == (named, first.client_id) for each in made
    )


def _kind(operation: Operation) -> str:
    if operation.verb == "verify":
        return "ended one accepted" if operation.outcome == "ok" else "valid one refused"
    return "stale read"


def _text(operation: Operation) -> str:
    return (
        f"{operation.request_id} {operation.verb} {operation.secret_id or operation.unit} "
        f"{operation.asked} at {operation.invoked:.3f}-{operation.returned:.3f}: "
        f"{operation.status} {operation.answer}"
    )
