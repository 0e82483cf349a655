"""Who uses a credential, who is refused and why, as its owner sees it. On real connections."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import psycopg
import pytest

from app.credentials import repository
from app.credentials.background import BackgroundWriter
from app.credentials.errors import (
    ClientSecretNotFound,
    CredentialInUse,
    TooManyFailures,
    VerificationRefused,
)
from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.model import CredentialChanges, Use
from app.credentials.reapply import Reapply, TrailEvent
from app.rate_limits import UNLIMITED, MemoryCounters, RateLimit
from tests.helpers import DIGEST_KEY, caller, guesses, hasher_with, typo_of
from tests.running_server import HANG_SECONDS, wait_until

ADDRESS = "192.0.2.7"
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
def process(verifier):
    """Return a function that makes another process' verifier, which writes only when it is told."""

    def process(failure_limit=UNLIMITED, **changes):
        writer = BackgroundWriter(verifier.database, verifier.bulkheads.background)
        return replace(verifier, writer=writer, failure_limit=failure_limit, **changes)

    return process


@pytest.fixture
def shown(service):
    """Return a function that reads the credential as its owner does."""
    return lambda issued: service.get(caller(), issued.secret_id)


@pytest.fixture
def refused(process, shown):
    """Return a function that sends a pair to a new process, and returns the recorded refusal."""

    def refused(issued, client_secret, **changes):
        here = process(**changes)
        with pytest.raises(VerificationRefused):
            send(here, issued, client_secret)
        wait_until(here.writer.flush)
        return seen(shown(issued))

    return refused


@pytest.fixture
def clean_up(service):
    return service.writer.clean_up


def send(verifier, issued, client_secret=None):
    return verifier.verify(
        client_id=issued.client_id,
        client_secret=client_secret or issued.client_secret,
        address=ADDRESS,
        request_id="req-1",
    )


def seen(credential):
    """Return the reason and the hint of the recorded refusal, which came from our address."""
    if credential.last_refused is None:
        return None
    assert credential.last_refused.address == ADDRESS
    return credential.last_refused.reason, credential.last_refused.hint


def rotate(service, issued, overlap_seconds=0):
    return service.rotate(caller(), issued.secret_id, overlap_seconds=overlap_seconds)


def switch(service, issued, *, enabled):
    service.update(caller(), issued.secret_id, CredentialChanges(enabled=enabled))


def hint(issued):
    return issued.client_secret[-4:]


def make_old(rows):
    rows.execute("UPDATE client_secrets SET created_at = created_at - interval '1 day'")


def first_uses(rows):
    return rows("SELECT * FROM credential_events WHERE event = 'first_used' ORDER BY event_id")


# Why


def test_nobody_was_refused_at_first(issued, shown):
    assert shown(issued).last_refused is None


def test_a_wrong_client_secret_is_recorded_without_its_hint(issued, refused):
    assert refused(issued, generate_client_secret()) == ("wrong", None)


def test_a_client_secret_that_a_rotation_ended_is_recognised(service, issued, refused):
    rotate(service, issued)
    assert refused(issued, issued.client_secret) == ("ended", hint(issued))


def test_a_client_secret_that_somebody_ended_is_recognised(service, issued, refused):
    rotate(service, issued, overlap_seconds=60)
    service.end_secret(caller(), issued.secret_id, hint(issued))
    assert refused(issued, issued.client_secret) == ("ended", hint(issued))


def test_a_credential_without_any_client_secret_still_shows_refusals(
    service, issued, refused, rows, clean_up
):
    rows.execute("UPDATE client_secrets SET expires_at = now()")
    clean_up()
    assert service.get(caller(), issued.secret_id).secrets == []
    assert rows.count("client_secrets") == 0
    assert refused(issued, issued.client_secret) == ("expired", hint(issued))
    assert refused(issued, generate_client_secret()) == ("wrong", None)


@pytest.mark.parametrize("remove", ["nothing", "clean_up", "update", "disable_all"])
def test_an_expired_client_secret_is_expired_before_and_after_it_is_deleted(
    service, issued, refused, rows, remove
):
    rotate(service, issued, overlap_seconds=60)
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    if remove == "clean_up":
        service.writer.clean_up()
    elif remove == "update":
        service.update(caller(), issued.secret_id, CredentialChanges(name="other"))
    elif remove == "disable_all":
        service.disable_all(caller())
    assert rows.count("client_secrets") == (2 if remove == "nothing" else 1)
    assert refused(issued, issued.client_secret) == ("expired", hint(issued))


def test_a_disabled_credential_is_distinguished_from_a_wrong_client_secret(
    service, issued, refused
):
    switch(service, issued, enabled=False)
    assert refused(issued, issued.client_secret) == ("disabled", hint(issued))
    assert refused(issued, generate_client_secret()) == ("wrong", None)


def test_a_client_secret_is_recognised_by_a_previous_digest_key(service, issued, refused):
    """It ended while it had a digest by the key that is the previous one now."""
    rotate(service, issued)
    hasher = hasher_with(b"another digest key, of 32 bytes.", DIGEST_KEY)
    assert refused(issued, issued.client_secret, hasher=hasher) == ("ended", hint(issued))


def test_a_refusal_after_a_comparison_of_hashes_is_recorded(issued, refused, rows, verifier):
    """The digest key is lost, so bcrypt decides about a guess with the same hint."""
    rows.execute("UPDATE client_secrets SET digest = NULL")
    compared = verifier.hasher.runs.counts().get("compare", 0)
    assert refused(issued, next(guesses(issued.client_secret))) == ("wrong", None)
    assert verifier.hasher.runs.counts()["compare"] == compared + 1


def test_a_refusal_beyond_the_failure_limit_is_recorded(issued, process, shown):
    limit = RateLimit("verify failures", 1, MemoryCounters())
    for error in (VerificationRefused, TooManyFailures):
        here = process(failure_limit=limit)
        with pytest.raises(error):
            send(here, issued, generate_client_secret())
        wait_until(here.writer.flush)
        assert seen(shown(issued)) == ("wrong", None)


def test_what_belongs_to_nobody_is_not_recorded(issued, process, rows):
    here = process()
    pairs = [
        (generate_client_id(), issued.client_secret),
        (issued.client_id, typo_of(issued.client_secret)),
        (issued.client_id, ""),
    ]
    for client_id, client_secret in pairs:
        with pytest.raises(VerificationRefused):
            here.verify(client_id=client_id, client_secret=client_secret, address=ADDRESS)
    wait_until(here.writer.flush)
    assert rows.count("credentials WHERE last_refused_at IS NOT NULL") == 0


def test_a_refusal_leaves_the_last_use_as_it_is(issued, process, refused, shown):
    here = process()
    send(here, issued)
    wait_until(here.writer.flush)
    before = shown(issued)
    refused(issued, generate_client_secret())
    after = shown(issued)
    assert (after.last_used_at, after.secrets) == (before.last_used_at, before.secrets)
    [secret] = after.secrets
    assert secret.last_used_from == ADDRESS


# How often


def refusals(rows):
    [row] = rows("SELECT last_refused_at AS at FROM credentials")
    return row["at"]


def test_refusals_are_recorded_once_a_minute_and_when_their_reason_changes(
    service, issued, process, rows, shown, monkeypatch
):
    here = process()

    def refuse(client_secret):
        with pytest.raises(VerificationRefused):
            send(here, issued, client_secret)
        wait_until(here.writer.flush)
        return refusals(rows)

    first = refuse(generate_client_secret())
    assert refuse(generate_client_secret()) == first
    switch(service, issued, enabled=False)
    second = refuse(issued.client_secret)
    assert second > first
    assert refuse(issued.client_secret) == second
    assert refuse(generate_client_secret()) > second
    monkeypatch.setattr("app.credentials.background._REFUSAL_SECONDS", 0.0)
    assert refuse(issued.client_secret) < refuse(issued.client_secret)


def test_a_process_with_an_older_refusal_does_not_hide_a_later_one(service, issued, process, shown):
    early, late = process(), process()
    with pytest.raises(VerificationRefused):
        send(early, issued, generate_client_secret())
    switch(service, issued, enabled=False)
    with pytest.raises(VerificationRefused):
        send(late, issued)
    wait_until(late.writer.flush)
    wait_until(early.writer.flush)
    assert seen(shown(issued)) == ("disabled", hint(issued))


def test_pending_refusals_take_a_limited_amount_of_memory(issued, process, refused, rows):
    here = process()
    for number in range(50_000):
        here.writer.record_refusal(f"sec_{number}", "wrong", None, {}, None)
    with pytest.raises(VerificationRefused):
        send(here, issued, generate_client_secret())
    wait_until(here.writer.flush)
    assert refusals(rows) is None
    assert refused(issued, generate_client_secret()) == ("wrong", None)


def test_refusals_are_written_later_if_the_database_is_read_only(issued, process, shown, rows):
    rows.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'read-only' USING ERRCODE = 'read_only_sql_transaction'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON credentials EXECUTE FUNCTION refuse();
        """
    )
    here = process()
    try:
        for _ in range(100):
            with pytest.raises(VerificationRefused):
                send(here, issued, generate_client_secret())
        assert not here.writer.flush()
        assert shown(issued).last_refused is None
    finally:
        rows.execute("DROP TRIGGER refuse ON credentials")
        rows.execute("DROP FUNCTION refuse")
    wait_until(here.writer.flush)
    assert seen(shown(issued)) == ("wrong", None)


# What is remembered


def test_the_last_twenty_ended_client_secrets_are_remembered(
    service, issued, refused, rows, verifier
):
    rows.execute(
        """
        INSERT INTO ended_secrets (secret_id, digest, hint, reason, ended_at)
        SELECT secret_id, decode(lpad(to_hex(n), 80, '0'), 'hex'), 'abcd', 'ended',
               now() - n * interval '1 day'
        FROM credentials, generate_series(1, 20) AS n
        """
    )
    rotate(service, issued)
    assert rows.count("ended_secrets") == 20
    assert rows.count("ended_secrets WHERE ended_at < now() - interval '19.5 days'") == 0
    assert refused(issued, issued.client_secret) == ("ended", hint(issued))


def test_an_ended_client_secret_is_remembered_for_ninety_days(
    service, issued, refused, rows, clean_up
):
    rotate(service, issued)
    rows.execute("UPDATE ended_secrets SET ended_at = now() - interval '89 days'")
    clean_up()
    assert refused(issued, issued.client_secret) == ("ended", hint(issued))
    rows.execute("UPDATE ended_secrets SET ended_at = now() - interval '90 days'")
    assert refused(issued, issued.client_secret) == ("wrong", None)
    clean_up()
    assert rows.count("ended_secrets") == 0


def test_a_client_secret_that_ends_again_after_a_restore_is_recognised(
    service, issued, refused, rows
):
    event = TrailEvent(
        issued.secret_id, "rotated", "ada", datetime.now(UTC), "req-9",
        {"overlap_seconds": 0},
    )  # fmt: skip
    reapply = Reapply(service.database, HANG_SECONDS, lambda _: caller())
    first_use = replace(event, event="first_used", detail={"hint": hint(issued)})
    summary = reapply.apply([first_use, event], since=event.at - timedelta(days=2))
    assert summary.secrets_ended == 1
    assert rows.count("client_secrets") == 0
    assert refused(issued, issued.client_secret) == ("ended", hint(issued))


def test_nothing_of_a_revoked_credential_is_remembered(service, issued, rows):
    rotate(service, issued)
    service.revoke(caller(), issued.secret_id)
    assert rows.count("ended_secrets") == 0


# The first use


def test_the_first_use_of_a_client_secret_has_one_event(service, issued, process, rows):
    for _ in range(2):
        here = process()
        send(here, issued)
        wait_until(here.writer.flush)
        rows.execute("UPDATE client_secrets SET last_used_at = last_used_at - interval '1 hour'")
    [event] = first_uses(rows)
    assert event["detail"] == {"hint": hint(issued)}
    assert (event["actor"], event["client_id"]) == (issued.client_id, issued.client_id)
    assert (event["via"], event["address"], event["request_id"]) == ("verify", ADDRESS, "req-1")
    assert (event["unit_id"], event["name"]) == (issued.unit_id, issued.name)
    rotated = rotate(service, issued)
    here = process()
    send(here, rotated)
    wait_until(here.writer.flush)
    assert [each["detail"]["hint"] for each in first_uses(rows)] == [hint(issued), hint(rotated)]


def test_two_processes_that_record_one_first_use_write_one_event(
    issued, process, database_url, rows
):
    """The other one has recorded it, and has not committed yet."""
    here = process()
    send(here, issued)
    [client_secret] = rows("SELECT client_secret_id AS id FROM client_secrets")
    with psycopg.connect(database_url) as other:
        use = Use(client_secret["id"], issued.secret_id, 0.0, ADDRESS, "req-2")
        [recorded] = repository.update_last_use(other, [use])
        assert recorded.is_first
        assert not here.writer.flush()
        other.commit()
    wait_until(here.writer.flush)
    [event] = first_uses(rows)
    assert event["request_id"] == "req-2"


def test_many_processes_write_one_event_for_each_first_use(issued, settings, rows):
    """Four sessions record the uses of 200 client secrets, in batches that overlap."""
    rows.execute(
        "INSERT INTO client_secrets (secret_id, secret_hash, hint) "
        "SELECT secret_id, secret_hash, hint FROM client_secrets, generate_series(2, 200)"
    )
    ids = [each["id"] for each in rows("SELECT client_secret_id AS id FROM client_secrets")]

    def record(seed):
        batches = deque()
        shuffled = Random(seed).sample(ids, len(ids))  # noqa: S311  it keeps no secret
        batches += [shuffled[n : n + 20] for n in range(0, len(ids), 20)]
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            while batches:
                batch = batches.popleft()
                uses = [Use(each, issued.secret_id, 0.0, None, "req") for each in batch]
                done = {
                    each.client_secret_id for each in repository.update_last_use(connection, uses)
                }
                if left := [each for each in batch if each not in done]:
                    batches.append(left)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(record, seed) for seed in range(4)]:
            each.result(HANG_SECONDS)
    assert len(first_uses(rows)) == len(ids)


def test_a_first_use_is_not_recorded_while_its_credential_is_locked(
    issued, process, database_url, rows
):
    """Whoever holds it may be about to end it, and no event follows the end."""
    here = process()
    send(here, issued)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM credentials FOR UPDATE")
        assert not here.writer.flush()
        assert first_uses(rows) == []
        other.execute("DELETE FROM credentials")
        other.commit()
    wait_until(here.writer.flush)
    assert first_uses(rows) == []


def test_a_refusal_of_a_credential_that_is_being_revoked_leaves_nothing(
    issued, process, database_url, rows
):
    here = process()
    with pytest.raises(VerificationRefused):
        send(here, issued, generate_client_secret())
    with psycopg.connect(database_url) as revocation:
        revocation.execute("DELETE FROM credentials")
        assert not here.writer.flush()
        revocation.commit()
    wait_until(here.writer.flush)
    assert rows.count("credentials") == rows.count("ended_secrets") == 0


# End what is unused


def test_a_client_secret_that_was_used_does_not_end(service, issued, app_with, rows):
    """The use was answered by another process a moment before, and is not recorded yet."""
    rotate(service, issued, overlap_seconds=3600)
    make_old(rows)
    other = app_with().services
    wait_until(lambda: rows.count("writers") == 2)
    send(other.verifier, issued)
    with pytest.raises(CredentialInUse) as error:
        service.end_secret(caller(), issued.secret_id, hint(issued), unused_for=60)
    assert error.value.last_used_at is not None
    send(other.verifier, issued)


def test_a_use_that_is_being_recorded_prevents_the_end(service, issued, database_url, rows):
    """The end waits for the transaction that records the use, and then sees it."""
    rotate(service, issued, overlap_seconds=3600)
    make_old(rows)
    with psycopg.connect(database_url) as recording, ThreadPoolExecutor(1) as pool:
        recording.execute("UPDATE client_secrets SET last_used_at = now()")
        ending = pool.submit(
            service.end_secret, caller(), issued.secret_id, hint(issued), unused_for=60
        )
        wait_until(lambda: rows(WAITING)[0]["count"] == 1 or ending.done())
        recording.commit()
        with pytest.raises(CredentialInUse):
            ending.result()


def test_only_the_client_secret_itself_has_to_be_unused(service, issued, process, rows):
    rotated = rotate(service, issued, overlap_seconds=3600)
    make_old(rows)
    here = process()
    send(here, rotated)
    wait_until(here.writer.flush)
    with pytest.raises(CredentialInUse):
        service.end_secret(caller(), issued.secret_id, hint(rotated), unused_for=60)
    service.end_secret(caller(), issued.secret_id, hint(issued), unused_for=60)


def test_a_new_client_secret_does_not_end_as_unused(service, issued):
    rotated = rotate(service, issued, overlap_seconds=3600)
    with pytest.raises(CredentialInUse) as error:
        service.end_secret(caller(), issued.secret_id, hint(rotated), unused_for=60)
    assert error.value.last_used_at is None


def test_a_rotation_is_finished_once_its_successor_is_used(service, issued, process, rows):
    rotated = rotate(service, issued, overlap_seconds=3600)
    make_old(rows)
    assert service.finished_rotations(caller(), unused_for=60) == []
    here = process()
    send(here, rotated)
    wait_until(here.writer.flush)
    assert service.finished_rotations(caller("unit_other"), unused_for=60) == []
    assert service.finished_rotations(caller(), unused_for=2 * 86400) == []
    [finished] = service.finished_rotations(caller(), unused_for=60)
    assert (finished.secret_id, finished.hint) == (issued.secret_id, hint(issued))
    assert service.finish_rotation(caller(), finished, unused_for=60)
    assert not service.finish_rotation(caller(), finished, unused_for=60)
    with pytest.raises(ClientSecretNotFound):
        service.end_secret(caller(), issued.secret_id, hint(issued))
    assert service.finished_rotations(caller(), unused_for=60) == []


def test_a_client_secret_that_is_used_meanwhile_is_not_finished(service, issued, process, rows):
    rotated = rotate(service, issued, overlap_seconds=3600)
    make_old(rows)
    here = process()
    send(here, rotated)
    wait_until(here.writer.flush)
    [finished] = service.finished_rotations(caller(), unused_for=60)
    send(here, issued)
    wait_until(here.writer.flush)
    assert not service.finish_rotation(caller(), finished, unused_for=60)


# All at random, against a model


class Model:
    """One credential, what is done to it at random, and what its owner should see.

    Each refusal comes to a new process, so that each is due.
    """

    weights = {  # noqa: RUF012  nobody changes it
        "send": 60, "guess": 12, "rotate": 2, "overlap": 3, "end": 6, "expire": 3, "clean_up": 4,
        "switch": 6,
    }  # fmt: skip

    def __init__(self, service, process, rows):
        self.service, self.process, self.rows = service, process, rows
        self.choose = Random(24)  # noqa: S311  it keeps no secret
        self.issued = service.issue(caller(), name="x")
        self.live, self.expired = [self.issued], []
        # two that end at the same moment may be remembered in any order
        self.ended = deque(maxlen=18)
        self.is_enabled, self.refusal = True, None

    def step(self):
        [verb] = self.choose.choices(list(self.weights), list(self.weights.values()))
        getattr(self, verb)()

    def _delete_expired(self):
        self.ended.extend((each, "expired") for each in self.expired)
        self.expired.clear()

    def send(self):
        sent = {each.client_secret: (each, "disabled") for each in self.live}
        sent |= {each.client_secret: (each, "expired") for each in self.expired}
        sent |= {each.client_secret: (each, reason) for each, reason in self.ended}
        one, reason = self.choose.choice(list(sent.values()))
        here = self.process()
        if self.is_enabled and one in self.live:
            send(here, self.issued, one.client_secret)
        else:
            with pytest.raises(VerificationRefused):
                send(here, self.issued, one.client_secret)
            self.refusal = reason, hint(one)
        wait_until(here.writer.flush)

    def guess(self):
        here = self.process()
        with pytest.raises(VerificationRefused):
            send(here, self.issued, generate_client_secret())
        wait_until(here.writer.flush)
        self.refusal = "wrong", None

    def rotate(self):
        self._delete_expired()
        self.ended.extend((each, "ended") for each in self.live)
        self.live = [rotate(self.service, self.issued)]

    def overlap(self):
        if len(self.live) < 2:
            self._delete_expired()
            self.live.append(rotate(self.service, self.issued, overlap_seconds=3600))

    def end(self):
        if len(self.live) == 2:
            self._delete_expired()
            one = self.live.pop(self.choose.randrange(2))
            self.service.end_secret(caller(), self.issued.secret_id, hint(one))
            self.ended.append((one, "ended"))

    def expire(self):
        if len(self.live) == 2 and self.is_enabled:  # disabled, it would be refused for that
            self.rows.execute(
                "UPDATE client_secrets SET expires_at = now() WHERE expires_at > now()"
            )
            self.expired.append(self.live.pop(0))

    def clean_up(self):
        self.service.writer.clean_up()

    def switch(self):
        self._delete_expired()
        self.is_enabled = not self.is_enabled
        switch(self.service, self.issued, enabled=self.is_enabled)


@pytest.mark.parametrize("operations", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_reason_and_the_hint_are_right_after_any_operations(
    service, process, shown, rows, operations
):
    model = Model(service, process, rows)
    for _ in range(operations):
        model.step()
        assert seen(shown(model.issued)) == model.refusal
