"""Leak reports: whoever has found a client secret can end it."""

import json
import logging
from http.client import HTTPConnection

import pytest

from app.credentials.generator import generate_client_secret, hint_of
from app.credentials.model import CredentialChanges
from tests.helpers import basic, caller, typo_of
from tests.running_server import HANG_SECONDS

URL = "https://github.com/octocat/hello-world/blob/9e64ba1/settings.py"


@pytest.fixture
def recording(app_with):
    """A client of a service that only records what is reported."""
    return app_with(leak_reports="record").test_client(use_cookies=False)


def report(client, client_secret, **more):
    return client.post("/leaks", json={"client_secret": client_secret, **more})


def accepted(answer):
    """Tell whether the answer is the only one that a valid report gets."""
    return (answer.status_code, answer.data) == (202, b"") and "Content-Type" not in answer.headers


def verifies(client, issued):
    pair = basic(issued.client_id, issued.client_secret)
    return client.get("/verify", headers=pair).status_code == 200


def leaks(rows):
    return rows("SELECT * FROM credential_events WHERE event = 'leaked' ORDER BY event_id")


def problem_in(answer):
    assert answer.status_code == 400
    assert answer.json["type"] == "/docs/errors#invalid-input"
    [error] = answer.json["errors"]
    return error["pointer"], error["detail"]


def test_a_reported_client_secret_ends_at_once_even_the_last_one(client, member, issued, rows):
    assert verifies(client, issued)
    assert accepted(report(client, issued.client_secret, url=URL, source="content"))
    assert not verifies(client, issued)
    credential = member.get(f"/secrets/{issued.secret_id}").json
    assert credential["client_id"] == issued.client_id
    assert credential["secrets"] == []
    assert rows.count("sealed_answers") == 0


def test_the_other_client_secret_stays(client, service, issued):
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=3600)
    assert accepted(report(client, issued.client_secret))
    assert not verifies(client, issued)
    assert verifies(client, rotated)


def test_the_trail_says_what_was_found_and_where(client, member, issued):
    headers = {"X-Request-Id": "their-request"}
    body = {"client_secret": issued.client_secret, "url": URL, "source": "commit"}
    assert accepted(client.post("/leaks", json=body, headers=headers))
    event = member.get("/secrets/events").json[0]
    assert event.pop("at")
    assert event == {
        "secret_id": issued.secret_id,
        "client_id": issued.client_id,
        "name": issued.name,
        "event": "leaked",
        "actor": "leak-report",
        "via": "leak_report",
        "address": "127.0.0.1",
        "request_id": "their-request",
        "detail": {
            "hint": hint_of(issued.client_secret),
            "ended": True,
            "url": URL,
            "source": "commit",
        },
    }
    assert member.get("/secrets/events?event=leaked").json != []


@pytest.mark.parametrize("place", [{}, {"url": "", "source": ""}, {"url": None, "source": None}])
def test_a_report_need_not_say_where(client, issued, rows, place):
    assert accepted(report(client, issued.client_secret, **place))
    [event] = leaks(rows)
    assert event["detail"] == {"hint": hint_of(issued.client_secret), "ended": True}


def test_record_ends_nothing_and_later_reports_change_nothing(recording, issued, rows):
    assert accepted(report(recording, issued.client_secret, url=URL))
    assert accepted(report(recording, issued.client_secret, url=f"{URL}?2"))
    assert verifies(recording, issued)
    [event] = leaks(rows)
    assert event["detail"] == {
        "hint": hint_of(issued.client_secret), "ended": False, "url": URL,
    }  # fmt: skip


def test_what_was_only_recorded_ends_once_reports_end(recording, client, issued, rows):
    for reporter in (recording, client, client, recording):
        assert accepted(report(reporter, issued.client_secret))
    assert not verifies(client, issued)
    assert [each["detail"]["ended"] for each in leaks(rows)] == [False, True]


def test_a_disabled_credential_loses_its_client_secret_too(client, service, issued):
    service.update(caller(), issued.secret_id, CredentialChanges(enabled=False))
    assert accepted(report(client, issued.client_secret))
    service.update(caller(), issued.secret_id, CredentialChanges(enabled=True))
    assert not verifies(client, issued)


@pytest.mark.parametrize("kind", ["unknown", "typo", "client ID", "empty", "ended", "expired"])
def test_whatever_matches_the_answer_is_the_same(client, service, issued, rows, kind):
    texts = {
        "unknown": generate_client_secret(),
        "typo": typo_of(issued.client_secret),
        "client ID": issued.client_id,
        "empty": "",
    }
    if kind == "ended":
        service.rotate(caller(), issued.secret_id, overlap_seconds=0)
    if kind == "expired":
        rows.execute("UPDATE client_secrets SET expires_at = now()")
    before = rows.count("client_secrets")
    assert accepted(report(client, texts.get(kind, issued.client_secret)))
    assert leaks(rows) == []
    assert rows.count("client_secrets") == before


def test_githubs_array_is_understood(client, service, issued, rows):
    other = service.issue(caller("unit_emea"), name="y")
    body = [
        {"token": each, "type": "leadvibe_client_secret", "url": URL, "source": "content"}
        for each in (issued.client_secret, "false positive", other.client_secret)
    ]
    assert accepted(client.post("/leaks", json=body))
    assert rows.count("client_secrets") == 0
    assert [(each["unit_id"], each["detail"]["source"]) for each in leaks(rows)] == [
        ("unit_demo", "content"),
        ("unit_emea", "content"),
    ]


def test_one_report_may_have_a_hundred_entries(client, service, rows):
    issued = [service.issue(caller(f"unit_{n % 7}"), name="x") for n in range(8)]
    secrets = [each.client_secret for each in issued]
    secrets += [generate_client_secret() for _ in range(100 - len(secrets))]
    assert accepted(client.post("/leaks", json=[{"client_secret": each} for each in secrets]))
    assert rows.count("client_secrets") == 0
    assert len(leaks(rows)) == 8


def test_a_client_secret_that_was_found_twice_leaves_one_event(client, issued, rows):
    places = [f"{URL}?{n}" for n in (1, 2)]
    body = [{"token": issued.client_secret, "url": each} for each in places]
    assert accepted(client.post("/leaks", json=body))
    [event] = leaks(rows)
    assert event["detail"]["url"] == places[0]


@pytest.mark.parametrize("count", [0, 101])
def test_a_list_has_1_to_100_entries(client, issued, rows, count):
    body = [{"client_secret": issued.client_secret}] * count
    assert problem_in(client.post("/leaks", json=body)) == ("", "Must have 1-100 entries")
    assert leaks(rows) == []


@pytest.mark.parametrize(
    ("entry", "pointer"),
    [
        ({}, "/client_secret"),
        ({"client_secret": None}, "/client_secret"),
        ({"client_secret": 5}, "/client_secret"),
        ({"client_secret": ["lv_cs_"]}, "/client_secret"),
        ({"token": None}, "/token"),
        ({"token": "x", "client_secret": "x"}, "/token"),
        ({"token": "x", "url": 5}, "/url"),
        ({"token": "x", "url": "x" * 501}, "/url"),
        ({"token": "x", "url": "a\u0000b"}, "/url"),
        ({"token": "x", "source": "a\u202eb"}, "/source"),
        ({"token": "x", "source": "\ud800"}, "/source"),
        ({"client_secret": "x", "source": {}}, "/source"),
        ([], ""),
        ("lv_cs_", ""),
        (None, ""),
    ],
)
def test_an_entry_of_the_wrong_shape_rejects_the_report(client, issued, rows, entry, pointer):
    good = {"client_secret": issued.client_secret}
    assert problem_in(client.post("/leaks", json=[good, entry]))[0] == f"/1{pointer}"
    if isinstance(entry, dict | str):
        assert problem_in(client.post("/leaks", json=entry))[0] == pointer
    assert leaks(rows) == []
    assert verifies(client, issued)


def test_texts_of_500_characters_and_unknown_members_are_accepted(client, issued, rows):
    more = {"url": "x" * 500, "source": "\N{CAT FACE}" * 500, "type": 5, "new": {"token": [None]}}
    assert accepted(report(client, issued.client_secret, **more))
    [event] = leaks(rows)
    assert event["detail"]["source"] == "\N{CAT FACE}" * 500
    assert "new" not in event["detail"]


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b'{"token": NaN}', {"Content-Type": "application/json"}, 400),
        (b'{"token": "", "token": ""}', {"Content-Type": "application/json"}, 400),
        (b"\xff", {"Content-Type": "application/json"}, 400),
        (b"token=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_body_that_is_not_plain_json_is_rejected(client, data, headers, status):
    answer = client.post("/leaks", data=data, headers=headers)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"


def test_a_body_may_have_64_kib(client, issued):
    def padded(size):
        body = json.dumps({"client_secret": issued.client_secret, "new": ""})
        return body.replace('""', f'"{" " * (size - len(body))}"')

    too_long = client.post("/leaks", data=padded(65537), content_type="application/json")
    assert too_long.status_code == 413
    assert too_long.json["detail"] == "The request body exceeds 65536 bytes"
    assert verifies(client, issued)
    assert accepted(client.post("/leaks", data=padded(65536), content_type="application/json"))
    assert not verifies(client, issued)


def test_only_reports_may_have_long_bodies(member):
    answer = member.post("/secrets", json={"name": "x" * 20_000})
    assert answer.status_code == 413
    assert answer.json["detail"] == "The request body exceeds 16384 bytes"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_it_can_only_be_posted_to(client, method):
    answer = client.open("/leaks", method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_off_is_404_and_the_document_does_not_have_it(app_with, issued, rows):
    client = app_with(leak_reports="off").test_client(use_cookies=False)
    answer = report(client, issued.client_secret)
    assert (answer.status_code, answer.json["type"]) == (404, "/docs/errors#not-found")
    assert client.get("/leaks").status_code == 404
    assert verifies(client, issued)
    assert "/leaks" not in client.get("/openapi.json").json["paths"]


def test_reports_of_one_address_beyond_the_limit_are_answered_429(app_with, issued):
    client = app_with(verify_failure_limit=2).test_client(use_cookies=False)
    assert report(client, 5).status_code == 400  # does not count
    for _ in range(2):
        assert accepted(report(client, "x"))
    answer = report(client, issued.client_secret)
    assert answer.status_code == 429
    assert answer.json["type"] == "/docs/errors#too-many-reports"
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert verifies(client, issued)
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.9"}}
    body = {"client_secret": issued.client_secret}
    assert accepted(client.post("/leaks", json=body, **elsewhere))


def test_a_report_that_gets_no_turn_is_answered_503(app, client, issued):
    with app.services.bulkheads.public.bulkhead:
        answer = report(client, issued.client_secret)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert verifies(client, issued)
    assert accepted(report(client, issued.client_secret))


def test_a_client_secret_with_a_digest_under_a_previous_key_is_found(app_with, settings, issued):
    keys = (b"n" * 32, *settings.digest_keys)
    client = app_with(digest_keys=keys).test_client(use_cookies=False)
    assert accepted(report(client, issued.client_secret))
    assert not verifies(client, issued)


def test_after_the_loss_of_a_key_a_client_secret_is_found_once_it_was_verified(
    app_with, issued, rows
):
    client = app_with(digest_keys=(b"n" * 32,)).test_client(use_cookies=False)
    assert accepted(report(client, issued.client_secret))
    assert leaks(rows) == []
    assert verifies(client, issued)
    assert accepted(report(client, issued.client_secret))
    assert not verifies(client, issued)


def test_the_client_secret_is_neither_stored_nor_logged(client, issued, rows, caplog):
    caplog.set_level(logging.DEBUG)
    for body in (
        [{"token": issued.client_secret}],
        {"client_secret": issued.client_secret, "url": 5},
    ):
        client.post("/leaks", json=body)
    assert len(leaks(rows)) == 1
    stored = str([rows(f"SELECT * FROM {each}") for each in ("credential_events", "credentials")])
    assert issued.client_secret not in stored
    assert issued.client_secret not in caplog.text


@pytest.mark.parametrize("coding", ["Content-Length", "Transfer-Encoding"])
@pytest.mark.parametrize(("size", "status"), [(65536, 202), (65537, 413)])
def test_a_long_report_reaches_the_service(server, issued, rows, coding, size, status):
    body = json.dumps({"client_secret": issued.client_secret, "new": ""})
    body = body.replace('""', f'"{" " * (size - len(body))}"').encode()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=HANG_SECONDS)
    chunks = iter([body]) if coding == "Transfer-Encoding" else body
    connection.request("POST", "/leaks", chunks, {"Content-Type": "application/json"})
    assert connection.getresponse().status == status
    connection.close()
    assert rows.count("client_secrets") == (0 if status == 202 else 1)
