"""Times in requests, as clients of every language write them."""

from urllib.parse import quote

import pytest

from tests.helpers import time_in

DAY = time_in(days=400)[:10]
TIME = f"{DAY}T10:00:00Z"

# What the date types of other languages make of it, after the day.
SPELLINGS = [
    "T10:00:00Z",
    "T10:00:00+00:00",  # Python's isoformat
    "T10:00:00.123456+00:00",
    "T10:00:00.000Z",  # JavaScript's toISOString
    "T12:00:00.987654321+02:00",  # Go's time.Time
    "T04:30:00-05:30",
    "t10:00:00z",
    "T10:00:00-00:00",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_expiry_in_any_spelling_is_stored_in_utc_and_never_later(member, issued, spelling):
    time = {"expires_at": DAY + spelling}
    new = member.post("/secrets", json={"name": "x", **time})
    path = f"/secrets/{issued.secret_id}"
    rotated = member.post(f"{path}/rotate", json=time)
    for answer in (new, rotated):
        assert answer.status_code == 200, answer.text
        shown = member.get(f"/secrets/{answer.json['secret_id']}").json
        assert shown["secrets"][0]["expires_at"] == TIME
    assert member.get(f"{path}/events").json[0]["detail"]["expires_at"] == TIME


def time_parameters(document):
    """Yield the path and the name of every query parameter that is a time."""
    for path, item in document["paths"].items():
        for parameter in item.get("get", {}).get("parameters", []):
            if parameter.get("schema", {}).get("$ref", "").endswith("/RequestTime"):
                yield path, parameter["name"]


def test_every_parameter_accepts_every_spelling_encoded_or_not(member):
    found = list(time_parameters(member.get("/openapi.json").json))
    assert {name for _, name in found} == {
        "expiring_before", "unused_since", "refused_since", "since", "until",
    }  # fmt: skip
    for path, name in found:
        for spelling in (f"{DAY}{each}" for each in SPELLINGS):
            # with a plain + too, which a URI may have, and which a form would mean as a space
            for written in (quote(spelling, safe=""), spelling):
                answer = member.get(f"{path}?{name}={written}")
                assert answer.status_code == 200, (name, written)
            assert member.get(f"{path}?{name}={spelling[:19]}").status_code == 400


def test_a_time_with_an_offset_finds_what_it_finds_in_utc(member, rows):
    rows.execute(
        "INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id, at) "
        "VALUES ('sec_' || repeat('0', 20), 'unit_demo', 'revoked', 'ada', 'r', '2025-06-01Z')"
    )
    for parameter, found in (
        ("since=2025-06-01T02:00:00+02:00", 1),
        ("since=2025-06-01T02:00:01.0%2B02:00", 0),
        ("until=2025-05-31T18:30:00-05:30", 0),
        ("until=2025-05-31T18:30:01-05:30", 1),
    ):
        assert len(member.get(f"/secrets/events?{parameter}").json) == found, parameter


def test_a_page_goes_on_whatever_the_spelling_of_its_times(member, service):
    for name in ("a", "b"):
        member.post("/secrets", json={"name": name})
    link = member.get(f"/secrets?limit=1&unused_since={DAY}{SPELLINGS[4]}").headers["Link"]
    assert f"unused_since={quote(TIME, safe='')}" in link
    cursor = link.partition(">")[0].rpartition("cursor=")[2]
    for spelling in SPELLINGS:
        query = f"limit=1&unused_since={quote(DAY + spelling)}&cursor={cursor}"
        assert [each["name"] for each in member.get(f"/secrets?{query}").json] == ["a"]


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2016-12-31T23:59:60Z"]
)
def test_the_first_and_the_last_time_may_be_asked_for(member, issued, text):
    for path, name in time_parameters(member.get("/openapi.json").json):
        assert member.get(f"{path}?{name}={text}").status_code == 200, (path, name)


def test_a_repeated_request_may_write_its_time_differently(member, rows):
    key = {"Idempotency-Key": "0123456789abcdef"}
    answers = [
        member.post("/secrets", json={"name": "x", "expires_at": DAY + spelling}, headers=key)
        for spelling in SPELLINGS
    ]
    assert {answer.data for answer in answers} == {answers[0].data}
    assert rows.count("credentials") == 1


def test_a_fraction_cannot_move_an_expiry_out_of_the_past(member, rows):
    past = time_in(seconds=-1).replace("Z", ".999999Z")
    answer = member.post("/secrets", json={"name": "x", "expires_at": past})
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (400, "/expires_at")
    assert rows.count("credentials") == 0
