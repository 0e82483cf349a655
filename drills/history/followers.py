"""Followers of the units' ascending trails, and the poll of how many credentials a unit has."""

import re
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from json import loads
from threading import Event, Thread
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import psycopg

from drills.history.history import Count, Operation, Page, Recorder
from drills.service import bearer
from tests.issuer import Issuer

_ANSWER_SECONDS = 20.0
_PAUSE_SECONDS = 0.15
_COUNT_SECONDS = 0.05
_TOKEN_SECONDS = 300.0
_NEXT = re.compile('<([^>]+)>; rel="next"')
_KEPT = ("secret_id", "client_id", "name", "event", "actor", "via", "request_id", "detail")

Connect = Callable[[], psycopg.Connection[tuple[Any, ...]]]


class Follower(Thread):
    """Follows a unit's trail at one instance, page by page, and keeps its cursor through faults."""

    def __init__(  # noqa: PLR0913, PLR0917  each is a part of what to follow, or where to keep it
        self, port: int, issuer: Issuer, unit: str, limit: int, recorder: Recorder, stopped: Event
    ) -> None:
        super().__init__(name=f"follower-{unit}-{limit}-{port}", daemon=True)
        self.unit = unit
        self.delivered = 0
        self._port = port
        self._issuer = issuer
        self._limit = limit
        self._recorder = recorder
        self._stopped = stopped
        self._token = ("", 0.0)

    def run(self) -> None:
        address = f"/secrets/events?order=asc&limit={self._limit}"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)
        is_behind = False
        while not self._stopped.wait(0.0 if is_behind else _PAUSE_SECONDS):
            is_behind = False
            invoked = monotonic()
            try:
                connection.request("GET", address, headers=bearer(self._fresh_token()))
                response = connection.getresponse()
                body = response.read()
            except (OSError, HTTPException):
                connection.close()
                continue
            if response.status == 200:
                events = loads(body)
                self._deliver(invoked, events)
                address = urljoin(address, _next(response.getheader("Link", "")))
                is_behind = len(events) == self._limit
            elif response.status != 503:
                self._record_wrong(invoked, response.status)
        connection.close()
        # so that the history knows a follower that never got an event
        self._recorder.add(Page(self.name, self.unit, monotonic(), monotonic(), []))

    def _deliver(self, invoked: float, events: list[dict[str, Any]]) -> None:
        if events:
            kept = [{name: each[name] for name in _KEPT} for each in events]
            self._recorder.add(Page(self.name, self.unit, invoked, monotonic(), kept))
            self.delivered += len(events)

    def _record_wrong(self, invoked: float, status: int) -> None:
        self._recorder.add(
            Operation(
                number=0,
                client=self.name,
                verb="follow",
                unit=self.unit,
                secret_id=None,
                request_id=self.name,
                asked={},
                invoked=invoked,
                returned=monotonic(),
                outcome="wrong",
                status=status,
                answer={},
            )
        )

    def _fresh_token(self) -> str:
        token, made = self._token
        if not token or monotonic() - made > _TOKEN_SECONDS:
            token = self._issuer.sign(unit_id=self.unit, sub="follower")
            self._token = (token, monotonic())
        return token


def _next(link: str) -> str:
    found = _NEXT.search(link)
    if found is None:
        raise ValueError(f"the trail has no next page: {link!r}")
    return found[1]


def followers(
    ports: Sequence[int], issuer: Issuer, units: Sequence[str], recorder: Recorder, stopped: Event
) -> list[Follower]:
    """Return two followers of each unit, with small and large pages at different instances."""
    return [
        Follower(ports[(number + large) % len(ports)], issuer, unit, limit, recorder, stopped)
        for number, unit in enumerate(units)
        for large, limit in enumerate((3, 1000))
    ]


class Poll(Thread):
    """Counts the credentials of each unit in the database, as often as it can see a change."""

    def __init__(self, connect: Connect, recorder: Recorder, stopped: Event) -> None:
        super().__init__(name="poll", daemon=True)
        self._connect = connect
        self._recorder = recorder
        self._stopped = stopped

    def run(self) -> None:
        known: dict[str, int] = {}
        while not self._stopped.wait(_COUNT_SECONDS):
            try:
                with self._connect() as connection:
                    self._poll(connection, known)
            except psycopg.Error:
                continue  # the nemesis ends its connections too

    def _poll(self, connection: psycopg.Connection[tuple[Any, ...]], known: dict[str, int]) -> None:
        while not self._stopped.wait(_COUNT_SECONDS):
            counts = dict(
                connection.execute(
                    "SELECT unit_id, count(*) FROM credentials GROUP BY 1"
                ).fetchall()
            )
            for unit in counts.keys() | known.keys():
                if counts.get(unit, 0) != known.get(unit, 0):
                    self._recorder.add(Count(unit, monotonic(), counts.get(unit, 0)))
            known.clear()
            known.update(counts)
