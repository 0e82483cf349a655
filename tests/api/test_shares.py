"""Each unit has its share of management."""

from contextlib import ExitStack, suppress

import pytest

from app.bulkheads import BulkheadFull
from tests.conftest import client_of

CALLS = [
    ("GET", "/secrets", None),
    ("POST", "/secrets", {"name": "x"}),
    ("GET", "/secrets/{secret_id}", None),
    ("PATCH", "/secrets/{secret_id}", {"name": "y"}),
    ("PUT", "/secrets/{secret_id}", {"trust_upstream_consent": True}),
    ("DELETE", "/secrets/{secret_id}", None),
    ("DELETE", "/secrets/{secret_id}/secrets/abcd", None),
    ("POST", "/secrets/{secret_id}/rotate", None),
    ("GET", "/secrets/{secret_id}/events", None),
    ("GET", "/secrets/events", None),
]


@pytest.fixture
def bulkheads(app):
    return app.services.bulkheads


@pytest.fixture
def busy_unit(bulkheads):
    """A unit whose places are all taken."""
    with ExitStack() as stack:
        with suppress(BulkheadFull):
            while True:
                stack.enter_context(bulkheads.management.bulkhead.place("unit_demo"))
        yield


def call(client, issued, method, path, body):
    return client.open(path.format(secret_id=issued.secret_id), method=method, json=body)


@pytest.mark.parametrize("operation", CALLS, ids=lambda each: f"{each[0]} {each[1]}")
def test_a_unit_beyond_its_share_is_refused_and_others_are_not(
    app, member, issuer, issued, rows, busy_unit, operation
):
    refused = call(member, issued, *operation)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    other = client_of(app, issuer.sign(unit_id="unit_other"))
    assert call(other, issued, *operation).status_code in {200, 404}
    events = rows("SELECT event FROM credential_events WHERE unit_id = 'unit_demo'")
    assert events == [{"event": "issued"}]


def test_these_are_all_operations_of_management(app):
    rules = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/secrets")
    }
    assert {(method, path.replace("abcd", "{hint}")) for method, path, _ in CALLS} == rules


def test_every_answer_gives_back_what_its_request_has_taken(app, member, client, issued, bulkheads):
    path = f"/secrets/{issued.secret_id}"
    answers = [
        client.get(path),  # no token
        member.get("/secrets/sec_x"),
        member.put(path, json={"name": 1}),
        member.put(path, data=b" " * 20_000, content_type="application/json"),
        member.delete(f"{path}?unused_for=60"),
        member.get(path),
    ]
    assert [each.status_code for each in answers] == [401, 404, 400, 413, 409, 200]
    for each in (bulkheads.authentication, bulkheads.management.bulkhead):
        assert (each.in_use, each.waiting) == (0, 0)


def test_a_caller_whose_time_is_over_is_refused_and_changes_nothing(
    member, issued, rows, monkeypatch
):
    monkeypatch.setattr("app.api.auth.MANAGEMENT_SECONDS", 0.0)
    path = f"/secrets/{issued.secret_id}"
    answers = [member.get(path), member.delete(path), member.post("/secrets", json={"name": "x"})]
    assert [each.status_code for each in answers] == [503] * 3
    assert rows.count("credential_events") == 1
