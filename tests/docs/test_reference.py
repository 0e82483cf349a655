import pytest

from app.docs.reference import read_reference
from tests.helpers import DETAILED_FIELDS, ISSUED_FIELDS, VERIFIED_FIELDS


@pytest.fixture
def reference(client):
    return read_reference(client.get("/openapi.json").json)


@pytest.mark.parametrize(
    ("operation_id", "names"),
    [
        ("issueCredential", ISSUED_FIELDS),
        ("getCredential", DETAILED_FIELDS),
        ("verify", VERIFIED_FIELDS),
    ],
)
def test_an_answer_has_its_fields_in_the_contracts_order(reference, operation_id, names):
    operation = reference.operation(operation_id)
    assert [field.name for field in operation.response] == names


def test_the_detail_of_an_event_is_shown_for_each_kind(reference):
    fields = {field.name: field for field in reference.operation("listEvents").response}
    assert fields["event"].type == (
        "issued, first_used, updated, disabled, enabled, rotated, secret_ended, revoked, leaked "
        "or another"
    )
    kinds = {kind.name: [field.name for field in kind.fields] for kind in fields["detail"].fields}
    assert kinds["rotated"] == ["overlap_seconds", "expires_at"]
    assert kinds["another"] == []
    assert fields["detail"].fields[0].anchor == "listEvents.response.detail.issued"


def test_a_type_describes_the_allowed_values(reference):
    query = {each.name: each for each in reference.operation("listCredentials").parameters}
    assert query["limit"].type == "integer, 1-1000, default 1000"
    assert query["enabled"].type == "true, false"
    assert query["expiring_before"].type == "timestamp"
    secrets = reference.operation("getCredential").response[-1]
    assert secrets.type == "array of objects"
    assert {each.name: each.type for each in secrets.fields}["expires_at"] == "timestamp or null"


def test_only_calls_with_a_bearer_token_take_the_cookie_of_the_active_unit(reference):
    for group in reference.groups:
        for operation in group.operations:
            cookies = [each.name for each in operation.parameters_in("cookie")]
            expected = ["activeOu"] if operation.scheme == "bearerAuth" else []
            assert cookies == expected, operation.id
    titles = [section.title for section in reference.operation("listCredentials").sections()]
    assert "Cookies" in titles


def test_the_success_and_the_failures_of_a_call_are_separate(reference):
    revoke = reference.operation("revokeCredential")
    assert (revoke.success, revoke.response) == (204, [])
    assert [each.status for each in revoke.failures] == [400, 401, 403, 404, 409, 429, 503]
