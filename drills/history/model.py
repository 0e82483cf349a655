"""The sequential model of a credential: what each verb does to it, and what each answer says of it.

A trail gives the order of a credential's versions. `apply` says which events and which version an
operation makes of the version before it; `windows` says when a version allows an answer.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from drills.history.history import Operation

FOREVER = (float("-inf"), float("inf"))
Window = tuple[float, float]


@dataclass(frozen=True)
class Secret:
    """A client secret: what is known of it, and between which times it expires."""

    fingerprint: str | None  # None if no answer has shown it
    hint: str | None
    expires: Window = (float("inf"), float("inf"))

    def may_live(self, at: float) -> bool:
        return at <= self.expires[1]

    def must_live(self, at: float) -> bool:
        return at < self.expires[0]


@dataclass(frozen=True)
class Version:
    """A credential between two changes. The first version of each does not exist."""

    exists: bool = False
    client_id: str = ""
    name: str = ""
    trust: bool = False
    enabled: bool = True
    with_unit: bool = False
    secrets: tuple[Secret, ...] = ()

    def secret(self, fingerprint: str) -> Secret | None:
        return next((each for each in self.secrets if each.fingerprint == fingerprint), None)


ABSENT = Version()


@dataclass(frozen=True)
class Effect:
    """What an operation makes of a version: the events (name and detail), and the new version."""

    version: Version
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_refused: bool = False


def apply(  # noqa: C901, PLR0911  a branch for each verb
    version: Version, operation: Operation, *, at: float, shown: dict[str, Any] | None
) -> Effect:
    """Apply a change at a time. `shown` is the answer with the new client secret, if there is one.

    The effect has no events if nothing changes.
    """
    verb, asked = operation.verb, operation.asked
    if verb == "issue":
        secret = _new_secret(shown)
        client_id = (shown or {}).get("client_id")
        detail = {"name": asked["name"]} | ({"client_id": client_id} if client_id else {})
        issued = Version(
            exists=True, client_id=client_id or "", name=asked["name"], secrets=(secret,)
        )
        return Effect(issued, {"issued": detail}, is_refused=version.exists)
    if not version.exists:
        return Effect(version, is_refused=not verb.endswith("_all"))
    if verb in {"revoke", "revoke_all"}:
        return Effect(ABSENT, {"revoked": _detail_of(verb)})
    if verb == "disable_all":
        if not version.enabled:
            return Effect(version)
        changed = replace(version, enabled=False, with_unit=True)
        return Effect(changed, {"disabled": _detail_of(verb)})
    if verb == "enable_all":
        if not version.with_unit:
            return Effect(version)
        return Effect(
            replace(version, enabled=True, with_unit=False), {"enabled": _detail_of(verb)}
        )
    if verb == "update":
        return _update(version, asked)
    if verb == "rotate":
        return _rotate(version, operation, at, shown)
    if verb == "end_secret":
        return _end_secret(version, asked["hint"], at)
    raise ValueError(f"{verb} changes nothing")


def _detail_of(verb: str) -> dict[str, Any]:
    return {"all": True} if verb.endswith("_all") else {}


def _new_secret(shown: dict[str, Any] | None) -> Secret:
    return Secret(None, None) if shown is None else Secret(shown["secret"], shown["hint"])


def _update(version: Version, asked: dict[str, Any]) -> Effect:
    updated = replace(
        version,
        name=asked.get("name", version.name),
        trust=asked["trust"],
        enabled=asked.get("enabled", version.enabled),
        with_unit=version.with_unit and "enabled" not in asked,
    )
    detail: dict[str, Any] = {}
    if updated.name != version.name:
        detail["name"] = {"from": version.name, "to": updated.name}
    if updated.trust != version.trust:
        detail["trust_upstream_consent"] = {"from": version.trust, "to": updated.trust}
    events = {"updated": detail} if detail else {}
    if (updated.enabled, updated.with_unit) != (version.enabled, version.with_unit):
        events["enabled" if updated.enabled else "disabled"] = {}
    return Effect(updated, events)


def _rotate(
    version: Version, operation: Operation, at: float, shown: dict[str, Any] | None
) -> Effect:
    overlap_seconds = operation.asked["overlap_seconds"]
    kept: list[Secret] = []
    if overlap_seconds:
        # the previous one ends so long after some time between the call and its event
        end = (operation.invoked + overlap_seconds, at + overlap_seconds)
        kept = [
            replace(each, expires=(min(each.expires[0], end[0]), min(each.expires[1], end[1])))
            for each in version.secrets
            if each.may_live(at)
        ]
    is_refused = sum(each.must_live(at) for each in version.secrets) > 1 and overlap_seconds > 0
    rotated = replace(version, secrets=(*kept, _new_secret(shown)))
    return Effect(rotated, {"rotated": {"overlap_seconds": overlap_seconds}}, is_refused=is_refused)


def _end_secret(version: Version, hint: str, at: float) -> Effect:
    """End the client secret with the hint, or else one that no answer has shown."""
    ended = [each for each in version.secrets if each.hint == hint]
    ended = ended or [each for each in version.secrets if each.hint is None]
    others = [each for each in version.secrets if each not in ended[:1]]
    is_refused = not any(each.may_live(at) for each in ended) or not any(
        each.may_live(at) for each in others
    )
    ended_version = replace(version, secrets=tuple(others))
    return Effect(ended_version, {"secret_ended": {"hint": hint}}, is_refused=is_refused)


def windows(  # noqa: PLR0911  a branch for each answer
    version: Version, operation: Operation, secret_id: str
) -> list[Window]:
    """Return when the version allows the operation's answer about the credential; empty if never.

    For a change, the answer is one that follows from no change: a refusal, or that nothing changed.
    """
    if operation.outcome == "refused":
        return _refusal(version, operation)
    if operation.verb == "verify":
        secret = version.secret(operation.asked["secret"])
        if secret is None or not version.enabled or not _shows(operation.answer, version):
            return []
        return [(FOREVER[0], secret.expires[1])]
    if operation.verb == "get":
        return detailed(version, operation.answer)
    if operation.verb == "list":
        found = [c for c in operation.answer["credentials"] if c["secret_id"] == secret_id]
        if not found:
            return [] if version.exists else [FOREVER]
        return [FOREVER] if version.exists and _shows(found[0], version) else []
    effect = apply(version, operation, at=operation.invoked, shown=None)
    return [] if effect.events or effect.is_refused else [FOREVER]


def _shows(answer: dict[str, Any], version: Version) -> bool:
    return (answer["name"], answer["trust"]) == (version.name, version.trust)


def detailed(version: Version, answer: dict[str, Any]) -> list[Window]:
    """Return when the version allows an answer with the hints of all live client secrets."""
    if not version.exists or not _shows(answer, version) or answer["enabled"] != version.enabled:
        return []
    missing = list(version.secrets)
    for hint in answer["hints"]:
        match = [each for each in missing if each.hint == hint]
        match = match or [each for each in missing if each.hint is None]
        if not match:
            return []
        missing.remove(match[0])
    shown = [each for each in version.secrets if each not in missing]
    begin = max([FOREVER[0], *(each.expires[0] for each in missing)])
    end = min([FOREVER[1], *(each.expires[1] for each in shown)])
    return [(begin, end)] if begin < end else []


def _refusal(  # noqa: PLR0911  a branch for each problem
    version: Version, operation: Operation
) -> list[Window]:
    problem = operation.answer["problem"]
    if operation.verb == "verify":
        secret = version.secret(operation.asked["secret"])
        if secret is None or not version.enabled:
            return [FOREVER]
        return [(secret.expires[0], FOREVER[1])]
    if problem == "credential-not-found":
        return [] if version.exists else [FOREVER]
    if not version.exists:
        return []
    if problem == "client-secret-not-found":
        found = [each for each in version.secrets if each.hint == operation.asked["hint"]]
        return [(each.expires[0], FOREVER[1]) for each in found] or [FOREVER]
    if problem in {"live-secret-limit", "ambiguous-hint"}:
        ends = sorted((each.expires[1] for each in version.secrets), reverse=True)
        return [(FOREVER[0], end) for end in ends[1:2]]
    if problem == "last-secret":
        hint = operation.asked["hint"]
        others = [each for each in version.secrets if each.hint not in {hint, None}]
        return [(max([FOREVER[0], *(each.expires[0] for each in others)]), FOREVER[1])]
    return [FOREVER]  # in use, under way, erased: what it says is checked elsewhere
