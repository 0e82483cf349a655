from base64 import urlsafe_b64encode
from itertools import chain
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from app.api.http.pagination import fingerprint_of, next_link
from app.credentials.model import CredentialChanges, CredentialPosition
from tests.conftest import client_of
from tests.helpers import caller, follow, names, next_of


@pytest.fixture
def issue(rows, service):
    """Return a function that quickly stores credentials of a unit."""

    def issue(count, unit_id="unit_demo", prefix="n"):
        for number in range(count):
            rows.execute(
                "INSERT INTO credentials (secret_id, unit_id, client_id, name) VALUES "
                "(%(secret)s, %(unit)s, %(client)s, %(name)s)",
                secret=f"sec_{prefix:0>10}{number:010}",
                client=f"lv_ci_{prefix:0>10}{number:010}",
                unit=unit_id,
                name=f"{prefix}{number}",
            )

    return issue


def all_pages(client, path):
    while path:
        answer = client.get(path)
        yield names(answer)
        path = next_of(answer)


def joined(pages):
    return list(chain.from_iterable(pages))


def test_without_a_limit_the_list_is_complete(member, issue):
    issue(120)
    answer = member.get("/secrets")
    assert len(answer.json) == 120
    assert "Link" not in answer.headers


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (1000, [5])])
def test_the_pages_make_up_the_whole_list(member, issue, limit, sizes):
    issue(5)
    pages = list(all_pages(member, f"/secrets?limit={limit}"))
    assert [len(page) for page in pages] == sizes
    assert joined(pages) == names(member.get("/secrets"))


def test_each_page_may_have_its_own_limit(member, issue):
    issue(5)
    path = next_of(member.get("/secrets?limit=1"))
    assert names(member.get(path.replace("limit=1", "limit=3"))) == ["n3", "n2", "n1"]


def test_the_fingerprint_of_the_filters_does_not_depend_on_their_order():
    assert fingerprint_of({"name": "x", "enabled": True}) == fingerprint_of(
        {"enabled": True, "name": "x"}
    )


def test_the_fingerprint_of_a_list_without_filters_stays_empty():
    """Clients keep cursors across upgrades."""
    assert fingerprint_of({"limit": 1}, {}) == ""


def test_a_cursor_of_a_credentials_trail_is_rejected_for_another_credential(member, service):
    trails = []
    for name in ("a", "b"):
        secret_id = service.issue(caller(), name=name).secret_id
        service.rotate(caller(), secret_id, overlap_seconds=60)
        trails.append(f"/secrets/{secret_id}/events")
    pages = [next_of(member.get(f"{trail}?limit=1")) for trail in trails]
    for page in pages:
        assert [event["event"] for event in member.get(page).json] == ["issued"]
    for page, trail in zip(pages, reversed(trails), strict=True):
        answer = member.get(f"{trail}?{urlsplit(page).query}")
        assert (answer.status_code, answer.json["detail"]) == (
            400,
            "cursor is not valid for this list",
        )


def test_credentials_created_at_the_same_moment_are_each_shown_once(member, issue, rows):
    issue(7)
    rows.execute("UPDATE credentials SET created_at = '2025-06-01Z'")
    shown = joined(all_pages(member, "/secrets?limit=2"))
    assert sorted(shown) == [f"n{number}" for number in range(7)]
    assert shown == names(member.get("/secrets"))


def test_pages_are_stable_while_credentials_are_added_and_deleted(member, issue, rows):
    issue(6)
    first = member.get("/secrets?limit=2")
    issue(3, prefix="later")
    rows.execute("DELETE FROM credentials WHERE name IN ('n5', 'n4', 'n2')")
    assert names(first) == ["n5", "n4"]
    assert joined(all_pages(member, next_of(first))) == ["n3", "n1", "n0"]


@pytest.mark.parametrize(
    "path", ["/secrets", "/secrets?enabled=true", "/secrets/events", "/secrets/events?order=asc"]
)
def test_a_cursor_of_another_unit_is_rejected(app, issuer, member, service, path):
    stranger = client_of(app, issuer.sign(unit_id="unit_other"))
    for unit_id in ("unit_other", "unit_demo"):
        for name in ("a", "b"):
            service.issue(caller(unit_id), name=name)
    page = next_of(stranger.get(f"{path}{'&' if '?' in path else '?'}limit=1"))
    assert stranger.get(page).status_code == 200
    answer = member.get(page)
    assert (answer.status_code, answer.json["detail"]) == (
        400,
        "cursor is not valid for this list",
    )


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/secrets", {"limit": 1}),
        ("/secrets", {"limit": 1, "enabled": True}),
        ("/secrets/events", {"limit": 1, "order": "asc"}),
    ],
    ids=str,
)
def test_a_cursor_from_before_the_unit_was_in_it_stays_valid(member, service, path, query):
    """A follower keeps its cursor while the service is upgraded."""
    for name in ("a", "b"):
        service.issue(caller(), name=name)
    if path == "/secrets":
        [newest, _] = service.list(caller()).items
        position = CredentialPosition(newest.created_at, newest.secret_id)
    else:
        [_, oldest] = service.unit_events(caller()).items
        position = oldest.position
    link = next_link(query, position)
    follow(member, path + link[1:].split(">")[0], ["a" if path == "/secrets" else "b"])


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "é", "%00", "A" * 400, "====", "bnVsbA==", "' OR 1=1 --",
        *(
            urlsafe_b64encode(text.encode()).decode()
            for text in (
                "1.sec_x", "-1.sec_" + "0" * 20, "1e9.sec_" + "0" * 20, "1.sec_" + "A" * 20,
                "9" * 17 + ".sec_" + "0" * 20, "1.sec_" + "0" * 20 + "\n", "1", ".", "١.sec_x",
            )
        ),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_malformed_cursor_is_rejected(member, issue, cursor):
    issue(1)
    answer = member.get(f"/secrets?cursor={cursor}")
    assert answer.status_code == 400
    assert answer.json["detail"] == "cursor is not valid for this list"
    assert "errors" not in answer.json


@pytest.mark.parametrize("change", ["!{}", "{}!", "{} ", "{}=", "%0A{}"])
def test_a_valid_cursor_with_something_added_is_rejected(member, issue, change):
    issue(3)
    valid = parse_qs(urlsplit(next_of(member.get("/secrets?limit=1"))).query)["cursor"][0]
    assert member.get(f"/secrets?cursor={quote(valid)}").status_code == 200
    assert member.get(f"/secrets?cursor={change.format(quote(valid))}").status_code == 400


@pytest.mark.parametrize("microseconds", ["0", "1", "9" * 16])
def test_a_forged_cursor_shows_only_the_callers_own_credentials(member, issue, microseconds):
    issue(2)
    cursor = urlsafe_b64encode(f"{microseconds}.sec_{'z' * 20}".encode()).decode()
    assert set(names(member.get(f"/secrets?cursor={cursor}"))) <= {"n0", "n1"}


@pytest.mark.parametrize(
    "limit",
    ["0", "1001", "-1", "", "x", "1.5", "%201", "%2B1", "1_0", "１", "1e2", "99999", "0x1", "null"],
)
def test_an_invalid_limit_is_rejected(member, limit):
    answer = member.get(f"/secrets?limit={limit}")
    assert (answer.status_code, answer.json["detail"]) == (400, "limit must be 1-1000")


@pytest.mark.parametrize("query", ["limit=1&limit=2", "cursor=a&cursor=b", "limit=1&limit=1"])
def test_a_parameter_that_is_given_twice_is_rejected(member, query):
    assert member.get(f"/secrets?{query}").status_code == 400


def test_an_unknown_parameter_is_ignored(member, issue):
    issue(1)
    assert names(member.get("/secrets?colour=red&colour=blue")) == ["n0"]


@pytest.fixture
def trail_path(service):
    issued = service.issue(caller(), name="x")
    for number in range(5):
        service.update(
            caller(),
            issued.secret_id,
            CredentialChanges(trust_upstream_consent=number % 2 == 0, name=None),
        )
    return f"/secrets/{issued.secret_id}/events"


def test_the_pages_of_a_trail_make_up_the_whole_trail(member, trail_path):
    whole = member.get(trail_path)
    assert len(whole.json) == 6
    assert "Link" not in whole.headers
    shown, path = [], f"{trail_path}?limit=4"
    while path:
        answer = member.get(path)
        shown.append(answer.json)
        path = next_of(answer)
    assert [len(page) for page in shown] == [4, 2]
    assert joined(shown) == whole.json


@pytest.mark.parametrize("cursor", ["", "x", "LTE=", "MS4w", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "é"])
def test_a_malformed_cursor_of_a_trail_is_rejected(member, trail_path, cursor):
    assert member.get(f"{trail_path}?cursor={cursor}").status_code == 400


def test_a_page_may_end_between_credentials_of_the_same_microsecond(member, issue, rows):
    issue(5)
    rows.execute("UPDATE credentials SET created_at = '2025-06-01T10:00:00.000001Z'")
    shown = joined(all_pages(member, "/secrets?limit=2"))
    assert sorted(shown) == [f"n{number}" for number in range(5)]
