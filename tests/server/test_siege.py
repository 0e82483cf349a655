"""One unit floods management: another one is served all the same, by both workers.

`make drill` measures what it costs the others (drills/siege.py).
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection

from app.credentials.generator import generate_secret_id
from tests.helpers import caller
from tests.running_server import HANG_SECONDS, wait_until

CALLS = 20


@contextmanager
def flood(server, issuer, calls, *, callers):
    """Let that many callers of one unit make the calls in turn, each as fast as it is answered."""
    token = issuer.sign(unit_id="unit_greedy")
    stop = threading.Event()
    answered = []

    def call(number):
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=HANG_SECONDS)) as connection:
            while not stop.is_set():
                method, path, body = calls[number % len(calls)]
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                response.read()
                answered.append(response.status)

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, number) for number in range(callers)]
        try:
            wait_until(lambda: len(answered) >= callers)
            yield answered
        finally:
            stop.set()
        for each in running:
            each.result(HANG_SECONDS)


def statuses_of_another_unit(server, issuer, issued):
    headers = {"Authorization": f"Bearer {issuer.sign()}"}
    path = f"/secrets/{issued.secret_id}"
    return [
        server.request(*call, **headers).status
        for call in [("GET", "/secrets"), ("GET", path), ("DELETE", f"{path}?unused_for=60")]
        for _ in range(CALLS)
    ]


EXPECTED = [200] * 2 * CALLS + [409] * CALLS


def test_a_unit_that_waits_for_other_processes_keeps_nobody_waiting(server, issuer, service):
    issued, greedy = (
        service.issue(caller(), name="x"),
        service.issue(caller("unit_greedy"), name="x"),
    )
    calls = [
        ("DELETE", f"/secrets/{secret_id}?unused_for=60", None)
        for secret_id in (greedy.secret_id, generate_secret_id())
    ]
    with flood(server, issuer, calls, callers=16) as answered:
        assert statuses_of_another_unit(server, issuer, issued) == EXPECTED
    assert set(answered) == {404, 409}


def test_a_unit_that_issues_with_64_callers_keeps_nobody_out(server, issuer, service):
    issued = service.issue(caller(), name="x")
    calls = [("POST", "/secrets", b'{"name":"x"}')]
    with flood(server, issuer, calls, callers=64) as answered:
        assert statuses_of_another_unit(server, issuer, issued) == EXPECTED
    assert 200 in answered
    assert set(answered) <= {200, 503}


def test_a_unit_that_updates_with_16_callers_keeps_nobody_out(server, issuer, service):
    issued, greedy = (
        service.issue(caller(), name="x"),
        service.issue(caller("unit_greedy"), name="x"),
    )
    calls = [
        ("PUT", f"/secrets/{greedy.secret_id}", b'{"trust_upstream_consent":%s}' % value)
        for value in (b"true", b"false")
    ]
    with flood(server, issuer, calls, callers=16) as answered:
        assert statuses_of_another_unit(server, issuer, issued) == EXPECTED
    assert set(answered) == {204}
