"""The workload: clients that make random calls of every verb, and record each attempt.

They behave as real callers do: after a 503 or a broken connection they repeat the same change, with
the same Idempotency-Key if they sent one, on any instance.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from random import Random
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from drills.history.history import Operation, Outcome, Recorder, fingerprint
from drills.service import bearer
from tests.helpers import basic
from tests.issuer import Issuer

if TYPE_CHECKING:
    import subprocess

_ANSWER_SECONDS = 20.0
_TOKEN_SECONDS = 300.0  # half of the time for which the issuer's tokens are valid
_ATTEMPTS = 4
_REPEAT_SECONDS = (0.2, 1.0)
_PAUSE_SECONDS = (0.0, 0.08)
_COMMAND_SECONDS = (2.0, 5.0)
_LATER_SECONDS = (0.5, 4.0)
_USED_SECONDS = 1.5  # after the first use, the response of an idempotent request is soon erased
_REMEMBERED = 12  # revoked credentials of a unit, and client secrets of a credential
_REFUSALS = {"verify": {401}}
_HEADERS = ("secret-id", "unit-id", "client-id", "trust-upstream-consent")
_NO_ANSWER = 0

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@dataclass(frozen=True)
class Target:
    """Where the clients call: the instances' ports, and the command line with its arguments."""

    ports: Sequence[int]
    issuer: Issuer
    command: Command
    quota: int | None
    units: Sequence[str] = ("unit_0", "unit_1", "unit_2", "unit_3")


@dataclass
class Known:
    """What the clients know of a credential."""

    secret_id: str
    client_id: str
    unit: str
    secrets: deque[str] = field(default_factory=lambda: deque(maxlen=4))


class World:
    """What all clients know. It may be wrong: what is true, only the history tells."""

    def __init__(self, units: Sequence[str]) -> None:
        self._units = units
        self._lock = Lock()
        self._live: dict[str, dict[str, Known]] = {unit: {} for unit in units}
        self._revoked: dict[str, deque[Known]] = {u: deque(maxlen=_REMEMBERED) for u in units}

    def pick(self, random: Random) -> Known | None:
        """Return one of the credentials, usually one that is not revoked."""
        unit = random.choice(self._units)
        with self._lock:
            live, revoked = list(self._live[unit].values()), list(self._revoked[unit])
        choices = revoked if revoked and random.random() < 0.08 else live
        return random.choice(choices) if choices else None

    def learn(self, unit: str, shown: dict[str, Any]) -> None:
        """Remember the client secret that an answer has shown."""
        with self._lock:
            known = Known(shown["secret_id"], shown["client_id"], unit)
            known = self._live[unit].setdefault(known.secret_id, known)
            if shown["client_secret"] not in known.secrets:
                known.secrets.append(shown["client_secret"])

    def forget(self, unit: str, secret_ids: Sequence[str]) -> None:
        """Remember that the credentials are revoked."""
        with self._lock:
            for secret_id in secret_ids:
                known = self._live[unit].pop(secret_id, None)
                if known is not None:
                    self._revoked[unit].append(known)

    def live(self, unit: str) -> list[str]:
        with self._lock:
            return list(self._live[unit])


@dataclass(frozen=True)
class Reply:
    """The answer to an attempt, with the client secret that the history does not keep."""

    outcome: Outcome
    status: int
    body: Any


@dataclass(frozen=True)
class Request:
    """A call that can be repeated, each time with a new request ID."""

    verb: str
    method: str
    path: str
    unit: str
    secret_id: str | None = None
    body: dict[str, Any] | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    authorization: dict[str, str] | None = None


class Workload:
    """All clients, as threads of this process, so that one clock times them."""

    def __init__(self, target: Target, recorder: Recorder, *, seed: int, clients: int = 12) -> None:
        self.target = target
        self.recorder = recorder
        self.world = World(target.units)
        self.numbers = count(1)
        self.stopped = Event()
        self._clients = [Caller(self, f"client-{n}", Random(f"{seed} {n}")) for n in range(clients)]
        self._clients.append(Operator(self, "operator", Random(f"{seed} operator")))

    def start(self) -> None:
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        """Let each client finish its call. Raises what a client has raised."""
        self.stopped.set()
        for client in self._clients:
            client.join()
        for client in self._clients:
            if client.error is not None:
                raise client.error


class _Client(Thread):
    """A client of its own name, which is the actor of its changes."""

    pause: tuple[float, float]

    def __init__(self, workload: Workload, name: str, random: Random) -> None:
        super().__init__(name=name, daemon=True)
        self.error: Exception | None = None
        self.random = random
        self.workload = workload
        self.world = workload.world
        self.units = workload.target.units

    def run(self) -> None:
        try:
            while not self.sleep(*self.pause):
                self.act()
        except Exception as error:  # noqa: BLE001  `Workload.stop` raises it
            self.error = error
        finally:
            self.close()

    def close(self) -> None:
        """Close the client's connections."""

    def act(self) -> None:
        raise NotImplementedError

    def sleep(self, least: float, most: float) -> bool:
        """Wait for a random time. Return whether the workload has been stopped."""
        return self.workload.stopped.wait(self.random.uniform(least, most))

    def record(self, **members: Any) -> None:
        self.workload.recorder.add(Operation(client=self.name, **members))


class Operator(_Client):
    """Changes whole units with the command line."""

    pause = _COMMAND_SECONDS

    def act(self) -> None:
        unit = self.random.choice(self.units)
        verb = self.random.choices(["disable", "enable", "revoke"], [5, 6, 1])[0]
        confirmed = [] if verb == "enable" else ["--yes"]
        number = next(self.workload.numbers)
        actor = f"{self.name}-{number}"
        known = self.world.live(unit)
        invoked = monotonic()
        done = self.workload.target.command(
            verb, "--all", *confirmed, "--unit", unit, "--actor", actor, "--json"
        )
        is_done = done.returncode == 0
        self.record(
            number=number,
            verb=f"{verb}_all",
            unit=unit,
            secret_id=None,
            request_id=actor,
            asked={},
            invoked=invoked,
            returned=monotonic(),
            outcome="ok" if is_done else "unknown",
            status=done.returncode,
            answer={"count": json.loads(done.stdout)["count"]} if is_done else {},
        )
        if is_done and verb == "revoke":
            self.world.forget(unit, known)


class Caller(_Client):
    """Calls both instances with every verb of the API."""

    pause = _PAUSE_SECONDS

    def __init__(self, workload: Workload, name: str, random: Random) -> None:
        super().__init__(workload, name, random)
        self._ports = workload.target.ports
        self._connections: dict[int, HTTPConnection] = {}
        self._tokens: dict[str, tuple[float, str]] = {}
        self._later: deque[tuple[float, Request]] = deque()
        self._verbs = {
            self._verify: 40,
            self._verify_mixed_pair: 2,
            self._get: 10,
            self._list: 3,
            self._rename: 8,
            self._switch: 8,
            self._rotate: 7,
            self._end_secret: 4,
            self._issue: 5,
            self._issue_once: 2,
            self._rotate_once: 2,
            self._revoke: 3,
            self._revoke_unused: 3,
        }

    def act(self) -> None:
        if self._later and self._later[0][0] <= monotonic():
            self._learn_from(self._call(self._later.popleft()[1]))
            return
        self.random.choices(list(self._verbs), list(self._verbs.values()))[0]()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    # --- the verbs ---

    def _verify(self) -> None:
        known = self._pick()
        if known is not None:
            self._call(_verification(known, self.random.choice(known.secrets)))

    def _verify_mixed_pair(self) -> None:
        """Send the client ID of one credential with the client secret of another."""
        one, other = self._pick(), self._pick()
        if one is not None and other is not None and one.secret_id != other.secret_id:
            self._call(_verification(other, other.secrets[-1], client_id=one.client_id))

    def _get(self) -> None:
        known = self._pick()
        if known is not None:
            self._call(_request("get", "GET", known))

    def _list(self) -> None:
        unit = self.random.choice(self.units)
        self._call(Request("list", "GET", "/secrets", unit))

    def _rename(self) -> None:
        self._update(name=f"{self.name} {next(self.workload.numbers)}")

    def _switch(self) -> None:
        self._update(enabled=self.random.random() < 0.6)

    def _update(self, **asked: Any) -> None:
        known = self._pick()
        if known is None:
            return
        trust = self.random.random() < 0.5
        self._insist(
            _request(
                "update", "PUT", known, body={"trust_upstream_consent": trust} | asked,
                asked={"trust": trust} | asked,
            )
        )  # fmt: skip

    def _rotate(self) -> None:
        known = self._pick()
        if known is not None:
            self._learn_from(self._insist(self._rotation(known)))

    def _end_secret(self) -> None:
        known = self._pick()
        if known is not None:
            hint = self.random.choice(known.secrets)[-4:]
            self._insist(
                _request("end_secret", "DELETE", known, f"/secrets/{hint}", asked={"hint": hint})
            )

    def _issue(self) -> None:
        self._learn_from(self._insist(self._new_credential()))

    def _revoke(self) -> None:
        known = self._pick()
        if known is not None:
            self._revoked(known, self._insist(_request("revoke", "DELETE", known)))

    def _revoke_unused(self) -> None:
        known = self._pick()
        if known is not None:
            request = _request(
                "revoke", "DELETE", known, "?unused_for=60", asked={"unused_for": 60}
            )
            self._revoked(known, self._insist(request))

    def _issue_once(self) -> None:
        self._once(self._new_credential(key=self._new_key()))

    def _rotate_once(self) -> None:
        known = self._pick()
        if known is not None:
            self._once(self._rotation(known, key=self._new_key()))

    def _once(self, request: Request) -> None:
        """Send an idempotent request, alone or three at once, and again later.

        Sometimes the client secret is used in between, so that the response is erased.
        """
        if self.random.random() < 0.5:
            with ThreadPoolExecutor(3) as pool:
                for reply in pool.map(
                    lambda port: self._call_anew(request, port), self._shuffled()
                ):
                    self._learn_from(reply)
        reply = self._insist(request)
        self._learn_from(reply)
        if reply.outcome == "ok" and self.random.random() < 0.5:
            known = Known(reply.body["secret_id"], reply.body["client_id"], request.unit)
            self._call(_verification(known, reply.body["client_secret"]))
            self._later.append((monotonic() + _USED_SECONDS, request))
        else:
            self._later.append((monotonic() + self.random.uniform(*_LATER_SECONDS), request))

    # --- requests ---

    def _pick(self) -> Known | None:
        return self.world.pick(self.random)

    def _new_credential(self, *, key: str | None = None) -> Request:
        unit = self.random.choice(self.units)
        asked = {"name": f"{self.name} {next(self.workload.numbers)}"}
        return Request("issue", "POST", "/secrets", unit, body=asked, asked=asked, key=key)

    def _rotation(self, known: Known, *, key: str | None = None) -> Request:
        asked = {"overlap_seconds": self.random.choices([0, 2, 3600], [3, 3, 4])[0]}
        return _request("rotate", "POST", known, "/rotate", body=asked, asked=asked, key=key)

    def _new_key(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    def _learn_from(self, reply: Reply) -> None:
        if reply.outcome == "ok":
            self.world.learn(reply.body["unit_id"], reply.body)

    def _revoked(self, known: Known, reply: Reply) -> None:
        if reply.status in {204, 404}:
            self.world.forget(known.unit, [known.secret_id])

    # --- calls ---

    def _insist(self, request: Request) -> Reply:
        """Repeat the request until it gets an answer, but not for ever."""
        for _ in range(_ATTEMPTS):
            reply = self._call(request)
            is_under_way = reply.status == 409 and _slug(reply.body) == "request-under-way"
            if reply.outcome != "unknown" and not is_under_way:
                break
            if self.sleep(*_REPEAT_SECONDS):
                break
        return reply

    def _call(self, request: Request) -> Reply:
        port = self.random.choice(self._ports)
        if port not in self._connections:
            self._connections[port] = _connect(port)
        return self._record_call(request, self._connections[port])

    def _call_anew(self, request: Request, port: int) -> Reply:
        """Call on a connection of its own, from any thread."""
        connection = _connect(port)
        try:
            return self._record_call(request, connection)
        finally:
            connection.close()

    def _shuffled(self) -> list[int]:
        ports = [*self._ports, *self._ports][:3]
        self.random.shuffle(ports)
        return ports

    def _record_call(self, request: Request, connection: HTTPConnection) -> Reply:
        number = next(self.workload.numbers)
        request_id = f"{self.name}.{number}"
        headers = request.authorization or bearer(self._token(request.unit))
        headers = headers | {"X-Request-Id": request_id}
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        invoked = monotonic()
        status, sent, body = _ask(connection, request, headers)
        returned = max(monotonic(), invoked + 1e-6)
        outcome = _outcome(request.verb, status)
        answer = _READERS.get(request.verb, _nothing)(body) if outcome == "ok" else {}
        if outcome == "refused":
            answer = {"problem": _slug(body)}
        if status != _NO_ANSWER:
            answer["echo"] = sent.get("x-request-id")
        if outcome == "ok" and request.verb == "verify":
            answer["headers"] = [sent.get(f"x-leadvibe-{name}") for name in _HEADERS]
        if request.key is not None and outcome == "ok":
            answer["replayed"] = sent.get("idempotency-replayed") == "true"
        self.record(
            number=number,
            verb=request.verb,
            unit=request.unit,
            secret_id=request.secret_id,
            request_id=request_id,
            asked=request.asked | ({} if request.key is None else {"key": request.key}),
            invoked=invoked,
            returned=returned,
            outcome=outcome,
            status=status,
            answer=answer,
            port=connection.port,
        )
        return Reply(outcome, status, body)

    def _token(self, unit: str) -> str:
        made, token = self._tokens.get(unit, (0.0, ""))
        if not token or monotonic() - made > _TOKEN_SECONDS:
            token = self.workload.target.issuer.sign(unit_id=unit, sub=self.name)
            self._tokens[unit] = (monotonic(), token)
        return token


def _request(verb: str, method: str, known: Known, rest: str = "", **others: Any) -> Request:
    path = f"/secrets/{known.secret_id}{rest}"
    return Request(verb, method, path, known.unit, known.secret_id, **others)


def _verification(known: Known, client_secret: str, *, client_id: str | None = None) -> Request:
    """Verify the pair, which is a mixed one if the client ID is another credential's."""
    asked = {"client_id": client_id or known.client_id, "secret": fingerprint(client_secret)}
    return Request(
        "verify", "GET", "/verify", known.unit, None if client_id else known.secret_id, asked=asked,
        authorization=basic(client_id or known.client_id, client_secret),
    )  # fmt: skip


def _connect(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)


def _ask(
    connection: HTTPConnection, request: Request, headers: dict[str, str]
) -> tuple[int, dict[str, str], Any]:
    """Return the status, the headers and the JSON; the status is 0 if there is no answer."""
    body = None if request.body is None else json.dumps(request.body)
    typed = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(request.method, request.path, body, headers | typed)
        response = connection.getresponse()
        content = response.read()
    except (OSError, HTTPException):
        connection.close()
        return _NO_ANSWER, {}, None
    sent = {name.lower(): value for name, value in response.getheaders()}
    return response.status, sent, json.loads(content) if content else None


def _outcome(verb: str, status: int) -> Outcome:
    if status in {_NO_ANSWER, 503}:
        return "unknown"
    if status in {200, 204}:
        return "ok"
    return "refused" if status in _REFUSALS.get(verb, {404, 409}) else "wrong"


def _slug(body: Any) -> str:
    return str(body["type"]).partition("#")[2]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _read_credential(body: Any) -> dict[str, Any]:
    members = ("secret_id", "unit_id", "client_id", "name")
    return {each: body[each] for each in members} | {"trust": body["trust_upstream_consent"]}


def _read_detailed(body: Any) -> dict[str, Any]:
    hints = [each["hint"] for each in body["secrets"]]
    enabled = body["disabled_at"] is None
    return _read_credential(body) | {"enabled": enabled, "hints": hints}


def _read_issued(body: Any) -> dict[str, Any]:
    secret = body["client_secret"]
    return _read_credential(body) | {"secret": fingerprint(secret), "hint": secret[-4:]}


def _read_list(body: Any) -> dict[str, Any]:
    return {"credentials": [_read_credential(each) for each in body]}


_READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "verify": _read_credential,
    "get": _read_detailed,
    "list": _read_list,
    "issue": _read_issued,
    "rotate": _read_issued,
}
