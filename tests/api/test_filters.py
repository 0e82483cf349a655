"""The filters of the list of credentials."""

from urllib.parse import parse_qs, quote, urlsplit

import pytest

from app.credentials.model import CredentialChanges
from tests.helpers import caller, next_of, time_in


@pytest.fixture
def issue(service):
    def issue(name, unit_id="unit_demo", **options):
        return service.issue(caller(unit_id), name=name, **options)

    return issue


@pytest.fixture
def names(member):
    """Return a function that lists the names of the credentials that pass the filters."""

    def names(**filters):
        answer = member.get("/secrets", query_string=filters)
        assert answer.status_code == 200, answer.text
        return [each["name"] for each in answer.json]

    return names


def set_secret(rows, issued, column, value):
    rows.execute(
        f"UPDATE client_secrets SET {column} = %(value)s WHERE secret_id = %(secret_id)s",
        value=value,
        secret_id=issued.secret_id,
    )


def test_a_client_id_finds_exactly_its_credential(issue, names):
    wanted = issue("a")
    foreign = issue("b", "unit_other")
    issue("c")
    assert names(client_id=wanted.client_id) == ["a"]
    assert names(client_id=foreign.client_id) == []


def test_a_name_finds_every_name_that_contains_it_in_any_case(issue, names):
    for name in ("CRM backend", "Acme crm", "École", "100% sure", "a_b", "aXb", r"back\slash"):
        issue(name)
    assert names(name="crm") == ["Acme crm", "CRM backend"]
    assert names(name="éCOLE") == ["École"]
    assert names(name="%") == ["100% sure"]
    assert names(name="a_b") == ["a_b"]
    assert names(name="k\\s") == [r"back\slash"]
    assert names(name=" crm ") == ["Acme crm", "CRM backend"]


def test_enabled_finds_enabled_or_disabled_credentials(issue, names, service):
    issue("awake")
    asleep = issue("asleep")
    service.update(caller(), asleep.secret_id, CredentialChanges(enabled=False))
    assert names(enabled="true") == ["awake"]
    assert names(enabled="false") == ["asleep"]


def test_expiring_before_finds_credentials_that_will_have_no_live_secret(
    issue, names, rows, service
):
    issue("for ever")
    rotated = issue("rotated")
    service.rotate(caller(), rotated.secret_id, overlap_seconds=3600)
    soon, later, expired = issue("soon"), issue("later"), issue("expired")
    set_secret(rows, soon, "expires_at", time_in(days=1))
    set_secret(rows, later, "expires_at", time_in(days=9))
    set_secret(rows, expired, "expires_at", time_in(days=-1))
    assert names(expiring_before=time_in(days=2)) == ["expired", "soon"]
    assert names(expiring_before=time_in(days=10)) == ["expired", "later", "soon"]


def test_expiring_before_a_past_time_finds_credentials_without_a_live_secret(issue, names, rows):
    issue("for ever")
    since, live = issue("expired since"), issue("live")
    set_secret(rows, since, "expires_at", time_in(days=-1))
    set_secret(rows, live, "expires_at", time_in(days=1))
    assert names(expiring_before=time_in(days=-2)) == ["expired since"]


def test_a_secret_is_no_longer_live_at_the_moment_when_it_expires(issue, names, rows):
    set_secret(rows, issue("x"), "expires_at", "2030-01-01T00:00:00Z")
    assert names(expiring_before="2029-12-31T23:59:59Z") == []
    assert names(expiring_before="2030-01-01T00:00:00Z") == ["x"]


def made_long_ago(rows):
    rows.execute(
        "WITH aged AS (UPDATE client_secrets SET created_at = '2025-01-01Z') "
        "UPDATE credentials SET created_at = created_at - interval '10 years'"
    )


def test_unused_since_finds_credentials_not_used_since_then(issue, names, rows, service):
    issue("never")
    used, ended = issue("used"), issue("ended")
    set_secret(rows, used, "last_used_at", "2025-06-01T10:00:00Z")
    set_secret(rows, ended, "last_used_at", "2025-07-01T10:00:00Z")
    service.rotate(caller(), ended.secret_id, overlap_seconds=0)
    made_long_ago(rows)
    assert names(unused_since="2025-06-01T10:00:00Z") == ["never"]
    assert names(unused_since="2025-06-01T10:00:01Z") == ["used", "never"]
    assert names(unused_since="2025-07-01T10:00:00Z") == ["used", "never"]
    assert names(unused_since="2025-07-01T10:00:01Z") == ["ended", "used", "never"]


def test_never_used_counts_from_the_creation_of_the_newest_client_secret(
    issue, names, rows, service
):
    rotated = issue("rotated")
    issue("never")
    made_long_ago(rows)
    issue("new")
    service.rotate(caller(), rotated.secret_id, overlap_seconds=3600)
    assert names(unused_since=time_in(minutes=-1)) == ["never"]
    assert names(unused_since=time_in(minutes=1)) == ["new", "never", "rotated"]


def test_filters_are_combined(issue, names, service):
    issue("CRM 1")
    disabled = issue("CRM 2")
    service.update(caller(), disabled.secret_id, CredentialChanges(enabled=False))
    assert names(name="crm", enabled="false") == ["CRM 2"]
    assert names(name="crm", enabled="false", client_id="lv_ci_" + "0" * 20) == []


A_TIME = "must be a time such as 2027-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("client_id=x", "client_id has the wrong format"),
        ("client_id=", "client_id has the wrong format"),
        (f"client_id=lv_ci_{'0' * 20}%0A", "client_id has the wrong format"),
        ("name=", "Name must be 1-50 characters"),
        ("name=%20", "Name must be 1-50 characters"),
        (f"name={'x' * 51}", "Name must be 1-50 characters"),
        ("name=%00", "Name must be 1-50 characters"),
        ("enabled=1", "enabled must be true or false"),
        ("enabled=True", "enabled must be true or false"),
        ("enabled=", "enabled must be true or false"),
        ("expiring_before=tomorrow", f"expiring_before {A_TIME}"),
        ("unused_since=10000-01-01T00:00:00Z", f"unused_since {A_TIME}"),
        ("unused_since=2025-06-01T10:00:00", f"unused_since {A_TIME}"),
        ("unused_since=2025-06-01+10:00:00Z", f"unused_since {A_TIME}"),
        ("enabled=true&enabled=true", "enabled must be given at most once"),
        ("name=a&name=b", "name must be given at most once"),
    ],
)  # fmt: skip
def test_an_invalid_filter_is_rejected(member, query, detail):
    answer = member.get(f"/secrets?{query}")
    assert (answer.status_code, answer.json["detail"]) == (400, detail)


def test_the_link_keeps_the_filters(issue, member):
    for number in range(5):
        issue(f"CRM & {number}")
    filters = f"enabled=true&name={quote('crm &')}&unused_since=2099-01-01T00:00:00Z"
    path, found = f"/secrets?limit=2&{filters}", []
    while path:
        answer = member.get(path)
        found += [each["name"] for each in answer.json]
        path = next_of(answer)
    assert found == [f"CRM & {number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("changed", ["", "name=other", "name=crm&enabled=true", "enabled=true"])
def test_a_cursor_belongs_to_its_filters(issue, member, changed):
    issue("CRM 1")
    issue("CRM 2")
    link = member.get("/secrets?name=crm&limit=1").headers["Link"]
    cursor = parse_qs(urlsplit(link[1:].split(">")[0]).query)["cursor"][0]
    assert member.get(f"/secrets?name=crm&cursor={cursor}").status_code == 200
    answer = member.get(f"/secrets?{changed}&cursor={cursor}")
    assert (answer.status_code, answer.json["detail"]) == (
        400,
        "cursor is not valid for this list",
    )


def test_a_credential_says_who_issued_it(member, issue):
    issued = issue("x")
    assert member.get(f"/secrets/{issued.secret_id}").json["created_by"] == "ada"
