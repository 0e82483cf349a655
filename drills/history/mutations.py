"""Planted faults: each corrupts a clean history so that the checker must notice it.

    .venv/bin/python -m drills.history.mutations var/history.jsonl

A mutation changes only what no concurrent operation could explain. It returns None if the history
has no such place.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from drills.history.checker import check, identity
from drills.history.history import Count, Event, History, Operation

Mutation = Callable[["Site"], History | None]
Item = TypeVar("Item")

DRAWS = 10
_LATER_SECONDS = 3.5  # more than the checker leaves for the recording of a use

MUTATIONS: dict[Mutation, set[str]] = {}  # each with the kinds of violation that name it


class Site:
    """A clean history, and the random places in it."""

    def __init__(self, history: History, random: Random) -> None:
        self.history = history
        self._random = random
        self._by_id = {each.request_id: each for each in history.operations}
        self.events: dict[str, list[Event]] = defaultdict(list)  # by credential
        self.made: dict[str, list[Event]] = defaultdict(list)  # by operation
        for event in history.events:
            self.events[event.secret_id].append(event)
            self.made[identity(event)].append(event)

    def choose(self, items: Iterable[Item]) -> Item | None:
        found = list(items)
        return self._random.choice(found) if found else None

    def operations(self, *verbs: str, outcome: str = "ok") -> list[Operation]:
        return [o for o in self.history.operations if o.verb in verbs and o.outcome == outcome]

    def changes(self, secret_id: str) -> list[Operation]:
        """Return the operations that changed the credential, in order."""
        makers = dict.fromkeys(identity(each) for each in self.events[secret_id])
        return [self._by_id[each] for each in makers]

    def before(self, operation: Operation, secret_id: str) -> list[Operation] | None:
        """Return the changes that came before, or None if one may have been concurrent."""
        changes = self.changes(secret_id)
        earlier = [each for each in changes if each.invoked < operation.returned]
        are_over = all(e.outcome == "ok" and e.returned < operation.invoked for e in earlier)
        return earlier if are_over else None

    def put(self, old: Operation, **changed: Any) -> History:
        """Return the history with the operation changed."""
        mutant = copy(self.history)
        mutant.operations = [
            replace(each, **changed) if each is old else each for each in mutant.operations
        ]
        return mutant

    def put_events(self, events: list[Event]) -> History:
        mutant = copy(self.history)
        mutant.events = sorted(events, key=lambda each: each.event_id)
        return mutant

    def put_page(self, change: Callable[[list[dict[str, Any]]], None]) -> History | None:
        """Return the history with one page changed, which has several different events."""
        numbers = [n for n, page in enumerate(self.history.pages) if len(page.events) > 1]
        number = self.choose(numbers)
        if number is None:
            return None
        mutant = copy(self.history)
        mutant.pages = list(mutant.pages)
        page = mutant.pages[number]
        events = list(page.events)
        change(events)
        mutant.pages[number] = replace(page, events=events)
        return mutant


def _noticed_as(*kinds: str) -> Callable[[Mutation], Mutation]:
    def register(mutation: Mutation) -> Mutation:
        MUTATIONS[mutation] = set(kinds)
        return mutation

    return register


# --- changes and their events ---


@_noticed_as("wrong event")
def lost_update(site: Site) -> History | None:
    """A rename is based on a version that another rename had already replaced."""
    event = site.choose(
        e for e in site.history.events if "name" in e.detail and e.event == "updated"
    )
    if event is None:
        return None
    stale = {"from": "an older name", "to": event.detail["name"]["to"]}
    detail = event.detail | {"name": stale}
    others = [each for each in site.history.events if each is not event]
    return site.put_events([*others, replace(event, detail=detail)])


@_noticed_as("event missing", "stale read", "wrong event", "stored differs")
def acknowledged_change_lost(site: Site) -> History | None:
    """A change was acknowledged, and the trail does not have it."""
    lost = site.choose(
        o
        for o in site.operations("issue", "rotate", "revoke", "end_secret")
        if o.request_id in site.made
    )
    if lost is None:
        return None
    return site.put_events([e for e in site.history.events if identity(e) != lost.request_id])


@_noticed_as("stale read", "wrong event", "stored differs")
def acknowledged_rename_lost(site: Site) -> History | None:
    """A rename was acknowledged, and the trail does not have it."""
    lost = site.choose(
        o for o in site.operations("update") if "name" in o.asked and o.request_id in site.made
    )
    if lost is None:
        return None
    return site.put_events([e for e in site.history.events if identity(e) != lost.request_id])


@_noticed_as("event doubled")
def event_doubled(site: Site) -> History | None:
    """The trail has an event twice."""
    event = site.choose(site.history.events)
    if event is None:
        return None
    last = max(each.event_id for each in site.history.events)
    return site.put_events([*site.history.events, replace(event, event_id=last + 1)])


@_noticed_as("event doubled")
def one_key_two_changes(site: Site) -> History | None:
    """An idempotent request made its change at two attempts."""
    keys = defaultdict(list)
    for each in site.operations("issue", "rotate"):
        if "key" in each.asked:
            keys[each.asked["key"]].append(each)
    attempts = site.choose(found for found in keys.values() if len(found) > 1)
    if attempts is None:
        return None
    [made] = [each for each in attempts if each.request_id in site.made]
    other = next(each for each in attempts if each is not made)
    event = site.made[made.request_id][0]
    last = max(each.event_id for each in site.history.events)
    again = replace(event, event_id=last + 1, request_id=other.request_id)
    return site.put_events([*site.history.events, again])


@_noticed_as("event of nobody")
def event_of_nobody(site: Site) -> History | None:
    """The trail has an event that no client asked for."""
    event = site.choose(e for e in site.history.events if e.via == "api")
    if event is None:
        return None
    last = max(each.event_id for each in site.history.events)
    made = replace(event, event_id=last + 1, request_id="somebody-else")
    return site.put_events([*site.history.events, made])


@_noticed_as("refused change made")
def refused_change_made(site: Site) -> History | None:
    """A change was refused, and made."""
    change = site.choose(
        o for o in site.operations("revoke", "rotate") if o.request_id in site.made
    )
    if change is None:
        return None
    answer = {"problem": "credential-not-found", "echo": change.request_id}
    return site.put(change, outcome="refused", status=404, answer=answer)


@_noticed_as("two orders")
def two_orders(site: Site) -> History | None:
    """The unit's trail has two events of a credential in another order than its own trail."""
    events = site.choose(
        each for each in site.events.values() if len({e.transaction_id for e in each}) > 1
    )
    if events is None:
        return None
    first, last = events[0], events[-1]
    others = [each for each in site.history.events if each is not first and each is not last]
    return site.put_events(
        [
            *others,
            replace(first, transaction_id=last.transaction_id),
            replace(last, transaction_id=first.transaction_id),
        ]
    )


@_noticed_as("stored differs")
def stored_differs(site: Site) -> History | None:
    """What is stored at the end is not what the last change made."""
    row = site.choose(site.history.stored)
    if row is None:
        return None
    mutant = copy(site.history)
    mutant.stored = [replace(e, name="other") if e is row else e for e in mutant.stored]
    return mutant


@_noticed_as("stored differs")
def revoked_one_stored(site: Site) -> History | None:
    """A revoked credential is back."""
    event = site.choose(e for e in site.history.events if e.event == "revoked")
    row = site.choose(site.history.stored)
    if event is None or row is None:
        return None
    mutant = copy(site.history)
    mutant.stored = [*mutant.stored, replace(row, secret_id=event.secret_id)]
    return mutant


# --- answers ---


@_noticed_as("stale read")
def stale_read(site: Site) -> History | None:
    """A credential is shown with a name that an acknowledged change had replaced."""
    reads = []
    for each in site.operations("get"):
        before = site.before(each, each.secret_id or "")
        names = [o.asked["name"] for o in before or [] if "name" in o.asked]
        if len(names) > 1:
            reads.append((each, names[-2]))
    found = site.choose(reads)
    return found and site.put(found[0], answer=found[0].answer | {"name": found[1]})


@_noticed_as("stale read")
def ended_secret_shown(site: Site) -> History | None:
    """A credential is shown with a client secret that it does not have."""
    read = site.choose(o for o in site.operations("get") if o.answer["hints"])
    if read is None:
        return None
    hints = [*read.answer["hints"][1:], "none"]
    known = site.before(read, read.secret_id or "")
    return None if known is None else site.put(read, answer=read.answer | {"hints": hints})


@_noticed_as("stale read")
def revoked_one_listed(site: Site) -> History | None:
    """A list shows a credential after the acknowledged end of it."""
    found = []
    for each in site.operations("list"):
        for revoke in site.operations("revoke"):
            is_over = revoke.unit == each.unit and revoke.returned < each.invoked
            if is_over and revoke.request_id in site.made:
                found.append((each, site.made[revoke.request_id][0]))
    chosen = site.choose(found)
    if chosen is None:
        return None
    read, event = chosen
    shown = {
        "secret_id": event.secret_id, "unit_id": event.unit, "client_id": event.client_id,
        "name": event.name, "trust": False,
    }  # fmt: skip
    return site.put(read, answer={"credentials": [*read.answer["credentials"], shown]})


@_noticed_as("stale read")
def live_one_not_listed(site: Site) -> History | None:
    """A list lacks a credential that existed all the time."""
    found = []
    for each in site.operations("list"):
        shown = each.answer["credentials"]
        found += [(each, c) for c in shown if site.before(each, c["secret_id"]) is not None]
    chosen = site.choose(found)
    if chosen is None:
        return None
    read, left_out = chosen
    shown = [each for each in read.answer["credentials"] if each is not left_out]
    return site.put(read, answer={"credentials": shown})


@_noticed_as("ended one accepted")
def revoked_one_accepted(site: Site) -> History | None:
    """A verification accepts a credential after its acknowledged revocation."""
    return _accepted_after(site, "revoke")


@_noticed_as("ended one accepted")
def rotated_one_accepted(site: Site) -> History | None:
    """A verification accepts a client secret after an acknowledged rotation without overlap."""
    return _accepted_after(site, "rotate")


def _accepted_after(site: Site, verb: str) -> History | None:
    ends = {
        o.secret_id: o
        for o in site.operations(verb)
        if o.request_id in site.made and not o.asked.get("overlap_seconds")
    }
    found = []
    accepted = {o.asked["secret"]: o for o in site.operations("verify")}
    for each in site.operations("verify", outcome="refused"):
        end = ends.get(each.secret_id)
        before = accepted.get(each.asked["secret"])
        if end and before and before.returned < end.invoked and end.returned < each.invoked:
            found.append((each, before))
    chosen = site.choose(found)
    if chosen is None:
        return None
    answer = chosen[1].answer | {"echo": chosen[0].request_id}
    return site.put(chosen[0], outcome="ok", status=200, answer=answer)


@_noticed_as("valid one refused")
def valid_one_refused(site: Site) -> History | None:
    """A verification refuses the newest client secret of an enabled credential."""
    found = []
    for each in site.operations("verify"):
        before = site.before(each, each.secret_id or "")
        shown = [o.answer["secret"] for o in before or [] if o.verb in {"issue", "rotate"}]
        if shown and shown[-1] == each.asked["secret"]:
            found.append(each)
    return _refused(site, site.choose(found))


@_noticed_as("ended one accepted", "valid one refused")
def foreign_name(site: Site) -> History | None:
    """A verification answers with a name that the credential never had."""
    each = site.choose(site.operations("verify"))
    return each and site.put(each, answer=each.answer | {"name": "somebody else's"})


def _refused(site: Site, operation: Operation | None) -> History | None:
    if operation is None:
        return None
    answer = {"problem": "invalid-pair", "echo": operation.request_id}
    return site.put(operation, outcome="refused", status=401, answer=answer)


@_noticed_as("foreign answer")
def foreign_answer(site: Site) -> History | None:
    """A verification gets the answer about another credential."""
    one = site.choose(site.operations("verify"))
    others = [o for o in site.operations("verify") if one and o.secret_id != one.secret_id]
    other = site.choose(others)
    if one is None or other is None:
        return None
    return site.put(one, answer=other.answer | {"echo": one.request_id})


@_noticed_as("foreign answer")
def foreign_header(site: Site) -> History | None:
    """A verification has the unit of somebody else in a header."""
    one = site.choose(site.operations("verify"))
    if one is None:
        return None
    headers = [one.answer["headers"][0], "unit_of_another", *one.answer["headers"][2:]]
    return site.put(one, answer=one.answer | {"headers": headers})


@_noticed_as("foreign answer")
def mixed_pair_accepted(site: Site) -> History | None:
    """A client ID is accepted with the client secret of another credential."""
    mixed = site.choose(
        o for o in site.operations("verify", outcome="refused") if o.secret_id is None
    )
    valid = site.choose(site.operations("verify"))
    if mixed is None or valid is None:
        return None
    answer = valid.answer | {"echo": mixed.request_id}
    return site.put(mixed, outcome="ok", status=200, answer=answer)


@_noticed_as("foreign answer")
def foreign_request_id(site: Site) -> History | None:
    """An answer has the X-Request-Id of another call."""
    each = site.choose(o for o in site.history.operations if "echo" in o.answer)
    return each and site.put(each, answer=each.answer | {"echo": "client-0.0"})


@_noticed_as("wrong answer")
def server_error(site: Site) -> History | None:
    """A call gets 500."""
    each = site.choose(site.operations("get"))
    return each and site.put(each, outcome="wrong", status=500, answer={})


@_noticed_as("replay differs")
def replay_differs(site: Site) -> History | None:
    """A repeated request gets another client secret than the first one."""
    each = site.choose(o for o in site.operations("issue", "rotate") if o.answer.get("replayed"))
    return each and site.put(each, answer=each.answer | {"secret": "another"})


@_noticed_as("replay differs")
def replay_not_marked(site: Site) -> History | None:
    """A repeated request gets its first answer, as if it were made again."""
    each = site.choose(o for o in site.operations("issue", "rotate") if o.answer.get("replayed"))
    return each and site.put(each, answer=each.answer | {"replayed": False})


# --- limits and conditions ---


@_noticed_as("quota exceeded")
def quota_exceeded(site: Site) -> History | None:
    """A unit has more credentials than it may have."""
    count = site.choose(site.history.counts)
    if count is None:
        return None
    mutant = copy(site.history)
    more = Count(count.unit, count.at, (site.history.settings.quota or 0) + 1)
    mutant.counts = [more if each is count else each for each in mutant.counts]
    return mutant


@_noticed_as("refused below quota")
def refused_below_quota(site: Site) -> History | None:
    """An issue is refused by the quota when the unit has no credential yet."""
    issue = site.choose(o for o in site.operations("issue") if "key" not in o.asked)
    if issue is None:
        return None
    began = min(each.invoked for each in site.history.operations) - 1
    mutant = copy(site.history)
    refused = replace(
        issue, request_id="refused", invoked=began, returned=began + 0.1, outcome="refused",
        status=409, answer={"problem": "credential-limit"},
    )  # fmt: skip
    mutant.operations = [*mutant.operations, refused]
    return mutant


@_noticed_as("used one revoked")
def used_one_revoked(site: Site) -> History | None:
    """A credential is revoked as unused soon after it was used."""
    faults = site.history.faults
    found = []
    for revoke in site.operations("revoke"):
        for use in site.operations("verify"):
            is_same = use.secret_id == revoke.secret_id and revoke.request_id in site.made
            is_long_ago = use.returned < revoke.invoked - _LATER_SECONDS
            is_quiet = all(
                f.kind == "lock_rows"
                or f.began > revoke.returned
                or f.healed + _LATER_SECONDS < use.invoked
                for f in faults
            )
            if is_same and is_long_ago and is_quiet and use.invoked > revoke.invoked - 60:
                found.append(revoke)
    revoke = site.choose(found)
    return revoke and site.put(revoke, asked={"unused_for": 60})


@_noticed_as("unused one kept")
def unused_one_kept(site: Site) -> History | None:
    """A credential is kept as used although nobody has tried it, and its client secrets are old."""
    last_secret: dict[str | None, float] = {}
    for o in site.history.operations:
        if o.verb in {"issue", "rotate"} and o.outcome != "refused":
            secret_id = o.secret_id or o.answer.get("secret_id")
            returned = o.returned if o.outcome == "ok" else inf
            last_secret[secret_id] = max(returned, last_secret.get(secret_id, 0.0))
    revoke = site.choose(
        o
        for o in site.operations("revoke")
        if last_secret.get(o.secret_id, inf) < o.invoked - _LATER_SECONDS - 1
    )
    if revoke is None:
        return None
    kept = replace(
        revoke,
        request_id=f"{revoke.request_id}.kept",
        outcome="refused",
        asked={"unused_for": 1},
        answer={"problem": "credential-in-use"},
    )
    mutant = copy(site.history)
    mutant.operations = [
        o
        for o in mutant.operations
        if not (o.verb == "verify" and o.secret_id == revoke.secret_id and o.outcome != "refused")
    ]
    mutant.operations.append(kept)
    return mutant


# --- feeds ---


@_noticed_as("feed skipped")
def feed_skipped(site: Site) -> History | None:
    """A follower misses an event."""
    return site.put_page(lambda events: events.pop(0))


@_noticed_as("feed doubled")
def feed_doubled(site: Site) -> History | None:
    """A follower gets an event twice."""
    return site.put_page(lambda events: events.append(events[0]))


@_noticed_as("feed disordered")
def feed_disordered(site: Site) -> History | None:
    """A follower gets two events in another order than the database has them."""
    return site.put_page(lambda events: events.reverse())


@_noticed_as("feed of nobody")
def feed_of_nobody(site: Site) -> History | None:
    """A follower gets an event that the trail does not have."""
    return site.put_page(lambda events: events.append(events[0] | {"request_id": "nobody"}))


@_noticed_as("feed of nobody")
def feed_differs(site: Site) -> History | None:
    """A follower gets an event with another actor than the trail has."""

    def change(events: list[dict[str, Any]]) -> None:
        events[0] = events[0] | {"actor": "somebody else"}

    return site.put_page(change)


@_noticed_as("feed incomplete")
def feed_silent(site: Site) -> History | None:
    """A follower gets nothing at all."""
    follower = site.choose({page.follower for page in site.history.pages if page.events})
    if follower is None:
        return None
    mutant = copy(site.history)
    mutant.pages = [
        replace(page, events=[]) if page.follower == follower else page for page in mutant.pages
    ]
    return mutant


def try_mutation(mutation: Mutation, history: History, seed: int) -> bool | None:
    """Return whether the checker notices the mutation, or None if the history has no place."""
    mutant = mutation(Site(history, Random(f"{mutation.__name__} {seed}")))
    if mutant is None:
        return None
    return bool(check(mutant).of(*MUTATIONS[mutation]))


def main() -> None:
    """Print for each mutation how many of its draws the checker notices."""
    history = History.read(Path(sys.argv[1]))
    noticed = tried = 0
    for mutation in MUTATIONS:
        found = [try_mutation(mutation, history, seed) for seed in range(DRAWS)]
        found = [each for each in found if each is not None]
        noticed += sum(found)
        tried += len(found)
        print(f"{sum(found):3} of {len(found):2} {mutation.__name__}")
    print(f"{noticed} of {tried} noticed")


if __name__ == "__main__":
    main()
