"""nginx in more detail than test_proxies.py: its log, and the requests that it accepts."""

import re

import pytest

from app.credentials.generator import generate_client_secret
from tests.conftest import environment
from tests.examples.proxies import NGINX
from tests.helpers import basic
from tests.running_server import Answer, free_port, running_server, wait_until


@pytest.fixture
def proxy():
    return NGINX


def test_refusals_leave_no_line_in_the_error_log(send_through, settings, issued, tmp_path):
    with running_server(environment(settings, verify_failure_limit=2)) as server:
        send = send_through(server.port)
        statuses = [send(issued.client_id, generate_client_secret()).status for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert (tmp_path / "error.log").read_text() == ""


def test_the_answer_of_the_second_server_counts_when_the_first_is_down(send_through, verify):
    verify.answer = Answer(429, {"Retry-After": "37"}, b"{}")
    only = "server 127.0.0.1:8000;"
    send = send_through(verify.port, **{only: f"server 127.0.0.1:{free_port()}; {only}"})
    answer = send()
    assert (answer.status, answer.headers["retry-after"]) == (429, "37")


ODD_HEADERS = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Ssl": "off",
    "X-Forwarded-For": "203.0.113.7",
    "X-Request-Id": "the sender's",
    "X-HTTP-Method-Override": "DELETE",
    "Connection": "Upgrade, Authorization",
    "Content-Encoding": "gzip",
    "Cookie": "activeOu=unit_other",
    "Expect": "100-continue",
    "If-None-Match": "*",
    "Range": "bytes=0-0",
    "Script-Name": "/x",
    "Upgrade": "h2c",
    "X-Long": "x" * 8000,
} | {f"X-Odd-{number}": "x" for number in range(120)}


@pytest.fixture
def _many_headers(monkeypatch):
    """Let Python's HTTP server accept more than a hundred headers."""
    monkeypatch.setattr("http.client._MAXHEADERS", 1000)


@pytest.mark.usefixtures("_many_headers")
def test_only_the_authorization_header_reaches_the_service(send_past, verify, ingestion):
    send_past("lv_ci_1", "lv_cs_1", method="PUT", headers=ODD_HEADERS)
    (question,), (event,) = verify.received, ingestion.received
    assert (question.method, question.path, question.body) == ("GET", "/verify", b"")
    assert question.headers == {
        "host": "credentials",
        "authorization": basic("lv_ci_1", "lv_cs_1")["Authorization"],
        "x-request-id": event.headers["x-request-id"],
        "x-forwarded-for": "127.0.0.2",
    }
    assert re.fullmatch("[0-9a-f]{32}", event.headers["x-request-id"])
    assert event.headers["x-odd-119"] == "x"


@pytest.mark.usefixtures("_many_headers")
def test_odd_headers_do_not_change_the_verdict(send, issued):
    assert send(issued.client_id, issued.client_secret, headers=ODD_HEADERS).status == 202
    assert send(issued.client_id, generate_client_secret(), headers=ODD_HEADERS).status == 401


def test_a_request_that_nginx_rejects_is_400_and_not_passed_on(send_past, verify, ingestion):
    assert send_past(headers={"Host": "a b"}).status == 400
    assert send_past(headers={"X-Long": "x" * 9000}).status == 400
    assert verify.received == ingestion.received == []


def test_a_malformed_authorization_is_401(send, ingestion):
    for value in ("", "x", "Basic", "Basic ", "Basic =", "Basic \x01", "Basic \xff", "Bearer x"):
        assert send(headers={"Authorization": value}).status == 401
    assert ingestion.received == []


def test_a_long_authorization_is_401_up_to_the_limit_of_nginx(send):
    statuses = [
        send(headers={"Authorization": "Basic " + "x" * length}).status
        for length in (1000, 4000, 4004, *range(8160, 8180))
    ]
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) == {401, 400}


def test_the_scheme_may_be_written_in_any_case(send, issued):
    value = basic(issued.client_id, issued.client_secret)["Authorization"]
    for scheme in ("basic", "BASIC"):
        headers = {"Authorization": value.replace("Basic", scheme)}
        assert send(headers=headers).status == 202


def test_no_client_secret_is_logged(send_through, server, issued, ingestion, tmp_path):
    pair = issued.client_id, issued.client_secret
    send = send_through(server.port)
    assert send(*pair).status == 202
    assert send(*pair, headers={"X-Long": "x" * 9000}).status == 400
    assert send(*reversed(pair)).status == 401
    ingestion.stop()
    assert send(*pair).status == 502
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    wait_until(lambda: access.read_text().count("POST /events") == 4)
    logged = access.read_text() + errors.read_text()
    assert issued.client_id in logged
    assert issued.client_secret not in logged
    assert basic(*pair)["Authorization"].removeprefix("Basic ") not in logged


def test_an_event_passes_although_its_length_is_asked_about_too(send_through, server, issued):
    """The usual mistake with auth_request: without this line, no body follows its length."""
    mistake = {'proxy_set_header Content-Length "";': "", "proxy_pass_request_headers off;": ""}
    send = send_through(server.port, **mistake)
    for _ in range(3):
        assert send(issued.client_id, issued.client_secret).status == 202
        assert send(issued.client_id, generate_client_secret()).status == 401
