"""What a credential may do, and from where, with both workers."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count, product
from threading import Barrier, Event

import pytest

from app.credentials.generator import generate_client_secret
from app.credentials.model import CredentialChanges
from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic, caller
from tests.running_server import HANG_SECONDS, running_server, wait_until

UNRESTRICTED, INGEST, NOTHING = None, ["ingest"], []
PATHS = ("/verify", "/verify/ingest", "/verify/leads.read", "/verify/nonsense")
ALLOWED = {
    (str(UNRESTRICTED), "/verify"),
    (str(UNRESTRICTED), "/verify/ingest"),
    (str(UNRESTRICTED), "/verify/leads.read"),
    (str(INGEST), "/verify/ingest"),
}
# Each way into the service: the loop or the middleware, Flask with a body, Flask with a query.
REQUESTS = [
    ("GET", "", None),
    ("HEAD", "", None),
    ("POST", "", None),
    ("POST", "", b"an event"),
    ("POST", "", [b"an event"]),  # chunked
    ("GET", "?scope=ingest", None),
]


@pytest.fixture(scope="module", params=WORKER_CLASSES)
def without_scopes(request, settings):
    changes = {"worker_class": request.param, "scopes": []}
    with running_server(environment(settings, **changes)) as server:
        yield server


@pytest.fixture
def restricted(service):
    return {
        str(scopes): service.issue(caller(), name="x", scopes=scopes)
        for scopes in (UNRESTRICTED, INGEST, NOTHING)
    }


def pair_of(issued):
    return basic(issued.client_id, issued.client_secret)


def ask_everything(server, restricted):
    """Yield each question with the answer, through each way into the service."""
    questions = product(restricted.items(), PATHS, REQUESTS)
    for (scopes, issued), path, (method, query, body) in questions:
        yield scopes, path, server.request(method, path + query, body, **pair_of(issued))


def test_a_credential_may_do_what_it_is_asked_about_and_nothing_else(server, restricted):
    for scopes, path, answer in ask_everything(server, restricted):
        decided = 200 if (scopes, path) in ALLOWED else 403
        assert answer.status == (404 if path == "/verify/nonsense" else decided), (scopes, path)


def test_without_scopes_every_scope_is_an_unknown_path(without_scopes, restricted):
    """A credential that still has scopes must not become unrestricted."""
    for scopes, path, answer in ask_everything(without_scopes, restricted):
        decided = 200 if scopes == str(UNRESTRICTED) else 403
        assert answer.status == (decided if path == "/verify" else 404), (scopes, path)


def test_a_refusal_tells_a_valid_pair_what_it_lacks(server, restricted):
    for path, detail in (
        ("/verify", "Ask for a scope: /verify/{scope}"),
        ("/verify/events", "The credential does not have the scope events"),
    ):
        answer = server.request("GET", path, **pair_of(restricted[str(INGEST)]))
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            "type": "/docs/errors#scope-missing",
            "title": "Forbidden",
            "status": 403,
            "detail": detail,
        }


@pytest.mark.parametrize("path", ["/verify", "/verify/ingest", "/verify/events"])
def test_an_invalid_pair_learns_nothing_about_scopes(server, restricted, service, path):
    disabled = service.issue(caller(), name="x", scopes=INGEST)
    service.update(caller(), disabled.secret_id, CredentialChanges(enabled=False))
    answers = {
        (answer.status, answer.body)
        for headers in (
            basic(restricted[str(NOTHING)].client_id, generate_client_secret()),
            basic(restricted[str(UNRESTRICTED)].client_id, generate_client_secret()),
            pair_of(disabled),
            basic("x", "y"),
            {},
        )
        for answer in [server.request("GET", path, **headers)]
    }
    assert len(answers) == 1
    assert {status for status, _ in answers} == {401}


@pytest.mark.parametrize(
    "path",
    [
        "/verify/", "/verify//ingest", "/verify/ingest/", "/verify/INGEST", "/verify/ingest%20",
        "/verify/ingest%00", "/verify/ing", "/verify/ingestx", "/verify/ingest,events",
        "/verify/*", "/verify/null", "/verify/..%2Fverify", "/verify%2Fingest%2F", "/verify/%",
        "/verify/leadsXread", "/verify/" + "a" * 3000,
    ],
)  # fmt: skip
def test_a_path_that_is_not_exactly_a_scope_lets_nobody_in(server, restricted, path):
    for method in ("GET", "HEAD", "POST"):
        answer = server.request(method, path, **pair_of(restricted[str(UNRESTRICTED)]))
        assert answer.status == 404, method


def test_an_unknown_scope_does_not_wait_for_the_body(server):
    """The proxy may pass on the length of an event without the event."""
    message = b"POST /verify/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    for scope, status in ((b"nonsense", b"404"), (b"ingest", b"401")):
        answer = server.send(message % scope, half_close=False)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_scope_has_the_methods_of_verify(server, restricted, method):
    answer = server.request(method, "/verify/ingest", **pair_of(restricted[str(UNRESTRICTED)]))
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_the_log_tells_the_outcome_and_the_scope(server, restricted):
    numbers = count()

    def logged(path, scopes, body=None):
        request_id = f"scope-{next(numbers)}"
        headers = pair_of(restricted[str(scopes)]) | {"X-Request-Id": request_id}
        server.request("POST", path, body, **headers)

        def lines():
            return [line for line in server.log() if line.get("request_id") == request_id]

        wait_until(lines)
        (line,) = lines()
        return line

    for body in (None, [b"an event"]):  # the fast path, and Flask
        line = logged("/verify/events", INGEST, body)
        assert (line["status"], line["outcome"], line["scope"]) == (403, "scope", "events")
        assert line["client_id"] == restricted[str(INGEST)].client_id
    line = logged("/verify/ingest", INGEST)
    assert (line["outcome"], line["scope"]) == ("accepted", "ingest")
    assert line["route"] == "/verify/<scope:scope>"
    line = logged("/verify", NOTHING)
    assert line["outcome"] == "scope"
    assert "scope" not in line
    for path in ("/verify/nonsense", "/verify/secret-of-somebody"):
        line = logged(path, INGEST)
        assert line["route"] is None
        assert path not in json.dumps(line)


def test_a_pair_is_valid_from_its_addresses_only(server, service):
    """Whatever the sender says: no proxy stands in front."""
    here = service.issue(caller(), name="x", addresses=["127.0.0.0/24"])
    there = service.issue(caller(), name="x", addresses=["127.0.0.2", "::1"])
    for path, body in product(("/verify", "/verify/ingest"), (None, [b"an event"])):
        for issued, status in ((here, 200), (there, 401)):
            for forwarded in ({}, {"X_Forwarded_For": "127.0.0.2"}, {"Forwarded": "for=127.0.0.2"}):
                answer = server.request("POST", path, body, **pair_of(issued), **forwarded)
                assert answer.status == status


def test_a_refusal_from_elsewhere_is_the_same_to_the_byte(server, service):
    there = service.issue(caller(), name="x", scopes=["events"], addresses=["127.0.0.2"])
    free = service.issue(caller(), name="x")

    def sent_back(path, client_id, client_secret):
        headers = basic(client_id, client_secret) | {"X-Request-Id": "same", "Host": "x"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        answer = server.send(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        return re.sub(rb"Date: [^\r]*", b"", answer)

    for path in ("/verify", "/verify/ingest", "/verify/events"):
        elsewhere = sent_back(path, there.client_id, there.client_secret)
        assert elsewhere.startswith(b"HTTP/1.1 401 ")
        assert sent_back(path, there.client_id, generate_client_secret()) == elsewhere
        assert sent_back(path, free.client_id, generate_client_secret()) == elsewhere


VERIFICATIONS = 10_000
SENDERS = 8


@pytest.mark.long
@pytest.mark.parametrize(
    "narrowing", [{"scopes": ["leads.read"]}, {"scopes": []}, {"addresses": ["192.0.2.1"]}]
)
@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_nothing_is_accepted_once_a_narrowing_is_confirmed(
    settings, service, issuer, worker_class, narrowing
):
    issued = service.issue(caller(), name="x", scopes=["ingest"])
    begun, confirmed = Barrier(SENDERS + 1), Event()
    changes = {"worker_class": worker_class, "web_concurrency": 2, "verify_failure_limit": 0}

    def verify(port):
        """Return the status of each verification that began before, and after, the 204."""
        before, after = [], []
        connection = HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        for number in range(VERIFICATIONS // SENDERS):
            if number == 100:
                begun.wait(HANG_SECONDS)
            statuses = after if confirmed.is_set() else before
            connection.request("GET", "/verify/ingest", headers=pair_of(issued))
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return before, after

    with (
        running_server(environment(settings, **changes)) as server,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        running = [pool.submit(verify, server.port) for _ in range(SENDERS)]
        begun.wait(HANG_SECONDS)
        answer = server.request(
            "PATCH",
            f"/secrets/{issued.secret_id}",
            json.dumps(narrowing),
            Authorization=f"Bearer {issuer.sign()}",
            Content_Type="application/json",
        )
        confirmed.set()
        assert answer.status == 204
        found = [each.result() for each in running]
    refused = 401 if "addresses" in narrowing else 403
    before = {status for statuses, _ in found for status in statuses}
    after = [status for _, statuses in found for status in statuses]
    assert {200} <= before <= {200, refused}
    assert len(after) > VERIFICATIONS // 2
    assert set(after) == {refused}
