"""Callers of the cluster that remember which changes were acknowledged.

They repeat a change that got 503, as callers do. Each change has its own request ID, the same for
every attempt, which the audit trail records in the same transaction. So the trail shows afterwards
whether an acknowledged change was lost.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

from drills.service import Client, Issued, bearer

_PAUSE_SECONDS = 0.02
_ANSWER_SECONDS = 20.0
_NO_ANSWER = 0
_NOT_FOUND = 404
_UNDER_WAY = 409
_UNAVAILABLE = 503
_WHEN_REPEATED = {
    "POST": frozenset({_UNDER_WAY}),
    "PUT": frozenset[int](),
    "DELETE": frozenset({_NOT_FOUND}),
}
_CHANGE_PAUSE_SECONDS = 0.1
_ATTEMPTS = 30
_REPEAT_SECONDS = 0.5


class Call(NamedTuple):
    """When a call began (monotonic time), its status, and the status of a healthy service.

    `also` are the right statuses of a repeated change, if an earlier attempt has made it.
    """

    started: float
    what: str
    status: int
    expected: int
    also: frozenset[int] = frozenset()

    @property
    def is_served(self) -> bool:
        """Tell whether it got a right answer."""
        return self.status in {self.expected, *self.also}

    @property
    def is_wrong(self) -> bool:
        """Tell whether it got neither a right answer nor 503."""
        return not self.is_served and self.status != _UNAVAILABLE


@dataclass
class Callers:
    """Five callers: two verify, one tries ended client secrets, and two change credentials.

    Only one of them makes client secrets: with more, some would be refused because bcrypt is busy.
    The credentials in `issued` are never ended.
    """

    service: Client
    issued: list[Issued]
    calls: list[Call] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # request IDs
    ended: list[dict[str, str]] = field(default_factory=list)  # Authorization headers
    numbers: Iterator[int] = field(default_factory=count)
    stopping: Event = field(default_factory=Event)
    _threads: list[Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        works = [
            (self._verify, _PAUSE_SECONDS),
            (self._verify, _PAUSE_SECONDS),
            (self._try_what_ended, _PAUSE_SECONDS),
            (self._rename, _CHANGE_PAUSE_SECONDS),
            (self._live, _CHANGE_PAUSE_SECONDS),
        ]
        self._threads = [Thread(target=self._repeat, args=work) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def revoke(self, issued: list[Issued]) -> int:
        """Try to revoke the credentials. Return how many revocations were acknowledged."""
        caller = _Caller(self)
        acknowledged = sum(caller.revoke(each) for each in issued)
        caller.close()
        return acknowledged

    def wrong(self) -> list[Call]:
        """Return the calls that were answered neither as expected nor with 503."""
        return [call for call in self.calls if call.is_wrong]

    def accepted_after_end(self) -> list[Call]:
        """Return the verifications that accepted an ended client secret."""
        return [call for call in self.calls if call.expected == 401 and call.status == 200]

    def not_served(self, what: str) -> int:
        """Count the calls of this kind that were not answered as expected."""
        return sum(call.what == what and not call.is_served for call in self.calls)

    def last_failure_after(self, moment: float) -> float:
        """Return how many seconds after the moment the last unserved call began."""
        failed = [call.started for call in self.calls if not call.is_served]
        return max([0.0, *(started - moment for started in failed)])

    def _repeat(self, work: Callable[["_Caller"], None], pause: float) -> None:
        caller = _Caller(self)
        while not self.stopping.wait(pause):
            work(caller)
        caller.close()

    def _verify(self, caller: "_Caller") -> None:
        caller.verify(random.choice(self.issued).basic)

    def _try_what_ended(self, caller: "_Caller") -> None:
        if self.ended:
            caller.verify(random.choice(self.ended), expected=401)

    def _rename(self, caller: "_Caller") -> None:
        caller.rename(random.choice(self.issued))

    def _live(self, caller: "_Caller") -> None:
        """Take a credential through its life, as far as the calls succeed."""
        issued = caller.issue()
        if issued is None:
            return
        caller.verify(issued.basic)
        rotated = caller.rotate(issued)
        if rotated is None:
            return
        caller.verify(rotated.basic)
        caller.verify(issued.basic, expected=401)
        if caller.revoke(rotated):
            caller.verify(rotated.basic, expected=401)


class _Caller:
    """One client with a kept-alive connection."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._port = callers.service.port
        self._token = callers.service.token()
        self._connection: HTTPConnection | None = None

    def verify(self, authorization: dict[str, str], *, expected: int = 200) -> None:
        self._call("verify", "GET", "/verify", authorization, expected=expected)

    def issue(self) -> Issued | None:
        shown = self._change("issue", "POST", "/secrets", {"name": "drill"})
        return None if shown is None else self._issued(shown)

    def rename(self, issued: Issued) -> bool:
        body = {"trust_upstream_consent": True, "name": f"drill {next(self._callers.numbers)}"}
        path = f"/secrets/{issued.secret_id}"
        return self._change("update", "PUT", path, body, expected=204) is not None

    def rotate(self, issued: Issued) -> Issued | None:
        path = f"/secrets/{issued.secret_id}/rotate"
        shown = self._change("rotate", "POST", path, {"overlap_seconds": 0})
        if shown is None:
            return None
        self._callers.ended.append(issued.basic)
        return self._issued(shown)

    def revoke(self, issued: Issued) -> bool:
        path = f"/secrets/{issued.secret_id}"
        if self._change("revoke", "DELETE", path, expected=204) is None:
            return False
        self._callers.ended.append(issued.basic)
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _issued(self, shown: dict[str, Any]) -> Issued:
        return Issued(shown["secret_id"], shown["client_id"], shown["client_secret"], self._token)

    def _change(
        self,
        what: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        expected: int = 200,
    ) -> dict[str, Any] | None:
        """Return the JSON of the answer to a change, or None if it was not acknowledged.

        A change that gets no answer or 503 is repeated, with the same idempotency key.
        """
        request_id = f"drill-{uuid4()}"
        headers = bearer(self._token) | {"X-Request-Id": request_id}
        if method == "POST":
            headers["Idempotency-Key"] = request_id
        also: frozenset[int] = frozenset()
        for _ in range(_ATTEMPTS):
            status, answer = self._call(
                what, method, path, headers, body, expected=expected, also=also
            )
            if status == expected or (status == _NOT_FOUND and status in also):
                self._callers.acknowledged.append(request_id)
                return dict(json.loads(answer)) if status == 200 else {}
            if status not in {_NO_ANSWER, _UNAVAILABLE, *also}:
                return None
            also = _WHEN_REPEATED[method]
            if self._callers.stopping.wait(_REPEAT_SECONDS):
                return None
        return None

    def _call(  # noqa: PLR0913  each is a part of the request
        self,
        what: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None = None,
        *,
        expected: int,
        also: frozenset[int] = frozenset(),
    ) -> tuple[int, bytes]:
        """Return the status, 0 for a broken connection, and the body."""
        started = monotonic()
        status, answer = self._ask(method, path, headers, body)
        self._callers.calls.append(Call(started, what, status, expected, also))
        return status, answer

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None
    ) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)
        typed = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), headers | typed
            )
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException):
            self.close()
            return _NO_ANSWER, b""
