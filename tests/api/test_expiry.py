"""Client secrets that expire."""

from datetime import UTC, datetime, timedelta

import pytest

from app.times import format_time, parse_time
from tests.conftest import client_of
from tests.helpers import ISSUED_FIELDS, basic, time_in


@pytest.fixture
def issue(member):
    def issue(**body):
        return member.post("/secrets", json={"name": "x", **body})

    return issue


def verify(client, issued):
    return client.get("/verify", headers=basic(issued["client_id"], issued["client_secret"]))


def expiries(member, issued):
    shown = member.get(f"/secrets/{issued['secret_id']}").json
    return [secret["expires_at"] for secret in shown["secrets"]]


def expire_all(rows):
    rows.execute("UPDATE client_secrets SET expires_at = now()")


def test_a_client_secret_expires_when_its_issuer_says(issue, member, client):
    expires_at = time_in(days=90)
    answer = issue(expires_at=expires_at)
    assert (answer.status_code, list(answer.json)) == (200, ISSUED_FIELDS)
    assert expiries(member, answer.json) == [expires_at]
    assert verify(client, answer.json).headers["X-LeadVibe-Secret-Expires-At"] == expires_at


def test_without_an_expiry_the_header_says_none(issue, client, member):
    issued = issue().json
    assert expiries(member, issued) == [None]
    assert verify(client, issued).headers["X-LeadVibe-Secret-Expires-At"] == "none"


def test_an_expired_secret_is_refused_like_an_unknown_one(issue, client, rows):
    issued = issue(expires_at=time_in(days=1)).json
    expire_all(rows)
    refused = verify(client, issued)
    unknown = client.get("/verify", headers=basic("lv_ci_" + "0" * 20, issued["client_secret"]))
    assert refused.status_code == 401
    assert refused.data == unknown.data


@pytest.mark.parametrize(
    "expires_at",
    [
        "2026-11-01T00:00:00Z", "1999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
        "2100-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z",
        "2030-01-01T00:00:00+24:00", "2030-01-01T00:00:00 02:00", "2030-01-01T00:00:00.Z",
        "2030-01-01T00:00:00", "2030-01-01 00:00:00Z", "2030-01-01",
        "9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01",
        "2030-02-30T00:00:00Z", "2030-13-01T00:00:00Z", "2030-01-01T24:00:00Z",
        "2030-12-31T23:59:60Z", "2030-01-01T00:00:00Z\n", "٢030-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "", "never", None, 1893456000, 1893456000.5, True, [], {}, ["2030-01-01T00:00:00Z"],
    ],
    ids=ascii,
)  # fmt: skip
def test_an_invalid_expiry_is_rejected_and_nothing_is_stored(member, issued, rows, expires_at):
    before = rows("SELECT * FROM client_secrets")
    for path, body in (("/secrets", {"name": "x"}), (f"/secrets/{issued.secret_id}/rotate", {})):
        answer = member.post(path, json={**body, "expires_at": expires_at})
        assert answer.status_code == 400
        assert answer.json["detail"].startswith("expires_at must be ")
        assert answer.json["errors"][0]["pointer"] == "/expires_at"
    assert rows("SELECT * FROM client_secrets") == before
    assert rows.count("credential_events") == 1


def test_a_day_more_than_ten_years_ahead_is_rejected(issue):
    answer = issue(expires_at=time_in(days=3654))
    assert (answer.status_code, answer.json["detail"]) == (
        400,
        "expires_at must be in the future, at most 10 years ahead",
    )


def test_ten_years_ahead_is_allowed(issue):
    now = datetime.now(UTC)
    in_ten_years = now.replace(year=now.year + 10, day=min(now.day, 28))
    assert issue(expires_at=format_time(in_ten_years)).status_code == 200


def test_a_rotation_gives_the_new_secret_its_own_expiry(member, issue):
    issued = issue(expires_at=time_in(hours=1)).json
    expires_at = time_in(days=30)
    path = f"/secrets/{issued['secret_id']}/rotate"
    member.post(path, json={"expires_at": expires_at, "overlap_seconds": 86400})
    newest, previous = expiries(member, issued)
    assert newest == expires_at
    assert parse_time(previous) <= parse_time(time_in(hours=1))


def test_the_trail_says_when_a_new_secret_expires(member, issue):
    expires_at = time_in(days=1)
    issued = issue(expires_at=expires_at).json
    path = f"/secrets/{issued['secret_id']}"
    member.post(f"{path}/rotate", json={"overlap_seconds": 60, "expires_at": expires_at})
    rotated, issued_event = member.get(f"{path}/events").json
    assert issued_event["detail"]["expires_at"] == expires_at
    assert rotated["detail"] == {"overlap_seconds": 60, "expires_at": expires_at}


def test_a_credential_stays_when_all_of_its_secrets_have_expired(member, issue, rows, client):
    issued = issue(expires_at=time_in(days=1)).json
    path = f"/secrets/{issued['secret_id']}"
    expire_all(rows)
    assert [each["secret_id"] for each in member.get("/secrets").json] == [issued["secret_id"]]
    assert member.get(path).json["secrets"] == []
    rotated = member.post(f"{path}/rotate")
    assert rotated.status_code == 200
    assert verify(client, rotated.json).status_code == 200
    expire_all(rows)
    assert member.delete(path).status_code == 204


@pytest.fixture
def limited(app_with, issuer):
    """A member of a service where a client secret lives for at most 30 days."""
    return client_of(app_with(max_secret_days=30), issuer.sign())


def is_in_30_days(expiries):
    (expires_at,) = expiries
    left = parse_time(expires_at) - datetime.now(UTC)
    return timedelta(days=30, seconds=-30) < left <= timedelta(days=30)


def test_an_absent_expiry_becomes_the_longest_life(limited, rows):
    issued = limited.post("/secrets", json={"name": "x"}).json
    assert is_in_30_days(expiries(limited, issued))
    limited.post(f"/secrets/{issued['secret_id']}/rotate", json={"overlap_seconds": 0})
    assert is_in_30_days(expiries(limited, issued))
    (stored,) = rows("SELECT expires_at FROM client_secrets")
    assert stored["expires_at"].microsecond == 0  # so the API shows the exact time


def test_an_expiry_beyond_the_longest_life_is_rejected(limited):
    body = {"name": "x", "expires_at": time_in(days=30, seconds=60)}
    answer = limited.post("/secrets", json=body)
    assert (answer.status_code, answer.json["detail"]) == (
        400,
        "expires_at must be in the future, at most 30 days ahead",
    )
    assert limited.post("/secrets", json=body | {"expires_at": time_in(days=29)}).status_code == 200
