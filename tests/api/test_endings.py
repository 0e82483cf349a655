"""Disable a credential, end one client secret, and revoke only if it is not in use."""

import pytest

from app.credentials.generator import generate_client_secret
from tests.helpers import basic, caller, is_live


@pytest.fixture
def path(issued):
    return f"/secrets/{issued.secret_id}"


@pytest.fixture
def put(member, path):
    def put(**body):
        return member.put(path, json={"trust_upstream_consent": False, **body})

    return put


@pytest.fixture
def changes(member, path):
    """Return a function that reads the events of changes: a first use has one a moment later."""

    def changes():
        events = member.get(f"{path}/events").json
        return [event for event in events if event["event"] != "first_used"]

    return changes


@pytest.fixture
def trail(changes):
    return lambda: [event["event"] for event in changes()]


def verify(client, issued, client_secret=None):
    pair = basic(issued.client_id, client_secret or issued.client_secret)
    return client.get("/verify", headers=pair)


# Disable and enable


def test_a_disabled_credential_is_refused_like_a_wrong_secret(put, client, issued, app_with):
    other_instance = app_with().test_client()
    assert verify(other_instance, issued).status_code == 200
    assert put(enabled=False).status_code == 204
    for instance in (client, other_instance):
        refused = verify(instance, issued)
        assert refused.status_code == 401
        assert refused.data == verify(instance, issued, generate_client_secret()).data
    put(enabled=True)
    assert verify(client, issued).status_code == verify(other_instance, issued).status_code == 200


def test_a_disabled_credential_is_not_accepted_by_bcrypt_either(put, client, issued, rows):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    put(enabled=False)
    assert verify(client, issued).status_code == 401
    assert rows("SELECT digest FROM client_secrets") == [{"digest": None}]


def test_a_credential_shows_when_it_was_disabled(put, member, path, rows):
    assert member.get(path).json["disabled_at"] is None
    put(enabled=False)
    rows.execute("UPDATE credentials SET disabled_at = '2025-06-01T10:00:00Z'")
    put(enabled=False, name="new")
    assert member.get(path).json["disabled_at"] == "2025-06-01T10:00:00Z"
    put()
    assert member.get(path).json["disabled_at"] == "2025-06-01T10:00:00Z"
    put(enabled=True)
    assert member.get(path).json["disabled_at"] is None


def test_each_change_of_enabled_leaves_one_event(put, trail):
    put(enabled=True)
    put(enabled=False)
    put(enabled=False)
    put(enabled=True, name="new")
    assert trail() == ["enabled", "updated", "disabled", "issued"]


@pytest.mark.parametrize("value", [None, 0, 1, "true", "", [], {}], ids=ascii)
def test_enabled_must_be_a_boolean(put, value, trail, rows, issued):
    answer = put(enabled=value, name="new")
    assert (answer.status_code, answer.json["detail"]) == (400, "enabled must be true or false")
    assert trail() == ["issued"]
    assert is_live(rows, issued.client_secret)


def test_a_disabled_credential_can_be_rotated_and_revoked(put, member, path, client, issued):
    put(enabled=False)
    rotated = member.post(f"{path}/rotate").json
    assert verify(client, issued, rotated["client_secret"]).status_code == 401
    put(enabled=True)
    assert verify(client, issued, rotated["client_secret"]).status_code == 200
    put(enabled=False)
    assert member.delete(path).status_code == 204


# End one client secret


@pytest.fixture
def rotated(service, issued):
    return service.rotate(caller(), issued.secret_id, overlap_seconds=3600)


def test_ending_a_secret_finishes_a_rotation(
    member, path, issued, rotated, client, app_with, rows, changes
):
    other_instance = app_with().test_client()
    rows.execute(
        "UPDATE client_secrets SET last_used_at = '2025-06-01Z' WHERE hint = %(hint)s",
        hint=issued.client_secret[-4:],
    )
    answer = member.delete(f"{path}/secrets/{issued.client_secret[-4:]}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert member.get(path).json["last_used_at"] == "2025-06-01T00:00:00Z"
    for instance in (client, other_instance):
        assert verify(instance, issued).status_code == 401
        assert verify(instance, issued, rotated.client_secret).status_code == 200
    assert rows.count("client_secrets") == 1
    assert [event["event"] for event in changes()] == ["secret_ended", "rotated", "issued"]
    assert changes()[0]["detail"] == {"hint": issued.client_secret[-4:]}


def test_the_newest_secret_can_be_ended_too(member, path, issued, rotated, client):
    assert member.delete(f"{path}/secrets/{rotated.client_secret[-4:]}").status_code == 204
    assert verify(client, issued).status_code == 200
    (left,) = member.get(path).json["secrets"]
    assert left["hint"] == issued.client_secret[-4:]


def test_the_last_live_secret_cannot_be_ended(member, path, issued, rows, trail):
    answer = member.delete(f"{path}/secrets/{issued.client_secret[-4:]}")
    assert (answer.status_code, answer.json["detail"]) == (
        409,
        "This is the last live client secret; rotate, disable or revoke the credential instead",
    )
    assert is_live(rows, issued.client_secret)
    assert trail() == ["issued"]


def test_an_ambiguous_hint_ends_nothing(member, path, issued, rotated, rows):
    rows.execute("UPDATE client_secrets SET hint = 'same'")
    answer = member.delete(f"{path}/secrets/same")
    assert (answer.status_code, answer.json["detail"]) == (
        409,
        "Two live client secrets have this hint; rotate with overlap_seconds 0 instead",
    )
    assert rows.count("client_secrets") == 2


@pytest.mark.parametrize(
    "hint", ["abc", "abcde", "....", "%00%00%00%00", "ab%2Fc", "éééé", "%25%25%25%25", "' OR"],
    ids=ascii,
)  # fmt: skip
def test_an_unknown_hint_is_not_found(member, path, rotated, rows, hint):
    assert member.delete(f"{path}/secrets/{hint}").status_code == 404
    assert rows.count("client_secrets") == 2


def test_an_expired_secret_is_not_found(member, path, issued, rotated, rows):
    hint = issued.client_secret[-4:]
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE hint = %(hint)s", hint=hint)
    assert member.delete(f"{path}/secrets/{hint}").status_code == 404


# Revoke what is not in use


def created(rows, seconds_ago):
    for table in ("client_secrets", "credentials"):
        rows.execute(
            f"UPDATE {table} SET created_at = now() - make_interval(secs => %(ago)s)",
            ago=seconds_ago,
        )


def used(rows, seconds_ago):
    rows.execute(
        "UPDATE client_secrets SET last_used_at = now() - make_interval(secs => %(ago)s)",
        ago=seconds_ago,
    )


def test_a_credential_in_use_is_not_revoked(member, path, rows, trail):
    used(rows, 1800)
    answer = member.delete(f"{path}?unused_for=3600")
    assert (answer.status_code, answer.json["detail"]) == (
        409,
        "The credential was used within unused_for",
    )
    assert answer.json["last_used_at"] == member.get(path).json["last_used_at"]
    assert trail() == ["issued"]


def test_a_use_may_be_a_minute_later_than_recorded(member, path, rows):
    used(rows, 3600 + 50)
    assert member.delete(f"{path}?unused_for=3600").status_code == 409


def test_a_use_is_not_more_than_a_minute_later_than_recorded(member, path, rows):
    created(rows, 7200)
    used(rows, 3600 + 60)
    assert member.delete(f"{path}?unused_for=3600").status_code == 204


@pytest.mark.parametrize("unused_for", [60, 3600, 31536000])
def test_a_credential_that_was_never_used_is_revoked(member, path, rows, unused_for):
    created(rows, unused_for)
    assert member.delete(f"{path}?unused_for={unused_for}").status_code == 204


@pytest.mark.parametrize("unused_for", [3600, 31536000])
def test_a_credential_that_nobody_may_have_used_yet_is_not_revoked(
    member, path, rows, unused_for, trail
):
    created(rows, unused_for - 600)
    answer = member.delete(f"{path}?unused_for={unused_for}")
    assert (answer.status_code, answer.json["detail"]) == (
        409,
        "The newest client secret was created within unused_for",
    )
    assert answer.json["type"] == "/docs/errors#credential-in-use"
    assert "last_used_at" not in answer.json
    assert trail() == ["issued"]


def test_a_new_client_secret_counts_like_a_use(member, path, rows):
    created(rows, 7200)
    assert member.post(f"{path}/rotate").status_code == 200
    assert member.delete(f"{path}?unused_for=3600").status_code == 409


def test_a_credential_that_was_used_long_ago_is_revoked(member, path, rows, trail):
    created(rows, 7300)
    used(rows, 7200)
    assert member.delete(f"{path}?unused_for=3600").status_code == 204
    assert trail() == ["revoked", "issued"]


def test_a_use_that_is_not_recorded_yet_counts(member, path, app, client, issued, rows, trail):
    with app.services.bulkheads.background.bulkhead:  # so nothing is recorded
        assert verify(client, issued).status_code == 200
        answer = member.delete(f"{path}?unused_for=60")
        assert rows("SELECT last_used_at FROM client_secrets") == [{"last_used_at": None}]
    assert answer.status_code == 409
    assert answer.json["last_used_at"] is not None
    assert trail() == ["issued"]


def test_a_use_that_another_instance_has_just_answered_counts(member, app_with, service):
    other_instance = app_with().test_client()
    for name in ("a", "b"):  # just before the second use, the other instance has written the first
        issued = service.issue(caller(), name=name)
        assert verify(other_instance, issued).status_code == 200
        path = f"/secrets/{issued.secret_id}"
        assert member.delete(f"{path}?unused_for=60").status_code == 409


def test_a_use_of_a_secret_that_has_ended_counts(member, path, rows):
    used(rows, 60)
    member.post(f"{path}/rotate", json={"overlap_seconds": 0})
    assert member.delete(f"{path}?unused_for=3600").status_code == 409


@pytest.mark.parametrize(
    "query",
    ["unused_for=59", "unused_for=31536001", "unused_for=", "unused_for=x", "unused_for=-60",
     "unused_for=6e2", "unused_for=60.0", "unused_for=%2B60", "unused_for=1_00",
     "unused_for=60&unused_for=60"],
)  # fmt: skip
def test_an_invalid_unused_for_revokes_nothing(member, path, query, trail):
    answer = member.delete(f"{path}?{query}")
    assert answer.status_code == 400
    assert answer.json["detail"].startswith("unused_for must be ")
    assert trail() == ["issued"]
