"""The audit trail of a whole unit, read once or followed for ever."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from app.api.http.pagination import next_link
from app.credentials.model import CredentialChanges, EventFilter
from tests.conftest import client_of
from tests.helpers import caller, follow, names, next_of, time_in
from tests.running_server import wait_until

FIELDS = [
    "secret_id", "client_id", "name", "event", "actor", "via", "address", "at", "request_id",
    "detail",
]  # fmt: skip


@pytest.fixture
def issue(service):
    def issue(name, unit_id="unit_demo", **who):
        return service.issue(caller(unit_id, **who), name=name)

    return issue


def test_the_trail_shows_every_credential_of_the_unit_newest_first(member, issue, service):
    issued = issue("one")
    issue("foreign", "unit_other")
    issue("two")
    service.update(caller(request_id="r-1"), issued.secret_id, CredentialChanges(name="renamed"))
    service.revoke(caller(), issued.secret_id)
    trail = member.get("/secrets/events").json
    assert [(each["event"], each["name"]) for each in trail] == [
        ("revoked", "renamed"), ("updated", "renamed"), ("issued", "two"), ("issued", "one"),
    ]  # fmt: skip
    assert list(trail[1]) == FIELDS
    updated = trail[1]
    assert updated["secret_id"] == issued.secret_id
    assert updated["client_id"] == issued.client_id
    assert (updated["actor"], updated["via"], updated["address"], updated["request_id"]) == (
        "ada", "api", "192.0.2.1", "r-1",
    )  # fmt: skip


def test_an_event_has_the_address_that_the_proxy_reports(app_with, issuer):
    member = client_of(app_with(trusted_proxies=1), issuer.sign())
    member.post("/secrets", json={"name": "x"}, headers={"X-Forwarded-For": "203.0.113.9"})
    hostile = "a\x85b" * 100
    member.post("/secrets", json={"name": "y"}, headers={"X-Forwarded-For": hostile})
    trail = member.get("/secrets/events").json
    assert [each["address"] for each in trail] == [None, "203.0.113.9"]


def test_filters_narrow_the_trail(member, issue, service, rows):
    first = issue("one", actor="bob")
    issue("two")
    service.revoke(caller(), first.secret_id)

    def found(**filters):
        answer = member.get("/secrets/events", query_string=filters)
        return [(each["event"], each["name"]) for each in answer.json]

    assert found(event="revoked") == [("revoked", "one")]
    assert found(actor="bob") == [("issued", "one")]
    assert found(secret_id=first.secret_id) == [("revoked", "one"), ("issued", "one")]
    assert found(secret_id=first.secret_id, event="issued") == [("issued", "one")]
    assert found(since=time_in(hours=1)) == found(until=time_in(hours=-1)) == []
    assert len(found(since=time_in(hours=-1), until=time_in(hours=1))) == 3


def test_an_event_shows_that_the_whole_unit_was_changed(member, issue, service):
    issue("x")
    for change in (service.disable_all, service.enable_all, service.revoke_all):
        assert change(caller(actor="bob", request_id="r-2")) == 1
        newest = member.get("/secrets/events?limit=1").json[0]
        assert (newest["detail"], newest["actor"], newest["request_id"]) == (
            {"all": True}, "bob", "r-2",
        )  # fmt: skip


def test_since_is_inclusive_and_until_is_not(member, rows):
    rows.execute(
        "INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id, at) "
        "VALUES ('sec_' || repeat('0', 20), 'unit_demo', 'revoked', 'ada', 'r', '2025-06-01Z')"
    )

    def count(**filters):
        return len(member.get("/secrets/events", query_string=filters).json)

    assert count(since="2025-06-01T00:00:00Z") == 1
    assert count(since="2025-06-01T00:00:01Z") == 0
    assert count(until="2025-06-01T00:00:00Z") == 0
    assert count(until="2025-06-01T00:00:01Z") == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_times_find_an_event_although_the_servers_clock_was_set_back(member, rows, order):
    """The trail's order is that of the transactions, not that of the clock."""
    for name, at in (("early", "00:00"), ("ahead", "20:00"), ("set back", "00:01")):
        rows.execute(
            "INSERT INTO credential_events (secret_id, unit_id, name, event, actor, request_id, at)"
            " VALUES ('sec_' || repeat('0', 20), 'unit_demo', %(name)s, 'revoked', 'ada', 'r', "
            "%(at)s)",
            name=name,
            at=f"2025-06-01T{at}Z",
        )
    everything = ["early", "ahead", "set back"]
    follow(member, "/secrets/events?order=asc", everything)

    def found(**times):
        answer = member.get("/secrets/events", query_string={"order": order, **times})
        return sorted(names(answer))

    assert found(since="2025-06-01T19:00:00Z") == ["ahead"]
    assert found(until="2025-06-01T19:00:00Z") == ["early", "set back"]
    assert found(since="2025-06-03T00:00:00Z") == found(until="2025-05-01T00:00:00Z") == []
    assert found(since="2025-05-01T00:00:00Z", until="2025-06-04T00:00:00Z") == sorted(everything)


@pytest.mark.parametrize(
    "query",
    [
        "event=burned", "event=", "actor=", "actor=%00", f"actor={'x' * 256}", "secret_id=sec_x",
        "secret_id=", "since=now", "until=2025-06-01", "order=up", "order=", "limit=0",
        "limit=1001", "cursor=x", "cursor=MQ==", "cursor=MS0x%0A", "order=asc&order=asc",
        "since=2025-06-01T10:00:00Z&since=2025-06-01T10:00:00Z",
    ],
)  # fmt: skip
def test_an_invalid_parameter_is_rejected(member, query):
    assert member.get(f"/secrets/events?{query}").status_code == 400


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_pages_make_up_the_whole_trail(member, issue, order):
    for number in range(5):
        issue(str(number))
    follow(member, "/secrets/events?order=asc", ["0", "1", "2", "3", "4"])
    path, shown = f"/secrets/events?limit=2&order={order}", []
    while True:
        answer = member.get(path)
        shown += names(answer)
        path = next_of(answer)
        if not answer.json or path is None:
            break
    assert shown == (["0", "1", "2", "3", "4"] if order == "asc" else ["4", "3", "2", "1", "0"])


def test_the_link_keeps_the_order_and_the_filters(member, issue):
    for number in range(3):
        issue(str(number), actor="Ada")
        issue("foreign", actor="ada")
    path, shown = "/secrets/events?limit=1&actor=Ada", []
    while path:
        answer = member.get(path)
        shown += names(answer)
        path = next_of(answer)
    assert shown == ["2", "1", "0"]


def test_an_ascending_trail_begins_with_the_events_from_before_transactions_were_recorded(
    member, issue, rows
):
    issue("later")
    rows.execute(
        "INSERT INTO credential_events (event_id, transaction_id, secret_id, unit_id, name, event, "
        "actor, request_id) OVERRIDING SYSTEM VALUE VALUES (1, '0', 'sec_' || repeat('0', 20), "
        "'unit_demo', 'first', 'issued', 'ada', 'r')"
    )
    follow(member, "/secrets/events?order=asc", ["first", "later"])


def test_an_ascending_trail_can_be_followed_for_ever(member, issue):
    empty = member.get("/secrets/events?order=asc")
    assert empty.json == []
    issue("one")
    first = follow(member, next_of(empty), ["one"])
    nothing = member.get(next_of(first))
    assert nothing.json == []
    assert next_of(nothing) == next_of(first)
    issue("two")
    follow(member, next_of(nothing), ["two"])


def test_a_filtered_trail_moves_on_past_events_that_do_not_pass(issue, service):
    """Otherwise each poll would read the same events again."""
    issue("one")
    revoked = issue("two")
    service.revoke(caller(), revoked.secret_id)
    issue("three")

    def page(only=None, after=None):
        return service.unit_events(caller(), only=only or EventFilter(), order="asc", after=after)

    wait_until(lambda: len(page().items) == 4)
    newest = page().items[-1].position
    none, short = EventFilter(event="rotated"), EventFilter(event="revoked")
    assert (page(none).items, page(none).next) == ([], newest)
    assert ([each.event for each in page(short).items], page(short).next) == (["revoked"], newest)
    assert page(none, after=newest).next == newest


def test_a_cursor_of_a_trail_belongs_to_its_order_and_filters(member, issue):
    issue("one")
    issue("two")
    path = next_of(follow(member, "/secrets/events?order=asc&limit=1", ["one"]))
    assert member.get(path).status_code == 200
    assert member.get(path.replace("order=asc", "order=desc")).status_code == 400
    assert member.get(f"{path}&event=issued").status_code == 400


INSERT = """
    INSERT INTO credential_events (secret_id, unit_id, name, event, actor, request_id)
    VALUES ('sec_' || repeat('a', 20), 'unit_demo', %s, 'updated', 'ada', 'req')
"""


def test_an_event_that_is_committed_late_is_not_skipped(member, issue, database_url):
    """There are two real transactions, and the one that wrote first commits last."""
    with psycopg.connect(database_url) as late:
        late.execute(INSERT, ["late"])
        issue("early")
        assert names(member.get("/secrets/events")) == ["early"]
        page = member.get("/secrets/events?order=asc")
        assert page.json == []
        late.commit()
    follow(member, next_of(page), ["late", "early"])


def test_the_identity_values_may_be_in_another_order_than_the_transactions(member, database_url):
    """The first transaction gets the higher event ID and commits first."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute("SELECT pg_current_xact_id()")
        second.execute("SELECT pg_current_xact_id()")
        second.execute(INSERT, ["second"])
        first.execute(INSERT, ["first"])
        first.commit()
        page = follow(member, "/secrets/events?order=asc", ["first"])
        second.commit()
    follow(member, next_of(page), ["second"])


def test_a_transaction_that_is_rolled_back_does_not_hold_up_the_trail(member, issue, database_url):
    with psycopg.connect(database_url) as failing:
        failing.execute(INSERT, ["never"])
        issue("early")
        failing.rollback()
    follow(member, "/secrets/events?order=asc", ["early"])


def test_a_position_from_before_a_restore_under_the_previous_release_still_works(
    member, service, issue, rows
):
    """Its guide put the events of the dump first."""
    issue("read")
    issue("not read")
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER credential_events_append_only")
    rows.execute("UPDATE credential_events SET transaction_id = '0'")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER credential_events_append_only")
    event, _ = service.unit_events(caller(), order="asc").items
    issue("new")
    query = {"order": "asc", "limit": 1000}
    for transaction_id in (5, 10**15):  # low as on the same server, or beyond all others
        position = replace(event, transaction_id=transaction_id).position
        link = next_link(query, position)
        follow(member, f"/secrets/events{link[1:].partition('>')[0]}", ["not read", "new"])


def test_the_first_event_on_another_server_comes_after_all_that_are_there(member, issue, rows):
    """Its transaction ID is lower, and nobody has to do anything for that."""
    rows.execute(
        "INSERT INTO credential_events "
        "(transaction_id, secret_id, unit_id, name, event, actor, request_id) "
        "VALUES ('999999999', 'sec_' || repeat('a', 20), 'unit_demo', 'old', 'updated', 'a', 'r')"
    )
    path = "/secrets/events?order=asc"
    assert names(member.get(path)) == []
    rows.execute("UPDATE trail_histories SET server = 'another'")
    page = member.get(path)
    assert names(page) == ["old"]
    assert names(member.get(next_of(page))) == []
    issue("new")
    issue("newer")
    follow(member, path, ["old", "new", "newer"])
    follow(member, next_of(page), ["new", "newer"])
    assert rows.count("trail_histories") == 2


def test_two_transactions_that_begin_a_history_share_it(issue, member, database_url, rows):
    rows.execute("UPDATE trail_histories SET server = 'another'")
    with psycopg.connect(database_url) as first, ThreadPoolExecutor(1) as pool:
        first.execute(INSERT, ["first"])
        second = pool.submit(issue, "second")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        wait_until(lambda: second.done() or rows(waiting)[0]["count"])
        first.commit()
        second.result()
    assert rows.count("trail_histories") == 2
    follow(member, "/secrets/events?order=asc", ["first", "second"])


def test_a_server_that_does_not_tell_who_it_is_continues_the_history(member, issue, rows):
    rows.execute("REVOKE EXECUTE ON FUNCTION pg_control_system FROM public")
    try:
        rows.execute("UPDATE trail_histories SET server = 'another'")
        rows.execute("ALTER FUNCTION trail_transaction() SECURITY INVOKER")
        issue("x")
        follow(member, "/secrets/events?order=asc", ["x"])
        assert rows.count("trail_histories") == 1
    finally:
        rows.execute("ALTER FUNCTION trail_transaction() SECURITY DEFINER")
        rows.execute("GRANT EXECUTE ON FUNCTION pg_control_system TO public")


def test_an_event_that_was_deleted_deliberately_is_not_lost(member, issue, rows):
    """Its follower goes on as before, also after a failover."""
    issue("old")
    issue("newest")
    page = follow(member, "/secrets/events?order=asc&limit=1", ["old"])
    rows.execute("ALTER TABLE credential_events DISABLE TRIGGER credential_events_append_only")
    rows.execute("DELETE FROM credential_events WHERE name = 'old'")
    rows.execute("ALTER TABLE credential_events ENABLE TRIGGER credential_events_append_only")
    assert names(member.get(next_of(page))) == ["newest"]
    rows.execute("UPDATE trail_histories SET server = 'another'")
    issue("later")
    follow(member, next_of(page).replace("limit=1&", ""), ["newest", "later"])


def test_an_old_event_takes_client_id_and_name_from_the_issue(member, service, issue, rows):
    issued = issue("old")
    rows.execute(
        "INSERT INTO credential_events (secret_id, unit_id, event, actor, request_id) "
        "VALUES (%(secret_id)s, 'unit_demo', 'revoked', 'ada', 'req')",
        secret_id=issued.secret_id,
    )
    newest = member.get("/secrets/events").json[0]
    assert (newest["client_id"], newest["name"]) == (issued.client_id, "old")
    assert newest["via"] is newest["address"] is None


def test_the_index_serves_both_orders(rows):
    for other_plan in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        rows("SELECT set_config(%(name)s, 'off', false)", name=other_plan)
    for direction in ("ASC", "DESC"):
        plan = rows(
            "EXPLAIN SELECT * FROM credential_events WHERE unit_id = 'u' "
            f"ORDER BY transaction_id {direction}, event_id {direction}"
        )
        assert "credential_events_in_order" in str(plan)
        assert "Sort" not in str(plan)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
def test_the_trail_cannot_be_changed(member, method):
    answer = member.open("/secrets/events", method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
