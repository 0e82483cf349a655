from datetime import UTC, datetime, timedelta, timezone

import bcrypt
import pytest

from app.credentials.generator import checksum
from tests.conftest import client_of
from tests.helpers import DIGEST_KEY, FIELDS, ISSUED_FIELDS, caller, hasher_with


def issue(client, **body):
    return client.post("/secrets", json={"name": "CRM backend"} | body)


def test_issuing_returns_seven_fields_including_the_client_secret(member):
    answer = issue(member)
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert list(answer.json) == ISSUED_FIELDS
    assert answer.json["unit_id"] == "unit_demo"
    assert answer.json["name"] == "CRM backend"
    assert answer.json["trust_upstream_consent"] is False


def test_an_issued_client_secret_ends_in_its_checksum(member):
    secret = issue(member).json["client_secret"]
    assert checksum(secret[:-6]) == secret[-6:]


def test_a_listed_credential_has_six_fields_and_no_client_secret(member):
    issued = issue(member).json
    (listed,) = member.get("/secrets").json
    assert list(listed) == FIELDS
    assert listed == {name: issued[name] for name in FIELDS}


def test_a_detailed_list_shows_each_credential_as_it_is_shown_alone(member, service, rows):
    issued = [issue(member, name=name).json for name in ("first", "second", "third", "expired")]
    service.rotate(caller(), issued[0]["secret_id"], overlap_seconds=3600)
    member.patch(f"/secrets/{issued[1]['secret_id']}", json={"enabled": False, "scopes": []})
    rows.execute(
        "UPDATE client_secrets SET expires_at = '2025-01-01Z' WHERE secret_id = %(secret_id)s",
        secret_id=issued[3]["secret_id"],
    )
    shown = [member.get(f"/secrets/{each['secret_id']}").json for each in reversed(issued)]
    assert [len(each["secrets"]) for each in shown] == [0, 1, 1, 2]
    answer = member.get("/secrets?detailed=true")
    assert answer.content_type == "application/json"
    assert answer.json == shown
    assert list(answer.json[0]) == list(shown[0])
    assert member.get("/secrets?detailed=true&enabled=false").json == [shown[2]]
    assert member.get("/secrets?detailed=false").json == member.get("/secrets").json


def test_the_pages_of_a_detailed_list_are_detailed(member, service):
    for each in (issue(member).json for _ in range(3)):
        service.rotate(caller(), each["secret_id"], overlap_seconds=3600)
    pages, link = [], "?detailed=true&limit=2"
    while link:
        answer = member.get(f"/secrets{link}")
        pages.append(answer.json)
        link = answer.headers.get("Link", "").partition(">")[0][1:]
    assert [len(page) for page in pages] == [2, 1]
    assert [*pages[0], *pages[1]] == member.get("/secrets?detailed=true").json


def test_an_empty_detailed_list_is_an_empty_array(member):
    assert member.get("/secrets?detailed=true").data == b"[]\n"


@pytest.mark.parametrize(
    "query", ["detailed=", "detailed=1", "detailed=True", "detailed=true&detailed=true"]
)
def test_detailed_is_true_or_false(member, query):
    assert member.get(f"/secrets?{query}").status_code == 400


def test_a_list_is_an_array_newest_first(member):
    for name in ("first", "second", "third"):
        issue(member, name=name)
    answer = member.get("/secrets")
    assert answer.status_code == 200
    assert [each["name"] for each in answer.json] == ["third", "second", "first"]


def test_the_list_of_a_unit_without_credentials_is_empty(member):
    assert member.get("/secrets").json == []


def test_another_units_credentials_are_not_listed(app, member, issuer):
    issue(member)
    stranger = client_of(app, issuer.sign(unit_id="unit_other"))
    assert stranger.get("/secrets").json == []
    assert len(member.get("/secrets").json) == 1


def test_two_credentials_may_share_a_name(member):
    first, second = issue(member).json, issue(member).json
    assert first["secret_id"] != second["secret_id"]
    assert len(member.get("/secrets").json) == 2


def test_times_are_in_utc_and_whole_seconds(member, rows):
    issued_at = issue(member).json["created_at"]
    (stored,) = rows("SELECT created_at FROM credentials")
    moment = stored["created_at"].astimezone(UTC).replace(microsecond=0)
    assert issued_at == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert abs(datetime.now(timezone(timedelta(hours=5))) - moment) < timedelta(seconds=60)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("x", "x"), ("  x\n", "x"), ("é" * 50, "é" * 50), ("\N{FOX FACE}" * 50, "\N{FOX FACE}" * 50)],
    ids=ascii,
)
def test_a_name_is_stored_without_surrounding_white_space(member, name, kept):
    assert issue(member, name=name).json["name"] == kept
    assert member.get("/secrets").json[0]["name"] == kept


BAD_NAMES = [
    None, 5, 5.5, True, [], ["x"], {}, "", " ", "\n\t", "x" * 51, "a\x00b", "a\nb", "\x1b[31m",
    "a\u202eb", "a\u2066b", "\ud800", "\udc00x",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_an_invalid_name_is_rejected_and_nothing_is_stored(member, rows, name):
    answer = issue(member, name=name)
    assert answer.status_code == 400
    assert answer.json["detail"] == "Name must be 1-50 characters"
    assert [error["pointer"] for error in answer.json["errors"]] == ["/name"]
    assert rows.count("credentials") == rows.count("credential_events") == 0


def test_a_missing_name_is_rejected(member):
    answer = member.post("/secrets", json={})
    assert (answer.status_code, answer.json["detail"]) == (400, "Name must be 1-50 characters")


def test_a_missing_body_is_rejected(member):
    answer = member.post("/secrets")
    assert (answer.status_code, answer.json["detail"]) == (400, "Name must be 1-50 characters")


@pytest.mark.parametrize(
    ("field", "pointer"),
    [("unit_id", "/unit_id"), ("trust_upstream_consent", "/trust_upstream_consent"),
     ("", "/"), ("a/b~c", "/a~1b~0c"), ("\ud800", "/\ud800")],
    ids=ascii,
)  # fmt: skip
def test_an_unknown_field_is_rejected_with_a_pointer_to_it(member, rows, field, pointer):
    answer = issue(member, **{field: "x"})
    assert answer.status_code == 400
    assert answer.json["errors"] == [{"pointer": pointer, "detail": "Unknown field"}]
    assert rows.count("credentials") == 0


def test_the_body_cannot_choose_the_unit(member, rows):
    assert issue(member, unit_id="unit_other").status_code == 400
    assert rows.count("credentials") == 0


def test_the_query_cannot_choose_the_unit(member):
    issue(member)
    assert len(member.get("/secrets?unit_id=unit_other").json) == 1


def test_the_secret_is_stored_only_as_a_bcrypt_hash_a_digest_and_a_hint(member, rows):
    secret = issue(member).json["client_secret"]
    (stored,) = rows("SELECT * FROM client_secrets")
    assert bcrypt.checkpw(secret.encode(), stored["secret_hash"].encode())
    assert stored["secret_hash"].startswith("$2b$10$")
    assert bytes(stored["digest"]) == hasher_with(DIGEST_KEY).digest(secret)
    assert stored["hint"] == secret[-4:]
    assert stored["expires_at"] is None


def test_no_table_contains_the_client_secret(member, rows):
    secret = issue(member).json["client_secret"]
    for table in ("credentials", "client_secrets", "credential_events"):
        (row,) = rows(f"SELECT t::text AS everything FROM {table} AS t")
        assert secret[6:-6] not in row["everything"]


def test_issuing_records_the_actor_and_the_request_in_the_audit_trail(member, rows):
    issued = member.post("/secrets", json={"name": "x"}, headers={"X-Request-Id": "req-1"}).json
    (event,) = rows("SELECT * FROM credential_events")
    assert event["secret_id"] == issued["secret_id"]
    assert event["unit_id"] == "unit_demo"
    assert (event["event"], event["actor"]) == ("issued", "ada")
    assert event["request_id"] == "req-1"


def test_no_credential_is_stored_if_its_event_fails(service, rows):
    with pytest.raises(Exception, match="CheckViolation"):
        service.issue(caller(actor=""), name="x")
    assert rows.count("credentials") == rows.count("client_secrets") == 0


def test_a_database_error_does_not_quote_the_row(service):
    with pytest.raises(Exception, match="CheckViolation") as error:
        service.issue(caller(), name="x\x07")
    assert "credentials_name_characters" in str(error.value)
    assert "unit_demo" not in str(error.value)
    assert error.value.__suppress_context__


def test_the_repr_of_a_credential_does_not_show_its_secret(service):
    issued = service.issue(caller(), name="x")
    assert issued.client_secret not in repr(issued)
