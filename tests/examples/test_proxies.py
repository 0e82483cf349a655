"""Every proxy of examples/, with the real program."""

import re
import socket
from datetime import UTC, datetime, timedelta

import pytest

from app.credentials.generator import generate_client_secret
from app.times import parse_time
from tests.conftest import environment
from tests.examples.conftest import VERIFIED
from tests.examples.proxies import CADDY, ENVOY, Sender
from tests.helpers import basic, caller, time_in
from tests.running_server import Answer, free_port, running_server

pytestmark = pytest.mark.long


def test_a_valid_pair_reaches_ingestion_with_the_unit_and_the_consent_flag(send, issued, ingestion):
    assert send(issued.client_id, issued.client_secret).status == 202
    (event,) = ingestion.received
    assert event.headers["x-leadvibe-secret-id"] == issued.secret_id
    assert event.headers["x-leadvibe-unit-id"] == "unit_demo"
    assert event.headers["x-leadvibe-client-id"] == issued.client_id
    assert event.headers["x-leadvibe-trust-upstream-consent"] == "false"
    assert "authorization" not in event.headers


def test_every_header_of_the_verification_reaches_ingestion(send_past, ingestion):
    send_past()
    (event,) = ingestion.received
    assert {name: event.headers[name.lower()] for name in VERIFIED} == VERIFIED


def test_the_sender_learns_when_its_client_secret_expires(proxy, send, service):
    issued = service.issue(caller(), name="x", expires_at=parse_time(time_in(days=3)))
    told = send(issued.client_id, issued.client_secret).headers
    assert ("x-leadvibe-secret-expires-at" in told) is proxy.tells_the_sender_the_expiry
    if proxy.tells_the_sender_the_expiry:
        expires_at = parse_time(told["x-leadvibe-secret-expires-at"])
        assert expires_at > datetime.now(UTC) + timedelta(days=2)
    assert "x-leadvibe-secret-expires-at" not in send("x", "y").headers


def spellings(name):
    """Return the spellings of a header that some backend treats as this name."""
    lower = name.lower()
    return [
        name, lower, name.upper(), name.swapcase(),
        *(lower.replace("-", other) for other in "_.~!"),
        lower.replace("-", "_", 1), lower.replace("-", ".", 2),
        "_".join(name.rsplit("-", 1)), ".".join(name.rsplit("-", 1)), lower.replace("-", "_.")[:-1],
    ]  # fmt: skip


def as_a_backend_folds(event):
    """Return the headers under the names that CGI, WSGI and PHP give them."""
    return [(re.sub(r"[^A-Z0-9]", "_", name.upper()), value) for name, value in event.lines]


def test_forged_headers_never_reach_ingestion(proxy, send_past, ingestion):
    forged = [f"{spelling}: forged".encode() for name in VERIFIED for spelling in spellings(name)]
    forged.append(b"X-LeadVibe-Unit-Id:forged")
    batches = [forged, forged + forged, *([line] for line in forged)]
    statuses = [send_past.send_lines(basic_line("x", "y"), *lines) for lines in batches]
    assert ingestion.received, statuses
    expected = sorted((name.upper().replace("-", "_"), value) for name, value in VERIFIED.items())
    for event in ingestion.received:
        ours = [each for each in as_a_backend_folds(event) if "LEADVIBE" in each[0]]
        assert sorted(ours) == expected
        assert "forged" not in [value for _, value in event.lines]


@pytest.mark.parametrize(
    "line",
    [
        b"X-LeadVibe-Unit-Id : forged",
        b"X-LeadVibe-Unit-Id\t: forged",
        b" X-LeadVibe-Unit-Id: forged",
        b"X-LeadVibe-Unit-Id: forged\x00",
        b"X-Other: x\n X-LeadVibe-Unit-Id: forged",
        b"X-Other: x\rX-LeadVibe-Unit-Id: forged",
    ],
)
def test_a_forged_header_in_broken_syntax_never_reaches_ingestion(send_past, ingestion, line):
    status = send_past.send_lines(basic_line("x", "y"), line)
    assert (status, len(ingestion.received)) in {(202, 1), (400, 0)}
    for event in ingestion.received:
        assert [value for name, value in as_a_backend_folds(event) if "UNIT_ID" in name] == [
            "unit_demo"
        ]


ALL_VERIFIED = ", ".join(VERIFIED)
UPGRADE = {"Upgrade": "websocket"}


@pytest.mark.parametrize(
    ("connection", "others"),
    [
        (ALL_VERIFIED, {}),
        (ALL_VERIFIED.lower(), {}),
        (ALL_VERIFIED.replace(" ", ""), {}),
        (f"close, {ALL_VERIFIED}", {}),
        (f"keep-alive, {ALL_VERIFIED}", {}),
        (f"Upgrade, {ALL_VERIFIED}", UPGRADE),
        (f"{ALL_VERIFIED}, upgrade", UPGRADE),
        (f"X-Forwarded-For, X-Request-Id, {ALL_VERIFIED}", {}),
        *((name, {}) for name in VERIFIED),
    ],
)
def test_a_header_that_the_sender_nominates_reaches_ingestion(
    proxy, send_past, verify, ingestion, connection, others
):
    """A proxy drops what Connection names (RFC 9110, 7.6.1), but not what it has set itself."""
    status = send_past("x", "y", headers={"Connection": connection, **others}).status
    if proxy is ENVOY and (others or "X-Forwarded-For" in connection):  # it refuses these itself
        assert (status, ingestion.received) == (403 if others else 400, [])
        return
    (question,), (event,) = verify.received, ingestion.received
    assert status == 202
    assert {name: event.headers.get(name.lower()) for name in VERIFIED} == VERIFIED
    addresses = [each.strip() for each in question.headers["x-forwarded-for"].split(",")]
    assert addresses[-proxy.trusted_proxies] == send_past.address


def test_headers_that_are_nominated_on_several_lines_reach_ingestion(send_past, ingestion):
    lines = [f"Connection: {name}".encode() for name in VERIFIED]
    assert send_past.send_lines(basic_line("x", "y"), *lines) == 202
    (event,) = ingestion.received
    assert {name: event.headers.get(name.lower()) for name in VERIFIED} == VERIFIED


def basic_line(client_id, client_secret):
    return f"Authorization: {basic(client_id, client_secret)['Authorization']}".encode()


def test_a_header_that_the_answer_lacks_is_not_taken_from_the_sender(
    proxy, verify, send_past, ingestion
):
    verify.answer = Answer(200, {}, b"{}")
    status = send_past(headers=dict.fromkeys(VERIFIED, "forged")).status
    # Caddy's example answers 503 if the verification names no unit
    expected = (503, 0) if proxy is CADDY else (202, 1)
    assert (status, len(ingestion.received)) == expected
    for event in ingestion.received:
        assert {event.headers.get(name.lower(), "") for name in VERIFIED} == {""}


def test_the_service_learns_the_senders_address_and_nothing_else_of_the_event(
    proxy, send_past, verify, ingestion
):
    headers = {"Cookie": "activeOu=unit_other", "X-Forwarded-For": "203.0.113.7", "X-Other": "x"}
    send_past("lv_ci_1", "lv_cs_1", path="/events?x=1", headers=headers)
    (question,), (event,) = verify.received, ingestion.received
    assert (question.path, question.body) == ("/verify", b"")
    assert question.headers["authorization"] == basic("lv_ci_1", "lv_cs_1")["Authorization"]
    addresses = [each.strip() for each in question.headers["x-forwarded-for"].split(",")]
    assert addresses[-proxy.trusted_proxies] == send_past.address
    assert not {"cookie", "x-other"} & question.headers.keys()
    if proxy.makes_request_ids:
        assert question.headers["x-request-id"] == event.headers["x-request-id"]


def test_the_event_passes_unchanged(proxy, send, issued, ingestion):
    headers = {"Content-Type": "application/x-lead", "Content-Encoding": "x-lead"}
    for method in proxy.methods:
        sent = {"method": method, "path": "/a%20b?x=1", "body": b"\x00\xff", "headers": headers}
        assert send(issued.client_id, issued.client_secret, **sent).status == 202
    assert tuple(event.method for event in ingestion.received) == proxy.methods
    for event in ingestion.received:
        assert (event.path, event.body) == ("/a%20b?x=1", b"\x00\xff")
        assert {name: event.headers[name.lower()] for name in headers} == headers


def test_an_event_larger_than_the_limit_of_the_service_passes(send, issued, ingestion):
    event = b"x" * 100_000
    assert send(issued.client_id, issued.client_secret, body=event).status == 202
    assert ingestion.received[0].body == event


def test_a_chunked_event_passes(send, issued, ingestion):
    answer = send(issued.client_id, issued.client_secret, body=iter([b"one ", b"two"]))
    assert answer.status == 202
    assert ingestion.received[0].body == b"one two"


def test_every_answer_of_ingestion_passes_unchanged(send, issued, ingestion):
    headers = {"Retry-After": "37", "WWW-Authenticate": "Bearer", "Content-Type": "text/x-lead"}
    for status in (200, 302, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504):
        ingestion.answer = Answer(status, headers, b"ingestion's own")
        answer = send(issued.client_id, issued.client_secret)
        assert (answer.status, answer.body) == (status, b"ingestion's own")
        assert {name: answer.headers[name.lower()] for name in headers} == headers


def test_an_invalid_pair_is_401_and_does_not_reach_ingestion(send, issued, ingestion):
    answers = [send(issued.client_id, generate_client_secret()), send("x", "y"), send()]
    assert [answer.status for answer in answers] == [401, 401, 401]
    expected = 'Basic realm="LeadVibe", charset="UTF-8"'
    assert [answer.headers["www-authenticate"] for answer in answers] == [expected] * 3
    assert ingestion.received == []


def test_too_many_refusals_are_429_with_retry_after(send_through, settings, issued, ingestion):
    with running_server(environment(settings, verify_failure_limit=2)) as server:
        send = send_through(server.port)
        answers = [send(issued.client_id, generate_client_secret()) for _ in range(4)]
        assert send(issued.client_id, issued.client_secret).status == 202
    assert [answer.status for answer in answers] == [401, 401, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert len(ingestion.received) == 1


def test_without_a_database_an_event_is_503_with_retry_after(
    send_through, settings, issued, ingestion
):
    closed = f"postgresql://postgres@127.0.0.1:{free_port()}/credentials"
    with running_server(environment(settings, database_url=closed)) as server:
        answer = send_through(server.port)(issued.client_id, issued.client_secret)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert ingestion.received == []


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_passed_on_from_the_service(proxy, send_past, verify, ingestion, status):
    verify.answer = Answer(status, {"Retry-After": "37"}, b"{}")
    answer = send_past()
    assert answer.status == status
    kept = status != 503 or proxy.keeps_retry_after_of_503
    assert answer.headers["retry-after"] == ("37" if kept else "1")
    assert ingestion.received == []


# Envoy passes on every refusal that is not a 5xx, and so does not turn these into 503.
@pytest.mark.parametrize("status", [302, 400, 404, 431, 500, 502, 504])
def test_any_other_answer_of_the_service_is_503(proxy, send_past, verify, ingestion, status):
    verify.answer = Answer(status, {}, b"{}")
    answer = send_past()
    assert answer.status == (status if proxy is ENVOY and status < 500 else 503)
    assert ingestion.received == []


def test_each_scope_has_its_own_route(send_past, verify):
    for path in ("/leads/1", "/leads/", "/leads/1?x=/events", "/events", "/leadsx/1", "/"):
        send_past(path=path)
    asked = [question.path for question in verify.received]
    assert asked == ["/verify/leads.read"] * 3 + ["/verify"] * 3


def test_a_credential_is_let_in_where_it_has_the_scope(send, service, ingestion):
    """A real 403 of the service reaches the sender as it is."""
    issued = service.issue(caller(), name="x", scopes=["leads.read"])
    other = service.issue(caller(), name="x", scopes=["ingest"])
    unrestricted = service.issue(caller(), name="x")

    def statuses(of):
        paths = ("/leads/1", "/events")
        return [send(of.client_id, of.client_secret, path=path).status for path in paths]

    assert statuses(issued) == [202, 403]
    assert statuses(other) == [403, 403]
    assert statuses(unrestricted) == [202, 202]
    assert [event.path for event in ingestion.received] == ["/leads/1", "/leads/1", "/events"]
    for event in ingestion.received:
        assert event.headers["x-leadvibe-unit-id"] == "unit_demo"
        assert "authorization" not in event.headers


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_refusal_stays_what_it_is_on_the_route_of_a_scope(send_past, verify, ingestion, status):
    verify.answer = Answer(status, {"Retry-After": "37"}, b"{}")
    assert send_past(path="/leads/1").status == status
    assert ingestion.received == []


def test_a_scope_that_the_service_does_not_know_lets_nobody_in(
    proxy, send_through, settings, issued, ingestion
):
    """Also while instances of the previous release are still there, which know no scopes at all."""
    with running_server(environment(settings, scopes=["ingest"])) as server:
        send = send_through(server.port)
        status = send(issued.client_id, issued.client_secret, path="/leads/1").status
    assert status == (404 if proxy is ENVOY else 503)
    assert ingestion.received == []


def test_a_pair_is_let_in_from_its_address_only(proxy, send_through, settings, service, ingestion):
    issued = service.issue(caller(), name="x", addresses=["127.0.0.2"])
    with running_server(environment(settings, trusted_proxies=proxy.trusted_proxies)) as server:
        send = send_through(server.port)
        forged = {"X-Forwarded-For": "127.0.0.2", "X-Real-IP": "127.0.0.2"}
        elsewhere = Sender(send.port, address="127.0.0.3")
        pair = issued.client_id, issued.client_secret
        assert [each(*pair, headers=forged).status for each in (send, elsewhere)] == [202, 401]
    assert len(ingestion.received) == 1


def test_without_the_service_an_event_is_503(proxy, send_through, ingestion):
    answer = send_through(free_port())()
    assert answer.status == 503
    assert answer.headers.get("retry-after") == ("1" if proxy.sets_retry_after_itself else None)
    assert ingestion.received == []


def test_with_a_service_that_hangs_an_event_is_503_after_two_seconds(
    proxy, send_through, ingestion
):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        send = send_through(hanging.getsockname()[1])
        asked = datetime.now(UTC)
        answer = send()
        waited = datetime.now(UTC) - asked
    assert answer.status == 503
    assert answer.headers.get("retry-after") == ("1" if proxy.sets_retry_after_itself else None)
    assert waited > timedelta(seconds=1.9)
    assert ingestion.received == []


def test_the_proxy_never_answers_for_ingestion(send, issued, ingestion):
    ingestion.stop()
    assert send(issued.client_id, issued.client_secret).status in {502, 503}
