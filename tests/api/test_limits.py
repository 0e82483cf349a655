"""Limits of a unit: how often it issues, how many credentials it has, how long its lists are."""

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
