"""A change with a query parameter that its operation does not have is not made."""

import pytest

from tests.conftest import client_of
from tests.helpers import basic, caller

UNREACHABLE = "postgresql://postgres@127.0.0.1:1/x"
CHANGES = ("post", "patch", "put", "delete")


def operations(client, methods):
    """Yield the method and the path of every operation of the document with these methods."""
    for path, item in client.get("/openapi.json").json["paths"].items():
        for method in methods:
            if method in item:
                yield method, path


@pytest.fixture
def changes(member, issued):
    """The address and the example of the body of every operation that changes credentials."""
    document = member.get("/openapi.json").json
    found = []
    for method, path in operations(member, CHANGES):
        if not path.startswith("/secrets"):
            continue
        body = document["paths"][path][method].get("requestBody", {}).get("content", {})
        address = path.format(secret_id=issued.secret_id, hint=issued.client_secret[-4:])
        found.append((method, address, body.get("application/json", {}).get("example")))
    assert len(found) >= 6
    return found


@pytest.fixture
def stored(rows):
    """Return a function that reads everything that a change could change."""
    tables = ("credentials", "client_secrets", "credential_events", "answered_requests")
    return lambda: [rows(f"SELECT * FROM {each}") for each in tables]


def refusal(answer):
    return answer.status_code, answer.json["type"], answer.json["detail"]


def refused(name):
    detail = f"{name} is not a parameter of this operation"
    return 400, "/docs/errors#invalid-parameter", detail


def test_no_change_is_made_with_an_unknown_parameter(member, changes, stored, service, issued):
    service.rotate(caller(), issued.secret_id, overlap_seconds=3600)
    before = stored()
    for method, path, body in changes:
        answer = member.open(f"{path}?unused_fro=86400", method=method.upper(), json=body)
        assert refusal(answer) == refused("unused_fro"), (method, path)
    assert stored() == before


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("unused_fro=86400", "unused_fro"),
        ("unused_for=86400&unused_fro=86400", "unused_fro"),
        ("unused_fro=86400&unused_for=60", "unused_fro"),
        ("Unused_For=86400", "Unused_For"),
        ("unused-for=86400", "unused-for"),
        ("unused_for%20=86400", "unused_for "),
        ("unused_for[]=86400", "unused_for[]"),
        ("%C3%BCnused_for=86400", "\N{LATIN SMALL LETTER U WITH DIAERESIS}nused_for"),
        ("unused_since=2027-01-01T00:00:00Z", "unused_since"),
        ("secret_id=sec_x", "secret_id"),
        (";unused_for=86400", ";unused_for"),
        ("%26unused_for=86400", "&unused_for"),
        ("dry_run", "dry_run"),
        ("dry_run=true&dry_run=true", "dry_run"),
        # what a terminal would interpret, and what no name is, is not repeated
        ("=86400", "A parameter in the query"),
        ("%00=1", "A parameter in the query"),
        ("a%0Ab=1", "A parameter in the query"),
        ("a%E2%80%AEb=1", "A parameter in the query"),
        ("x" * 256 + "=1", "A parameter in the query"),
    ],
)
def test_a_condition_that_is_misspelt_revokes_nothing(member, issued, stored, query, name):
    before = stored()
    answer = member.delete(f"/secrets/{issued.secret_id}?{query}")
    assert refusal(answer) == refused(name)
    assert stored() == before


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("unused_for=60&unused_for=9999999", "unused_for must be given at most once"),
        ("unused_for=60&unused_fo%72=60", "unused_for must be given at most once"),
        ("unused_for", "unused_for must be 60-31536000"),
        ("unused_for=", "unused_for must be 60-31536000"),
        ("%FF=1", "The query must be UTF-8"),
        ("unused_for=%FF", "The query must be UTF-8"),
    ],
)
def test_a_condition_that_is_ambiguous_revokes_nothing(member, issued, stored, query, detail):
    before = stored()
    answer = member.delete(f"/secrets/{issued.secret_id}?{query}")
    assert refusal(answer) == (400, "/docs/errors#invalid-parameter", detail)
    assert stored() == before


@pytest.mark.parametrize(
    ("body", "media_type", "problem"),
    [
        (b'{"unused_for":86400}', "application/json", "invalid-input"),
        (b'{"unused_for":86400}', "text/plain", "invalid-input"),
        (b"unused_for=86400", "application/x-www-form-urlencoded", "malformed-json"),
        (b"[]", "application/json", "malformed-json"),
    ],
)
@pytest.mark.parametrize("query", ["", "?unused_for=60"])
def test_a_condition_in_a_body_that_nothing_reads_revokes_nothing(
    member, issued, stored, query, body, media_type, problem
):
    before = stored()
    address = f"/secrets/{issued.secret_id}"
    for path in (f"{address}{query}", f"{address}/secrets/{issued.client_secret[-4:]}"):
        answer = member.delete(path, data=body, content_type=media_type)
        assert (answer.status_code, answer.json["type"]) == (400, f"/docs/errors#{problem}")
        pointers = [each["pointer"] for each in answer.json.get("errors", [])]
        assert pointers == (["/unused_for"] if problem == "invalid-input" else [])
    assert stored() == before


def test_an_empty_object_is_like_no_body(member, issued):
    assert member.delete(f"/secrets/{issued.secret_id}", json={}).status_code == 204


@pytest.mark.parametrize("query", ["", "?", "?&&", "?unused_for=60", "?%75nused_for=60&"])
def test_a_parameter_of_the_operation_is_known_however_it_is_encoded(member, issued, rows, query):
    for table in ("credentials", "client_secrets"):
        rows.execute(f"UPDATE {table} SET created_at = created_at - interval '1 day'")
    assert member.delete(f"/secrets/{issued.secret_id}{query}").status_code == 204


def test_the_query_is_judged_after_the_caller_and_before_everything_else(
    app, issuer, client, member, issued
):
    path = f"/secrets/{issued.secret_id}?unused_fro=1"
    assert client.delete(path).status_code == 401
    of_no_unit = client_of(app, issuer.sign(unit_id=None)).delete(path)
    assert of_no_unit.json["type"] == "/docs/errors#no-active-unit"
    assert refusal(member.delete(f"/secrets/sec_{'0' * 20}?unused_fro=1")) == refused("unused_fro")
    for body in (b"{", b'{"name":null}'):
        for media_type in ("application/json", "text/plain"):
            answer = member.patch(path, data=body, content_type=media_type)
            assert refusal(answer) == refused("unused_fro")


def test_an_unknown_parameter_is_refused_without_asking_the_database(app_with, issuer, issued):
    cut_off = client_of(app_with(database_url=UNREACHABLE), issuer.sign())
    path = f"/secrets/{issued.secret_id}"
    assert cut_off.delete(path).status_code == 503
    assert refusal(cut_off.delete(f"{path}?unused_fro=1")) == refused("unused_fro")


def test_reads_and_verifications_ignore_an_unknown_parameter(member, issued):
    pair = basic(issued.client_id, issued.client_secret)
    tried = 0
    for method, path in [*operations(member, ("get",)), ("post", "/verify")]:
        for each in {method, "head"} if method == "get" else {method}:
            address = path.format(secret_id=issued.secret_id, scope="ingest")
            headers = pair if path.startswith("/verify") else {}
            answer = member.open(f"{address}?unused_fro=1&=2", method=each.upper(), headers=headers)
            assert answer.status_code == 200, (each, path)
            tried += 1
    assert tried >= 19
