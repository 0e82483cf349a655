"""Limits of a unit: its issues, its changes, its credentials, the length of its lists."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.bulkheads import BulkheadFull
from app.credentials.errors import CredentialLimitReached
from app.credentials.generator import generate_secret_id
from tests.conftest import client_of
from tests.helpers import caller, next_of


@pytest.fixture
def client_with(app_with, issuer):
    return lambda unit_id="unit_demo", **changes: client_of(
        app_with(**changes), issuer.sign(unit_id=unit_id)
    )


def issue(client):
    return client.post("/secrets", json={"name": "x"})


def test_issues_and_rotations_beyond_the_limit_are_answered_429(client_with, rows):
    client = client_with(issue_limit=3)
    secret_id = issue(client).json["secret_id"]
    rotate = f"/secrets/{secret_id}/rotate"
    assert client.post(rotate).status_code == 200
    assert issue(client).status_code == 200
    for answer in (issue(client), client.post(rotate)):
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert answer.json["detail"] == "The unit has issued and rotated too many client secrets"
    assert rows.count("credentials") == 2
    assert rows.count("client_secrets") == 3


def test_a_rejected_request_does_not_count_as_an_issue(client_with):
    client = client_with(issue_limit=1)
    assert client.post("/secrets", json={"name": ""}).status_code == 400
    late = {"name": "x", "expires_at": "2125-06-01T10:00:00Z"}
    assert client.post("/secrets", json=late).status_code == 400
    assert issue(client).status_code == 200
    assert client.get("/secrets").status_code == 200


def test_a_rotation_of_an_unknown_credential_counts_because_it_costs_bcrypt(client_with):
    client = client_with(issue_limit=1)
    unknown = f"/secrets/{generate_secret_id()}/rotate"
    assert [client.post(unknown).status_code for _ in range(2)] == [404, 429]


def test_each_unit_has_its_own_issue_limit(app_with, issuer):
    app = app_with(issue_limit=1)
    clients = [client_of(app, issuer.sign(unit_id=f"unit_{number}")) for number in range(50)]
    assert {issue(client).status_code for client in clients} == {200}
    assert {issue(client).status_code for client in clients} == {429}


def test_an_issue_limit_of_0_disables_the_limit(client_with):
    client = client_with(issue_limit=0)
    assert {issue(client).status_code for _ in range(5)} == {200}


def update(client, secret_id, **fields):
    body = {"trust_upstream_consent": False} | fields
    return client.put(f"/secrets/{secret_id}", json=body)


def test_updates_and_conditional_revocations_beyond_the_limit_are_answered_429(client_with, rows):
    client = client_with(change_limit=2)
    secret_id = issue(client).json["secret_id"]
    conditional = f"/secrets/{secret_id}?unused_for=60"
    assert update(client, secret_id, trust_upstream_consent=True).status_code == 204
    assert client.delete(conditional).status_code == 409
    for answer in (update(client, secret_id), client.delete(conditional)):
        assert answer.status_code == 429
        assert answer.json["type"] == "/docs/errors#too-many-changes"
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert answer.json["detail"] == "The unit has made too many changes"
    assert client.get(f"/secrets/{secret_id}").json["trust_upstream_consent"] is True
    assert rows.count("credential_events") == 2


def test_a_limit_of_changes_never_keeps_a_unit_from_ending_access(client_with):
    client = client_with(change_limit=1)
    one, two, three = [issue(client).json for _ in range(3)]
    assert client.post(f"/secrets/{three['secret_id']}/rotate").status_code == 200
    assert update(client, one["secret_id"]).status_code == 204
    assert update(client, one["secret_id"]).status_code == 429
    assert update(client, one["secret_id"], enabled=False).status_code == 204
    assert client.delete(f"/secrets/{two['secret_id']}").status_code == 204
    hint = three["client_secret"][-4:]
    assert client.delete(f"/secrets/{three['secret_id']}/secrets/{hint}").status_code == 204
    assert update(client, one["secret_id"], enabled=True).status_code == 429
    assert client.get(f"/secrets/{one['secret_id']}").json["disabled_at"] is not None


def test_a_disabled_credential_cannot_be_updated_beyond_the_limit(client_with, rows):
    client = client_with(change_limit=1)
    secret_id = issue(client).json["secret_id"]
    assert update(client, secret_id, enabled=False).status_code == 204
    for consent in (True, False, True):
        answer = update(client, secret_id, enabled=False, trust_upstream_consent=consent)
        assert answer.status_code == (429 if consent else 204)
    assert rows.count("credential_events") == 2


def test_a_credential_disabled_with_its_unit_can_be_disabled_beyond_the_limit(client_with, service):
    client = client_with(change_limit=1)
    secret_id = issue(client).json["secret_id"]
    service.disable_all(caller())
    assert update(client, secret_id, trust_upstream_consent=True).status_code == 204
    assert update(client, secret_id, enabled=False).status_code == 204
    service.enable_all(caller())
    assert client.get(f"/secrets/{secret_id}").json["disabled_at"] is not None


def test_each_unit_has_its_own_change_limit(app_with, issuer):
    app = app_with(change_limit=1)
    clients = [client_of(app, issuer.sign(unit_id=f"unit_{number}")) for number in range(5)]
    issued = [issue(client).json["secret_id"] for client in clients]
    statuses = [
        update(client, secret_id, trust_upstream_consent=value).status_code
        for value in (True, False)
        for client, secret_id in zip(clients, issued, strict=True)
    ]
    assert statuses == [204] * 5 + [429] * 5


def test_a_change_limit_of_0_disables_the_limit(client_with):
    client = client_with(change_limit=0)
    secret_id = issue(client).json["secret_id"]
    values = [True, False] * 3
    answers = [update(client, secret_id, trust_upstream_consent=value) for value in values]
    assert {answer.status_code for answer in answers} == {204}


def test_a_unit_cannot_exceed_its_limit_of_credentials(client_with, rows):
    client = client_with(max_credentials_per_unit=2)
    issued = [issue(client) for _ in range(2)]
    answer = issue(client)
    assert answer.status_code == 409
    assert answer.json["detail"] == "The unit has reached its limit of credentials"
    assert rows.count("credentials") == rows.count("client_secrets") == 2
    assert rows.count("credential_events") == 2
    client.delete(f"/secrets/{issued[0].json['secret_id']}")
    assert issue(client).status_code == 200


def test_the_limit_of_credentials_holds_for_issues_at_the_same_moment(app_with, rows):
    credentials = app_with(max_credentials_per_unit=3, threads=8).services.credentials

    def attempt(_):
        while True:
            try:
                credentials.issue(caller(), name="x")
            except CredentialLimitReached:
                return False
            except BulkheadFull:
                continue  # bcrypt is busy with the others
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 3
    assert rows.count("credentials") == 3


def test_an_answer_has_at_most_1000_credentials(member, rows):
    rows.execute(
        """
        INSERT INTO credentials (secret_id, unit_id, client_id, name)
        SELECT 'sec_' || number, 'unit_demo', 'lv_ci_' || number, 'x'
        FROM (SELECT lpad(n::text, 20, '0') AS number FROM generate_series(1, 1001) AS n) AS numbers
        """
    )
    first = member.get("/secrets")
    assert len(first.json) == 1000
    second = member.get(next_of(first))
    assert len(second.json) == 1
    assert "Link" not in second.headers
    listed = {each["secret_id"] for each in first.json + second.json}
    assert len(listed) == 1001


def test_an_answer_has_at_most_1000_events(member, issued, rows):
    rows.execute(
        """
        INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id)
        SELECT %(secret_id)s, 'unit_demo', 'updated', 'ada', 'req' FROM generate_series(1, 1000)
        """,
        secret_id=issued.secret_id,
    )
    first = member.get(f"/secrets/{issued.secret_id}/events")
    assert len(first.json) == 1000
    assert len(member.get(next_of(first)).json) == 1
