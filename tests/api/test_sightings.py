"""What the owner sees of uses and refusals, and what ends only if it is unused."""

import pytest

from app.credentials.generator import generate_client_id, generate_client_secret
from tests.conftest import client_of
from tests.helpers import basic, caller, names, time_in, typo_of
from tests.running_server import wait_until

FROM = {"REMOTE_ADDR": "192.0.2.7"}
BAD_DURATIONS = ["59", "31536001", "", "x", "60.5", "-60", "60&unused_for=60"]


@pytest.fixture
def path(issued):
    return f"/secrets/{issued.secret_id}"


@pytest.fixture
def rotate(service, issued):
    return lambda overlap: service.rotate(caller(), issued.secret_id, overlap_seconds=overlap)


def send(app, issued, client_secret=None, environ=FROM, **headers):
    pair = basic(issued.client_id, client_secret or issued.client_secret)
    client = app.test_client(use_cookies=False)
    answer = client.get("/verify", headers={**pair, **headers}, environ_overrides=environ)
    wait_until(app.services.writer.flush)
    return answer


def test_the_owner_sees_who_was_refused_when_and_why(app, issued, member, path, rotate):
    assert member.get(path).json["last_refused"] is None
    rotate(0)
    assert send(app, issued).status_code == 401
    refused = member.get(path).json["last_refused"]
    assert list(refused) == ["at", "reason", "from", "hint"]
    assert refused["at"] <= time_in(seconds=1)
    assert refused["reason"] == "ended"
    assert refused["from"] == "192.0.2.7"
    assert refused["hint"] == issued.client_secret[-4:]


@pytest.mark.parametrize(
    ("restriction", "status", "reason"),
    [({"addresses": ["192.0.2.8"]}, 401, "address"), ({"scopes": ["ingest"]}, 403, "scope")],
)
def test_the_owner_sees_which_restriction_refused(
    app, issued, member, path, restriction, status, reason
):
    assert member.patch(path, json=restriction).status_code == 204
    assert send(app, issued).status_code == status
    shown = member.get(path).json
    refused = shown["last_refused"]
    expected = (reason, "192.0.2.7", issued.client_secret[-4:])
    assert (refused["reason"], refused["from"], refused["hint"]) == expected
    assert shown["last_used_at"] is None


def test_the_owner_sees_from_where_each_client_secret_was_used(app, issued, member, path, rotate):
    rotate(3600)
    assert send(app, issued).status_code == 200
    newest, previous = member.get(path).json["secrets"]
    assert (newest["last_used_from"], previous["last_used_from"]) == (None, "192.0.2.7")
    [event] = member.get("/secrets/events?event=first_used").json
    assert event["detail"] == {"hint": issued.client_secret[-4:]}
    assert (event["actor"], event["via"], event["address"]) == (
        issued.client_id, "verify", "192.0.2.7",
    )  # fmt: skip


def test_the_event_of_a_first_use_has_the_id_of_its_request(app, issued, member):
    answer = send(app, issued)
    [event] = member.get("/secrets/events?event=first_used").json
    assert event["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("forwarded", ["unknown", "_hidden", '"', "", "<script>", "1.2.3.4\x7f"])
def test_an_address_that_is_not_one_is_null(app_with, issued, issuer, path, forwarded):
    app = app_with(trusted_proxies=1)
    member = client_of(app, issuer.sign())
    for client_secret in (None, generate_client_secret()):
        send(app, issued, client_secret, **{"X-Forwarded-For": forwarded})
    shown = member.get(path).json
    assert shown["secrets"][0]["last_used_at"] is not None
    assert shown["secrets"][0]["last_used_from"] is None
    assert (shown["last_refused"]["reason"], shown["last_refused"]["from"]) == ("wrong", None)


def test_credentials_with_refused_senders_are_listed(app, issued, service, member, rows):
    service.issue(caller(), name="never refused")
    send(app, issued, generate_client_secret())
    assert names(member.get("/secrets?refused_since=2025-01-01T00:00:00Z")) == [issued.name]
    rows.execute(
        "UPDATE credentials SET last_refused_at = '2025-06-01Z' WHERE last_refused_at IS NOT NULL"
    )
    assert names(member.get("/secrets?refused_since=2025-06-01T00:00:00Z")) == [issued.name]
    assert names(member.get("/secrets?refused_since=2025-06-01T00:00:01Z")) == []


@pytest.mark.parametrize("time", ["", "yesterday", "2025-06-01", "1748736000"])
def test_refused_since_must_be_a_time(member, time):
    assert member.get(f"/secrets?refused_since={time}").status_code == 400


def test_a_client_secret_ends_only_if_it_is_unused(app, issued, member, path, rotate, rows):
    rotate(3600)
    rows.execute("UPDATE client_secrets SET created_at = created_at - interval '1 day'")
    send(app, issued)
    ending = f"{path}/secrets/{issued.client_secret[-4:]}?unused_for=60"
    answer = member.delete(ending)
    assert (answer.status_code, answer.json["type"]) == (409, "/docs/errors#credential-in-use")
    assert answer.json["last_used_at"] == member.get(path).json["secrets"][1]["last_used_at"]
    rows.execute("UPDATE client_secrets SET last_used_at = last_used_at - interval '3 minutes'")
    assert member.delete(ending).status_code == 204


def test_a_client_secret_that_is_too_new_does_not_end_as_unused(issued, member, path, rotate):
    rotate(3600)
    answer = member.delete(f"{path}/secrets/{issued.client_secret[-4:]}?unused_for=60")
    assert answer.status_code == 409
    assert "last_used_at" not in answer.json


@pytest.mark.parametrize("unused_for", BAD_DURATIONS)
def test_the_time_in_which_a_client_secret_is_unused_has_limits(
    issued, member, path, rotate, unused_for
):
    rotate(3600)
    ending = f"{path}/secrets/{issued.client_secret[-4:]}?unused_for={unused_for}"
    assert member.delete(ending).status_code == 400
    assert len(member.get(path).json["secrets"]) == 2


def test_an_ending_with_a_condition_counts_as_a_change(app_with, issuer, issued, path):
    limited = client_of(app_with(change_limit=1), issuer.sign())
    ending = f"{path}/secrets/none"
    assert limited.delete(f"{ending}?unused_for=60").status_code == 404
    assert limited.delete(f"{ending}?unused_for=60").status_code == 429
    assert limited.delete(ending).status_code == 404


def test_a_refusal_looks_the_same_whatever_its_reason(app, service, issued, member, path, rotate):
    def refusal(client_id=issued.client_id, client_secret=issued.client_secret):
        answer = app.test_client(use_cookies=False).get(
            "/verify", headers={**basic(client_id, client_secret), "X-Request-Id": "same"}
        )
        headers = {name: value for name, value in answer.headers if name != "Date"}
        return answer.status_code, headers, answer.data

    wrong = refusal(client_secret=generate_client_secret())
    assert wrong[0] == 401
    newest = rotate(0)
    others = [
        refusal(),
        refusal(client_id=generate_client_id()),
        refusal(client_secret=typo_of(issued.client_secret)),
    ]
    member.patch(path, json={"enabled": False})
    others.append(refusal(client_secret=newest.client_secret))
    service.revoke(caller(), issued.secret_id)
    others.append(refusal(client_secret=newest.client_secret))
    assert others == [wrong] * len(others)
