from datetime import timedelta

import pytest

from app.credentials.generator import checksum
from tests.conftest import client_of
from tests.helpers import DETAILED_FIELDS, FIELDS, ISSUED_FIELDS, is_live

NOT_FOUND = {
    "type": "/docs/errors#credential-not-found",
    "title": "Not Found",
    "status": 404,
    "detail": "No such credential",
}


@pytest.fixture
def issued_json(member):
    """The answer to the request that issued the credential."""
    return member.post("/secrets", json={"name": "CRM backend"}).json


@pytest.fixture
def path(issued_json):
    return f"/secrets/{issued_json['secret_id']}"


@pytest.fixture
def rotate(member, path):
    def rotate(**body):
        answer = member.post(f"{path}/rotate", json=body)
        assert answer.status_code == 200
        return answer.json["client_secret"]

    return rotate


@pytest.fixture
def trail(member, path):
    return lambda: member.get(f"{path}/events").json


def test_a_credential_is_shown_with_its_live_secrets(member, issued_json, path):
    answer = member.get(path)
    assert answer.status_code == 200
    assert list(answer.json) == DETAILED_FIELDS
    assert {name: answer.json[name] for name in FIELDS} == {
        name: issued_json[name] for name in FIELDS
    }
    assert answer.json["updated_at"] == answer.json["created_at"]
    assert answer.json["last_used_at"] is None
    (secret,) = answer.json["secrets"]
    assert list(secret) == ["hint", "created_at", "last_used_at", "last_used_from", "expires_at"]
    assert secret["hint"] == issued_json["client_secret"][-4:]
    assert secret["created_at"] == issued_json["created_at"]
    assert secret["last_used_at"] is secret["last_used_from"] is secret["expires_at"] is None


def test_a_credential_was_last_used_when_any_of_its_secrets_was(member, path, rotate, rows):
    rotate()
    rows.execute(
        "UPDATE client_secrets SET last_used_at = '2025-06-01T10:00:00.9Z' "
        "WHERE expires_at IS NOT NULL"
    )
    shown = member.get(path).json
    assert shown["last_used_at"] == "2025-06-01T10:00:00Z"
    assert [secret["last_used_at"] for secret in shown["secrets"]] == [None, shown["last_used_at"]]


# Update


@pytest.mark.parametrize("trust", [True, False])
def test_an_update_sets_the_consent_flag(member, path, trust):
    answer = member.put(path, json={"trust_upstream_consent": trust})
    assert (answer.status_code, answer.data) == (204, b"")
    assert member.get(path).json["trust_upstream_consent"] is trust
    assert member.get(path).json["name"] == "CRM backend"


def test_an_update_can_also_set_the_name(member, path):
    body = {"trust_upstream_consent": True, "name": " New name "}
    assert member.put(path, json=body).status_code == 204
    assert member.get(path).json["name"] == "New name"


def test_an_update_changes_updated_at_but_not_created_at(member, path, rows, issued_json):
    rows.execute("UPDATE credentials SET created_at = '2025-06-01Z', updated_at = '2025-06-01Z'")
    member.put(path, json={"trust_upstream_consent": True})
    shown = member.get(path).json
    assert shown["created_at"] == "2025-06-01T00:00:00Z"
    assert shown["updated_at"] > shown["created_at"]
    assert shown["client_id"] == issued_json["client_id"]


@pytest.mark.parametrize(
    "value", [None, 1, 0, 1.0, "true", "false", "yes", "", [], {}, [True]], ids=ascii
)
def test_a_consent_flag_that_is_not_a_boolean_is_rejected(member, path, trail, value):
    answer = member.put(path, json={"trust_upstream_consent": value, "name": "x"})
    assert answer.status_code == 400
    assert answer.json["errors"][0]["pointer"] == "/trust_upstream_consent"
    assert member.get(path).json["name"] == "CRM backend"
    assert len(trail()) == 1


@pytest.mark.parametrize("body", [{}, {"name": "x"}])
def test_an_update_without_the_consent_flag_is_rejected(member, path, body):
    assert member.put(path, json=body).status_code == 400
    assert member.get(path).json["name"] == "CRM backend"


@pytest.mark.parametrize("name", [None, 5, "", "x" * 51, "a\x00b"], ids=ascii)
def test_an_update_with_an_invalid_name_changes_nothing(member, path, name):
    answer = member.put(path, json={"trust_upstream_consent": True, "name": name})
    assert (answer.status_code, answer.json["detail"]) == (400, "Name must be 1-50 characters")
    assert member.get(path).json["trust_upstream_consent"] is False


@pytest.mark.parametrize("field", ["client_id", "unit_id", "secret_id", "client_secret"])
def test_an_update_of_any_other_field_is_rejected(member, path, field):
    body = {"trust_upstream_consent": True, field: "x"}
    assert member.put(path, json=body).status_code == 400
    assert member.get(path).json["trust_upstream_consent"] is False


def test_the_event_of_an_update_contains_the_old_and_new_values(member, path, trail):
    body = {"trust_upstream_consent": True, "name": "New"}
    member.put(path, json=body, headers={"X-Request-Id": "req-2"})
    event = trail()[0]
    assert list(event) == ["event", "actor", "at", "request_id", "detail"]
    assert (event["event"], event["actor"], event["request_id"]) == ("updated", "ada", "req-2")
    assert event["detail"] == {
        "name": {"from": "CRM backend", "to": "New"},
        "trust_upstream_consent": {"from": False, "to": True},
    }


def test_an_update_that_changes_nothing_leaves_no_event(member, path, trail, rows):
    rows.execute("UPDATE credentials SET updated_at = '2025-06-01Z'")
    body = {"trust_upstream_consent": False, "name": "CRM backend", "enabled": True}
    assert member.put(path, json=body).status_code == 204
    assert [event["event"] for event in trail()] == ["issued"]
    assert member.get(path).json["updated_at"] == "2025-06-01T00:00:00Z"


# Revoke


def test_a_revoked_credential_is_deleted_with_its_secrets(member, path, issued_json, rows):
    answer = member.delete(path)
    assert (answer.status_code, answer.data) == (204, b"")
    assert not is_live(rows, issued_json["client_secret"])
    assert rows.count("credentials") == rows.count("client_secrets") == 0
    assert member.get("/secrets").json == []


def test_a_revoked_credential_is_not_found(member, path):
    member.delete(path)
    answers = [
        member.get(path),
        member.delete(path),
        member.put(path, json={"trust_upstream_consent": True}),
        member.post(f"{path}/rotate"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json) == (404, NOT_FOUND)


def test_the_trail_outlives_the_credential(member, path, trail):
    member.delete(path, headers={"X-Request-Id": "req-3"})
    assert [event["event"] for event in trail()] == ["revoked", "issued"]
    assert trail()[0]["request_id"] == "req-3"
    assert trail()[0]["detail"] == {}


# Rotate


def test_a_rotation_returns_a_new_secret_for_the_same_client_id(member, path, issued_json):
    answer = member.post(f"{path}/rotate")
    assert answer.status_code == 200
    assert list(answer.json) == ISSUED_FIELDS
    secret = answer.json["client_secret"]
    assert checksum(secret[:-6]) == secret[-6:]
    assert secret != issued_json["client_secret"]
    without_secret = {name: value for name, value in issued_json.items() if name != "client_secret"}
    assert answer.json == without_secret | {"client_secret": secret}


def test_both_secrets_work_during_the_overlap(issued_json, rotate, rows):
    assert is_live(rows, rotate())
    assert is_live(rows, issued_json["client_secret"])


def overlap_left(rows):
    query = "SELECT min(expires_at) - now() AS left FROM client_secrets"
    return rows(query)[0]["left"]


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({}, 86400),
        ({"overlap_seconds": 60}, 60),
        ({"overlap_seconds": 60.0}, 60),
        ({"overlap_seconds": 2592000}, 2592000),
    ],
)
def test_the_previous_secret_expires_when_the_overlap_ends(
    member, path, rotate, rows, body, seconds
):
    rotate(**body)
    left = overlap_left(rows)
    assert timedelta(seconds=seconds - 30) < left <= timedelta(seconds=seconds)
    newest, previous = member.get(path).json["secrets"]
    assert newest["expires_at"] is None
    assert previous["expires_at"] is not None


def test_the_previous_secret_does_not_work_after_the_overlap(
    member, path, issued_json, rotate, rows
):
    rotate(overlap_seconds=60)
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert not is_live(rows, issued_json["client_secret"])
    assert len(member.get(path).json["secrets"]) == 1


def test_without_an_overlap_the_previous_secret_ends_immediately(
    member, path, issued_json, rotate, rows
):
    new = rotate(overlap_seconds=0)
    assert is_live(rows, new)
    assert not is_live(rows, issued_json["client_secret"])
    assert [secret["hint"] for secret in member.get(path).json["secrets"]] == [new[-4:]]


def test_a_second_rotation_with_an_overlap_is_rejected_and_ends_nothing(
    member, path, issued_json, rotate, rows, trail
):
    second = rotate()
    answer = member.post(f"{path}/rotate")
    assert (answer.status_code, answer.json["detail"]) == (
        409,
        "Two client secrets are already live; end one first, or rotate with overlap_seconds 0",
    )
    assert is_live(rows, issued_json["client_secret"])
    assert is_live(rows, second)
    assert [event["event"] for event in trail()] == ["rotated", "issued"]


def test_a_rotation_without_an_overlap_ends_both_previous_secrets(issued_json, rotate, rows):
    second, third = rotate(), rotate(overlap_seconds=0)
    assert is_live(rows, third)
    assert not is_live(rows, second)
    assert not is_live(rows, issued_json["client_secret"])
    assert rows.count("client_secrets") == 1


def test_a_rotation_never_postpones_an_expiry(rotate, rows):
    rows.execute("UPDATE client_secrets SET expires_at = now() + interval '10 seconds'")
    rotate(overlap_seconds=2592000)
    assert overlap_left(rows) < timedelta(seconds=11)


def test_last_used_at_survives_rotations(member, path, rotate, rows):
    rows.execute("UPDATE client_secrets SET last_used_at = '2025-06-01T10:00:00Z'")
    for _ in range(3):
        rotate(overlap_seconds=0)
        assert member.get(path).json["last_used_at"] == "2025-06-01T10:00:00Z"


@pytest.mark.parametrize("overlap", [-1, 2592001, 10**30, 1.5, "60", True, None, [], {}], ids=ascii)
def test_an_invalid_overlap_is_rejected_and_changes_nothing(member, path, rows, trail, overlap):
    answer = member.post(f"{path}/rotate", json={"overlap_seconds": overlap})
    assert answer.status_code == 400
    assert answer.json["detail"] == "overlap_seconds must be 0-2592000"
    assert answer.json["errors"][0]["pointer"] == "/overlap_seconds"
    assert rows.count("client_secrets") == 1
    assert len(trail()) == 1


def test_the_event_of_a_rotation_contains_its_overlap_and_no_secret(
    issued_json, rotate, trail, rows
):
    secret = rotate(overlap_seconds=60)
    assert trail()[0]["event"] == "rotated"
    assert trail()[0]["detail"] == {"overlap_seconds": 60}
    (everything,) = rows("SELECT string_agg(e::text, '') AS text FROM credential_events AS e")
    for each in (secret, issued_json["client_secret"]):
        assert each[6:] not in everything["text"]


# Events


def test_the_trail_begins_with_the_issued_event(issued_json, trail):
    (event,) = trail()
    assert event["event"] == "issued"
    assert event["at"] == issued_json["created_at"]
    assert event["detail"] == {"client_id": issued_json["client_id"], "name": "CRM backend"}


def test_the_first_page_shows_even_the_highest_event_id(issued_json, rows, trail):
    rows.execute(
        "INSERT INTO credential_events (event_id, secret_id, unit_id, event, actor, request_id) "
        "OVERRIDING SYSTEM VALUE "
        "VALUES (%(number)s, %(secret_id)s, 'unit_demo', 'rotated', 'ada', 'r')",
        number=2**63 - 2,
        secret_id=issued_json["secret_id"],
    )
    assert [event["event"] for event in trail()] == ["rotated", "issued"]


def test_a_rejected_or_refused_request_leaves_no_event(app, issuer, member, path, rows):
    stranger = client_of(app, issuer.sign(unit_id="unit_other"))
    for client in (member, stranger, app.test_client()):
        client.put(path, json={})
        client.post(f"{path}/rotate", json={"overlap_seconds": -1})
    stranger.delete(path)
    stranger.post(f"{path}/rotate")
    stranger.put(path, json={"trust_upstream_consent": True})
    assert rows.count("credential_events") == 1


# Another unit's credential


SECRET_IDS = ["sec_" + "0" * 20, "sec_x", "x", "%ff", "sec_" + "é" * 20, "' OR '1'='1"]


@pytest.mark.parametrize("secret_id", SECRET_IDS, ids=ascii)
def test_a_credential_that_does_not_exist_is_not_found(member, secret_id):
    for method, suffix in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/rotate")):
        answer = member.open(f"/secrets/{secret_id}{suffix}", method=method)
        assert (answer.status_code, answer.json) == (404, NOT_FOUND)


BODIES = {"PUT": {"trust_upstream_consent": True}, "POST": {}}


def test_a_credential_of_another_unit_looks_like_one_that_does_not_exist(app, issuer, path, rows):
    """It tries every route with a secret_id, so that a route that is added later is covered."""
    stranger = client_of(app, issuer.sign(unit_id="unit_other"))
    missing = "/secrets/sec_" + "0" * 20
    hint = rows("SELECT hint FROM client_secrets")[0]["hint"]
    before = rows(
        "SELECT c::text, s::text FROM credentials c JOIN client_secrets s USING (secret_id)"
    )
    tried = 0
    for rule in app.url_map.iter_rules():
        if "<secret_id>" not in rule.rule:
            continue
        for method in rule.methods - {"HEAD"}:
            other, absent = (
                stranger.open(
                    rule.rule.replace("/secrets/<secret_id>", prefix).replace("<hint>", hint),
                    method=method,
                    json=BODIES.get(method),
                    headers={"X-Request-Id": "same"},
                )
                for prefix in (path, missing)
            )
            assert other.status_code == 404, (method, rule.rule)
            assert (other.data, other.headers) == (absent.data, absent.headers)
            tried += 1
    assert tried == 7
    after = rows(
        "SELECT c::text, s::text FROM credentials c JOIN client_secrets s USING (secret_id)"
    )
    assert after == before
    assert rows.count("credential_events") == 1


# What has ended is gone


def test_an_ended_secret_is_deleted_and_the_credential_keeps_its_last_use(
    member, path, rotate, rows
):
    rows.execute("UPDATE client_secrets SET last_used_at = '2025-06-01T10:00:00Z'")
    rotate(overlap_seconds=0)
    assert rows.count("client_secrets") == 1
    assert member.get(path).json["last_used_at"] == "2025-06-01T10:00:00Z"


@pytest.mark.parametrize("change", ["update", "rotate"])
def test_an_expired_secret_is_deleted_with_the_next_change(member, path, rotate, rows, change):
    rotate()
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    if change == "update":
        member.put(path, json={"trust_upstream_consent": True})
        assert rows.count("client_secrets") == 1
    else:
        rotate()
        assert rows.count("client_secrets") == 2
    assert rows("SELECT 1 FROM client_secrets WHERE expires_at <= now()") == []
