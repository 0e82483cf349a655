"""Calls at the same moment, each with its own connection."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from urllib.parse import quote

import bcrypt
import psycopg
import pytest

from app.bulkheads import Bulkhead, Bulkheads, WorkClass
from app.credentials import repository
from app.credentials.errors import (
    ClientSecretNotFound,
    CredentialInUse,
    CredentialNotFound,
    LastSecret,
    SecretLimitReached,
    VerificationRefused,
)
from app.credentials.model import CredentialChanges, LeakReport
from app.database.pool import Database
from app.domain import Domain
from tests.helpers import caller, is_live
from tests.running_server import HANG_SECONDS, wait_until

REPORTERS = 16

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
def service(settings, rows):
    """The service, with enough patience for all callers to wait for one lock on a slow machine."""
    with patient_domain(settings, connections=6) as domain:
        yield domain.credentials


@pytest.fixture
def leaks(settings, rows):
    """Leak reports, with as much patience."""
    with patient_domain(settings, connections=REPORTERS) as domain:
        yield domain.leaks


@contextmanager
def patient_domain(settings, *, connections):
    patient = WorkClass(Bulkhead(REPORTERS, max_wait=0, max_waiting=0), seconds=HANG_SECONDS)
    bulkheads = replace(
        Bulkheads.for_verifiers(1),
        hashing=Bulkhead(1, max_wait=HANG_SECONDS, max_waiting=10),
        management=patient,
        public=patient,
    )
    seconds = f"{HANG_SECONDS}s"
    options = quote(f"-c lock_timeout={seconds} -c statement_timeout={seconds}")
    url = f"{settings.database_url}&options={options}"
    database = Database(url, connections=connections)
    database.open(wait_seconds=HANG_SECONDS)
    yield Domain.from_settings(settings, database, bulkheads)
    database.close()


@pytest.fixture
def at_once(database_url, issued, rows):
    """Return a function that makes all its calls wait for the lock on the credential's row.

    Another session holds the lock until every call waits for it, so the race always happens.
    """

    def at_once(*calls):
        with (
            psycopg.connect(database_url) as holder,
            ThreadPoolExecutor(len(calls)) as pool,
        ):
            holder.execute("SELECT FROM credentials FOR UPDATE")
            running = [pool.submit(outcome, call) for call in calls]
            wait_until(lambda: rows(WAITING)[0]["count"] == len(calls))
            holder.rollback()
            return [call.result() for call in running]

    return at_once


def outcome(call):
    try:
        return call()
    except (
        ClientSecretNotFound, CredentialNotFound, LastSecret, SecretLimitReached
    ) as error:  # fmt: skip
        return type(error)


def rotate(service, issued, overlap_seconds=0):
    return lambda: service.rotate(caller(), issued.secret_id, overlap_seconds=overlap_seconds)


def revoke(service, issued):
    return lambda: service.revoke(caller(), issued.secret_id)


def update(service, issued, name):
    return lambda: service.update(
        caller(), issued.secret_id, CredentialChanges(trust_upstream_consent=True, name=name)
    )


def end_secret(service, issued):
    return lambda: service.end_secret(caller(), issued.secret_id, issued.client_secret[-4:])


def report(leaks, issued, *, ends=True):
    reports = [LeakReport(issued.client_secret)]
    return lambda: leaks.report(reports, caller, address=None, ends=ends)


def trail(rows):
    events = rows("SELECT event FROM credential_events ORDER BY event_id")
    return [each["event"] for each in events]


def test_after_two_rotations_without_overlap_one_secret_works(service, issued, at_once, rows):
    first, second = at_once(rotate(service, issued), rotate(service, issued))
    secrets = [issued, first, second]
    assert sum(is_live(rows, each.client_secret) for each in secrets) == 1
    assert not is_live(rows, issued.client_secret)
    assert trail(rows) == ["issued", "rotated", "rotated"]


def test_only_one_of_four_rotations_with_overlap_succeeds(service, issued, at_once, rows):
    outcomes = at_once(*[rotate(service, issued, 3600)] * 4)
    assert outcomes.count(SecretLimitReached) == 3
    (rotated,) = (each for each in outcomes if each is not SecretLimitReached)
    assert is_live(rows, issued.client_secret)
    assert is_live(rows, rotated.client_secret)
    assert rows.count("client_secrets") == 2
    assert trail(rows) == ["issued", "rotated"]


def test_after_a_rotation_and_a_revocation_no_secret_works(service, issued, at_once, rows):
    rotated, revoked = at_once(rotate(service, issued, 3600), revoke(service, issued))
    assert revoked is None
    assert not is_live(rows, issued.client_secret)
    if rotated is CredentialNotFound:
        assert trail(rows) == ["issued", "revoked"]
    else:
        assert not is_live(rows, rotated.client_secret)
        assert trail(rows) == ["issued", "rotated", "revoked"]
    assert rows.count("client_secrets") == 0


@pytest.mark.parametrize("overlap_seconds", [0, 3600])
def test_a_narrowing_holds_for_a_client_secret_that_is_made_meanwhile(
    service, verifier, issued, at_once, rows, overlap_seconds
):
    def narrow():
        changes = CredentialChanges(scopes=["ingest"], addresses=["192.0.2.1"])
        service.update(caller(), issued.secret_id, changes)

    rotated, _ = at_once(rotate(service, issued, overlap_seconds), narrow)
    assert sorted(trail(rows)) == ["issued", "rotated", "updated"]
    for each in (rotated, issued) if overlap_seconds else (rotated,):
        pair = {"client_id": each.client_id, "client_secret": each.client_secret}
        for address, scope, reason in (
            ("192.0.2.1", None, "scope"),
            ("192.0.2.1", "events", "scope"),
            ("192.0.2.2", "ingest", "address"),
            (None, "ingest", "address"),
        ):
            with pytest.raises(VerificationRefused) as refused:
                verifier.verify(**pair, address=address, scope=scope)
            assert refused.value.reason == reason
        verifier.verify(**pair, address="192.0.2.1", scope="ingest")


def test_two_narrowings_at_once_both_hold(service, issued, at_once):
    narrowings = [CredentialChanges(scopes=[]), CredentialChanges(addresses=["192.0.2.1"])]
    at_once(
        *[lambda each=each: service.update(caller(), issued.secret_id, each) for each in narrowings]
    )
    shown = service.get(caller(), issued.secret_id)
    assert (shown.scopes, shown.addresses) == ([], ["192.0.2.1"])


def test_an_update_and_a_revocation_are_recorded_in_order(service, issued, at_once, rows):
    updated, revoked = at_once(update(service, issued, "new"), revoke(service, issued))
    assert revoked is None
    if updated is CredentialNotFound:
        assert trail(rows) == ["issued", "revoked"]
    else:
        assert trail(rows) == ["issued", "updated", "revoked"]
    assert rows.count("credentials") == 0


def test_the_events_of_a_trail_are_in_the_order_of_their_times(service, issued, at_once, rows):
    at_once(*[update(service, issued, name) for name in ("a", "b", "c")])
    in_order = rows("SELECT at FROM credential_events ORDER BY event_id")
    assert in_order == sorted(in_order, key=lambda event: event["at"])


def test_only_one_of_three_revocations_succeeds(service, issued, at_once, rows):
    outcomes = at_once(*[revoke(service, issued)] * 3)
    assert sorted(map(str, outcomes)) == sorted(map(str, [None, *[CredentialNotFound] * 2]))
    assert trail(rows) == ["issued", "revoked"]


def test_the_second_of_two_updates_starts_from_the_result_of_the_first(
    service, issued, at_once, rows
):
    at_once(update(service, issued, "a"), update(service, issued, "b"))
    first, second = (
        each["detail"]["name"]
        for each in rows(
            "SELECT detail FROM credential_events WHERE event = 'updated' ORDER BY event_id"
        )
    )
    assert first["from"] == issued.name
    assert second["from"] == first["to"]
    assert rows("SELECT name FROM credentials")[0]["name"] == second["to"]


def test_an_ending_and_a_rotation_never_leave_a_credential_without_a_secret(
    service, issued, at_once, rows
):
    rotated, ended = at_once(rotate(service, issued, 3600), end_secret(service, issued))
    assert is_live(rows, rotated.client_secret)
    assert is_live(rows, issued.client_secret) == (ended is LastSecret)


def test_of_two_endings_only_one_succeeds(service, issued, at_once, rows):
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=3600)
    outcomes = at_once(end_secret(service, issued), end_secret(service, rotated))
    assert sorted(map(str, outcomes)) == sorted(map(str, [None, LastSecret]))
    assert rows.count("client_secrets") == 1


@pytest.mark.parametrize("ends", [True, False])
def test_of_sixteen_reports_one_leaves_an_event(leaks, issued, at_once, rows, ends):
    assert at_once(*[report(leaks, issued, ends=ends)] * REPORTERS) == [None] * REPORTERS
    assert is_live(rows, issued.client_secret) is not ends
    assert trail(rows) == ["issued", "leaked"]


@pytest.mark.parametrize("overlap_seconds", [0, 3600])
def test_a_client_secret_that_is_reported_during_a_rotation_ends(
    leaks, service, issued, at_once, rows, overlap_seconds
):
    _, rotated = at_once(report(leaks, issued), rotate(service, issued, overlap_seconds))
    assert not is_live(rows, issued.client_secret)
    assert is_live(rows, rotated.client_secret)
    # without an overlap, the rotation may have ended it before
    assert sorted(trail(rows)) in (
        ["issued", "leaked", "rotated"],
        *([["issued", "rotated"]] if overlap_seconds == 0 else []),
    )


def test_a_report_and_a_revocation_do_not_hinder_each_other(leaks, service, issued, at_once, rows):
    assert at_once(report(leaks, issued), revoke(service, issued)) == [None, None]
    assert rows.count("client_secrets") == 0
    assert trail(rows) in (["issued", "leaked", "revoked"], ["issued", "revoked"])


def test_a_client_secret_that_is_reported_and_ended_ends_once(
    leaks, service, issued, at_once, rows
):
    rotated = rotate(service, issued, 3600)()
    _, ended = at_once(report(leaks, issued), end_secret(service, issued))
    assert is_live(rows, rotated.client_secret)
    assert not is_live(rows, issued.client_secret)
    if ended is ClientSecretNotFound:
        assert trail(rows) == ["issued", "rotated", "leaked"]
    else:
        assert trail(rows) == ["issued", "rotated", "secret_ended"]


def test_reports_and_changes_to_whole_units_wait_for_each_other(
    leaks, service, issued, database_url, rows
):
    other = service.issue(caller("unit_emea"), name="y")
    reports = [LeakReport(each.client_secret) for each in (other, issued)]
    with (
        psycopg.connect(database_url) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        repository.lock_unit(holder, unit_id="unit_emea")
        reporting = pool.submit(leaks.report, reports, caller, address=None, ends=True)
        wait_until(lambda: rows(WAITING)[0]["count"] == 1)
        assert is_live(rows, issued.client_secret)
        holder.rollback()
        reporting.result()
    assert rows.count("client_secrets") == 0


def test_a_use_that_is_being_recorded_prevents_the_revocation(service, issued, database_url, rows):
    """The revocation waits for the transaction that records the use, and then sees it."""
    with psycopg.connect(database_url) as recording, ThreadPoolExecutor(1) as pool:
        recording.execute("UPDATE client_secrets SET last_used_at = now()")
        revoking = pool.submit(service.revoke, caller(), issued.secret_id, unused_for=60)
        wait_until(lambda: rows(WAITING)[0]["count"] == 1)
        recording.commit()
        with pytest.raises(CredentialInUse):
            revoking.result()
    assert is_live(rows, issued.client_secret)


def test_a_credential_is_shown_as_it_was_at_one_moment(service, issued, database_url, rows):
    """The read waits in its middle, while another session ends the secret and disables it all."""
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE credential_events")
        reading = pool.submit(service.get, caller(), issued.secret_id)
        wait_until(lambda: rows(WAITING)[0]["count"] == 1)
        other.execute("UPDATE credentials SET disabled_at = now()")
        other.execute("DELETE FROM client_secrets")
        other.commit()
        shown = reading.result()
    assert (shown.disabled_at is None) == bool(shown.secrets)


@pytest.mark.parametrize(
    "change",
    [
        lambda service: service.issue(caller(), name="x"),
        lambda service: service.disable_all(caller()),
        lambda service: service.revoke_all(caller()),
    ],
    ids=["issue", "disable all", "revoke all"],
)
def test_issues_and_changes_to_a_whole_unit_wait_for_each_other(
    service, issued, database_url, rows, change
):
    """So a change to a unit skips no credential, and issues together cannot exceed the limit."""
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        repository.lock_unit(other, unit_id="unit_demo")
        service.issue(caller("unit_other"), name="x")  # does not wait
        changing = pool.submit(change, service)
        wait_until(lambda: rows(WAITING)[0]["count"] == 1)
        other.rollback()
        assert changing.result()


def test_a_credential_that_is_disabled_while_bcrypt_compares_is_refused(
    app_with, issued, rows, service, monkeypatch
):
    """Another instance disables it after the read and before bcrypt has decided."""
    rows.execute("UPDATE client_secrets SET digest = NULL")
    compare = bcrypt.checkpw

    def compare_late(*arguments):
        service.update(caller(), issued.secret_id, CredentialChanges(enabled=False))
        return compare(*arguments)

    monkeypatch.setattr(bcrypt, "checkpw", compare_late)
    other_instance = app_with().services.verifier
    with pytest.raises(VerificationRefused):
        other_instance.verify(client_id=issued.client_id, client_secret=issued.client_secret)


def in_order(rows, service, secret_id):
    """Return the credential's events: as its own trail, the unit's and the export have them."""
    own = [each.event_id for each in reversed(service.events(caller(), secret_id).items)]
    unit = []

    def is_complete():
        unit[:] = [
            each.event_id
            for each in service.unit_events(caller(), order="asc").items
            if each.secret_id == secret_id
        ]
        return len(unit) == len(own)  # another test's transaction may delay the feed

    wait_until(is_complete)
    export = rows(
        "SELECT event_id FROM credential_events WHERE secret_id = %(secret_id)s ORDER BY event_id",
        secret_id=secret_id,
    )
    return own, unit, [each["event_id"] for each in export]


def assert_one_order(rows, service, secret_id):
    """All trails have one order, and its last event says whether the credential is enabled."""
    own, unit, export = in_order(rows, service, secret_id)
    assert own == unit == export
    switches = [
        each.event
        for each in service.events(caller(), secret_id).items
        if each.event in {"disabled", "enabled"}
    ]
    is_disabled = service.get(caller(), secret_id).disabled_at is not None
    assert is_disabled == (switches[:1] == ["disabled"])


def switch(service, secret_id, *, enabled):
    service.update(caller(), secret_id, CredentialChanges(enabled=enabled))


def test_a_change_to_the_whole_unit_comes_last_in_every_trail_if_it_is_last(
    service, issued, database_url, rows
):
    """It waits for one credential, and meanwhile another one is disabled and enabled."""
    other = service.issue(caller(), name="other").secret_id

    def off_and_on():
        switch(service, other, enabled=False)
        switch(service, other, enabled=True)

    with psycopg.connect(database_url) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute(
            "SELECT FROM credentials WHERE secret_id = %s FOR UPDATE", [issued.secret_id]
        )
        unit = pool.submit(service.disable_all, caller())
        wait_until(lambda: rows(WAITING)[0]["count"] == 1)
        single = pool.submit(off_and_on)
        wait_until(lambda: single.done() or rows(WAITING)[0]["count"] == 2)
        holder.rollback()
        assert unit.result() == 2
        single.result()
    for secret_id in (issued.secret_id, other):
        assert_one_order(rows, service, secret_id)


def test_under_load_all_trails_have_one_order(service, rows):
    """Four threads change single credentials, and one the whole unit."""
    secret_ids = [service.issue(caller(), name=name).secret_id for name in "abcd"]

    def change(seed):
        choose = Random(seed)  # noqa: S311  it keeps no secret
        for number in range(60):
            secret_id = choose.choice(secret_ids)
            verb = choose.choice(["off", "on", "rename", "rotate"])
            if verb == "rotate" and number % 10 == 0:
                service.rotate(caller(), secret_id, overlap_seconds=0)
            elif verb == "rename":
                service.update(caller(), secret_id, CredentialChanges(name=f"{seed} {number}"))
            else:
                switch(service, secret_id, enabled=verb == "on")

    def change_all():
        for _ in range(60):
            service.disable_all(caller())
            service.enable_all(caller())

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(change, seed) for seed in range(4)]
        running.append(pool.submit(change_all))
        for each in running:
            each.result()
    for secret_id in secret_ids:
        assert_one_order(rows, service, secret_id)
