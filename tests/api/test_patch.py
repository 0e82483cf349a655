"""PATCH changes what it names, and nothing else."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from app.api.http.problems import MAX_BODY_BYTES
from tests.conftest import client_of
from tests.helpers import caller, is_live
from tests.running_server import wait_until

MERGE_PATCH = "application/merge-patch+json"


@pytest.fixture
def path(issued):
    return f"/secrets/{issued.secret_id}"


@pytest.fixture
def patch(member, path):
    def patch(**body):
        answer = member.patch(path, json=body)
        assert answer.status_code == 204, answer.text
        assert answer.data == b""

    return patch


@pytest.fixture
def shown(member, path):
    """Return a function that reads what a PATCH may change."""

    def shown():
        credential = member.get(path).json
        is_enabled = credential["disabled_at"] is None
        return credential["name"], credential["trust_upstream_consent"], is_enabled

    return shown


@pytest.fixture
def trail(member, path):
    return lambda: [(each["event"], each["detail"]) for each in member.get(f"{path}/events").json]


def test_what_is_left_out_stays(patch, shown):
    assert shown() == ("CRM backend", False, True)
    patch(trust_upstream_consent=True)
    assert shown() == ("CRM backend", True, True)
    patch(name=" New ")
    assert shown() == ("New", True, True)
    patch(enabled=False)
    assert shown() == ("New", True, False)
    patch(trust_upstream_consent=False, enabled=True)
    assert shown() == ("New", False, True)


def test_a_pause_and_its_end_leave_the_trust_in_consent_alone(patch, shown, issued, rows):
    patch(trust_upstream_consent=True)
    patch(enabled=False)
    assert not is_live(rows, issued.client_secret)
    patch(enabled=True)
    assert is_live(rows, issued.client_secret)
    assert shown() == ("CRM backend", True, True)


def test_a_rename_does_not_trust_again_what_somebody_has_just_distrusted(
    member, path, patch, shown
):
    patch(trust_upstream_consent=True)
    read = member.get(path).json
    patch(trust_upstream_consent=False)
    patch(name=f"{read['name']} (EMEA)")
    assert shown() == ("CRM backend (EMEA)", False, True)


def test_the_events_are_those_of_an_update(patch, trail):
    patch(name="New", trust_upstream_consent=True, enabled=False)
    patch(enabled=True)
    changes = {
        "name": {"from": "CRM backend", "to": "New"},
        "trust_upstream_consent": {"from": False, "to": True},
    }
    assert trail()[:-1] == [("enabled", {}), ("disabled", {}), ("updated", changes)]


def test_an_event_names_only_what_has_changed(patch, trail):
    patch(name="New", trust_upstream_consent=False, enabled=True)
    assert trail()[:-1] == [("updated", {"name": {"from": "CRM backend", "to": "New"}})]


@pytest.mark.parametrize(
    "body", [None, b"{}", b" { } ", b'{"name":" CRM backend "}', b'{"enabled":true}',
             b'{"trust_upstream_consent":false,"enabled":true,"name":"CRM backend"}'],
)  # fmt: skip
def test_a_patch_that_changes_nothing_leaves_no_event(member, path, trail, rows, body):
    rows.execute("UPDATE credentials SET updated_at = '2025-06-01Z'")
    answer = member.patch(path, data=body, content_type="application/json" if body else None)
    assert (answer.status_code, answer.data) == (204, b"")
    assert len(trail()) == 1
    assert member.get(path).json["updated_at"] == "2025-06-01T00:00:00Z"


def test_a_body_that_is_empty_needs_no_media_type(member, path):
    assert member.patch(path, content_type="text/plain").status_code == 204


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"trust_upstream_consent": None}, "/trust_upstream_consent",
         "trust_upstream_consent must be true or false"),
        ({"enabled": None}, "/enabled", "enabled must be true or false"),
        ({"name": None}, "/name", "Name must be 1-50 characters"),
        ({"trust_upstream_consent": "true"}, "/trust_upstream_consent",
         "trust_upstream_consent must be true or false"),
        ({"enabled": 0}, "/enabled", "enabled must be true or false"),
        ({"enabled": []}, "/enabled", "enabled must be true or false"),
        ({"name": {}}, "/name", "Name must be 1-50 characters"),
        ({"name": "x" * 51}, "/name", "Name must be 1-50 characters"),
        ({"name": "a\u202eb"}, "/name", "Name must be 1-50 characters"),
        ({"Name": "x"}, "/Name", "The request body is not valid"),
        ({"secret_id": "sec_x"}, "/secret_id", "The request body is not valid"),
        ({"expires_at": "2030-01-01T00:00:00Z"}, "/expires_at", "The request body is not valid"),
        ({"/enabled": False}, "/~1enabled", "The request body is not valid"),
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("media_type", ["application/json", MERGE_PATCH])
def test_an_invalid_member_is_named_and_nothing_changes(
    member, path, shown, trail, body, pointer, detail, media_type
):
    other = {"trust_upstream_consent": True} if "name" in body else {"name": "New"}
    answer = member.patch(path, data=json.dumps(other | body), content_type=media_type)
    assert (answer.status_code, answer.json["detail"]) == (400, detail)
    assert [each["pointer"] for each in answer.json["errors"]] == [pointer]
    assert shown() == ("CRM backend", False, True)
    assert len(trail()) == 1


@pytest.mark.parametrize(
    "body",
    [b" ", b"null", b"[]", b'[{"op":"replace","path":"/name","value":"x"}]', b'"name"', b"{",
     b'{"name":"a","name":"b"}', b'{"enabled":false,"\\u0065nabled":true}', b'\xef\xbb\xbf{}',
     b'{"name":"\xff"}', "{}".encode("utf-16")],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("media_type", ["application/json", MERGE_PATCH])
def test_a_body_that_is_not_a_json_object_is_rejected(member, path, trail, body, media_type):
    answer = member.patch(path, data=body, content_type=media_type)
    assert (answer.status_code, answer.json["type"]) == (400, "/docs/errors#malformed-json")
    assert len(trail()) == 1


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", MERGE_PATCH, "Application/Merge-Patch+JSON"]
)
def test_a_patch_may_be_declared_as_a_merge_patch(member, path, shown, media_type):
    answer = member.patch(path, data=b'{"enabled":false}', content_type=media_type)
    assert answer.status_code == 204
    assert shown() == ("CRM backend", False, False)


@pytest.mark.parametrize(
    ("media_type", "encoding"),
    [(None, None), ("text/plain", None), ("application/json-patch+json", None), ("*/*", None),
     ("application/x-www-form-urlencoded", None), ("application/problem+json", None),
     (MERGE_PATCH, "gzip")],
)  # fmt: skip
def test_any_other_media_type_is_answered_with_those_that_a_patch_may_have(
    member, path, trail, media_type, encoding
):
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = member.patch(path, data=b'{"name":"x"}', content_type=media_type, headers=headers)
    assert answer.status_code == 415
    assert answer.headers["Accept-Patch"] == f"application/json, {MERGE_PATCH}"
    assert len(trail()) == 1


@pytest.mark.parametrize(("method", "path"), [("PUT", ""), ("POST", "/rotate")])
def test_only_a_patch_may_be_a_merge_patch(member, issued, method, path):
    answer = member.open(
        f"/secrets/{issued.secret_id}{path}",
        method=method,
        data=b'{"trust_upstream_consent":true}',
        content_type=MERGE_PATCH,
    )
    assert answer.status_code == 415
    assert "Accept-Patch" not in answer.headers


def test_a_patch_over_16_kib_is_too_large(member, path, trail):
    body = b'{"name":"New"}'.ljust(MAX_BODY_BYTES)
    media_type = {"content_type": MERGE_PATCH}
    assert member.patch(path, data=body + b" ", **media_type).status_code == 413
    assert len(trail()) == 1
    assert member.patch(path, data=body, **media_type).status_code == 204


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE"])
def test_the_allowed_methods_of_a_credential_include_patch(member, path, method):
    answer = member.open(path, method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, PATCH, PUT"


@pytest.mark.parametrize("suffix", ["", "/events", "/sec_x/rotate", "/sec_x/secrets/abcd"])
def test_nothing_else_can_be_patched(member, suffix):
    answer = member.patch(f"/secrets{suffix}", json={})
    assert answer.status_code == 405
    assert "PATCH" not in answer.headers["Allow"]


def test_a_patch_needs_a_token_a_unit_and_a_credential_of_it(app, issuer, member, path, trail):
    body = {"name": "New"}
    stranger = client_of(app, issuer.sign(unit_id="unit_other"))
    assert app.test_client().patch(path, json=body).status_code == 401
    assert client_of(app, issuer.sign(unit_id=None)).patch(path, json=body).status_code == 400
    for client, address in ((stranger, path), (member, "/secrets/sec_" + "0" * 20)):
        for each in (body, {}):
            answer = client.patch(address, json=each)
            assert (answer.status_code, answer.json["detail"]) == (404, "No such credential")
    assert len(trail()) == 1


def test_a_credential_that_was_revoked_meanwhile_is_not_found(member, path, patch, service, issued):
    patch(enabled=False)
    service.revoke(caller(), issued.secret_id)
    for body in ({"enabled": True}, {}):
        assert member.patch(path, json=body).status_code == 404


def test_a_credential_disabled_with_its_unit_stays_so_once_a_patch_disables_it(
    patch, shown, service
):
    service.disable_all(caller())
    patch(name="New")
    service.enable_all(caller())
    assert shown() == ("New", False, True)
    service.disable_all(caller())
    patch(enabled=False)
    service.enable_all(caller())
    assert shown() == ("New", False, False)


def test_patches_of_different_members_at_the_same_time_are_both_made(server, issuer, path, member):
    token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
    together = Barrier(2)

    def patch(**body):
        def is_made():
            status = server.request("PATCH", path, json.dumps(body), **token).status
            assert status in (204, 503)
            return status == 204

        together.wait()
        wait_until(is_made)

    with ThreadPoolExecutor(2) as pool:
        for number in range(1, 201):
            name, trust = str(number), number % 2 == 1
            renamed = pool.submit(patch, name=name)
            trusted = pool.submit(patch, trust_upstream_consent=trust)
            renamed.result()
            trusted.result()
            shown = member.get(path).json
            assert (shown["name"], shown["trust_upstream_consent"]) == (name, trust)
            changed = [list(each["detail"]) for each in member.get(f"{path}/events?limit=2").json]
            assert sorted(changed) == [["name"], ["trust_upstream_consent"]]
    assert len(member.get(f"{path}/events").json) == 1 + 2 * 200
