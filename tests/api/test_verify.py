import json
import logging
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice

import bcrypt
import psycopg
import pytest

from app import create_app
from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.model import CredentialChanges
from app.settings import Settings
from tests.conftest import client_of, environment
from tests.helpers import VERIFIED_FIELDS, basic, caller, guesses, hasher_with, typo_of
from tests.running_server import HANG_SECONDS, wait_until

CHALLENGE = 'Basic realm="LeadVibe", charset="UTF-8"'
UNAUTHORIZED = {
    "type": "/docs/errors#invalid-pair",
    "title": "Unauthorized",
    "status": 401,
    "detail": "Check authentication credentials",
}


def verify(client, credential, secret=None, **changes):
    headers = basic(credential.client_id, secret or credential.client_secret)
    return client.open("/verify", headers=headers | {"X-Request-Id": "same"}, **changes)


def distinct(answers):
    """Return the distinct answers, with everything that a caller sees."""
    return {(answer.status, answer.data, str(answer.headers)) for answer in answers}


# Valid pairs


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_valid_pair_is_answered_with_its_credential(client, issued, method):
    answer = verify(client, issued, method=method)
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert list(answer.json) == VERIFIED_FIELDS
    assert answer.json == {
        "secret_id": issued.secret_id,
        "unit_id": "unit_demo",
        "client_id": issued.client_id,
        "name": "CRM backend",
        "trust_upstream_consent": False,
    }


def test_head_is_answered_as_get_without_the_body(client, issued):
    get, head = verify(client, issued, method="GET"), verify(client, issued, method="HEAD")
    assert head.status_code == 200
    assert head.data == b""
    assert head.headers == get.headers


def test_the_credential_is_in_the_headers_too(client, issued, service):
    for trust in (False, True):
        service.update(
            caller(), issued.secret_id, CredentialChanges(trust_upstream_consent=trust, name=None)
        )
        headers = verify(client, issued).headers
        assert headers["X-LeadVibe-Secret-Id"] == issued.secret_id
        assert headers["X-LeadVibe-Unit-Id"] == "unit_demo"
        assert headers["X-LeadVibe-Client-Id"] == issued.client_id
        assert headers["X-LeadVibe-Trust-Upstream-Consent"] == ("true" if trust else "false")
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("unit_id", "header"),
    [("unit 1", "unit%201"), (" unit", "%20unit"), ("ünit", "%C3%BCnit"),
     ("単位", "%E5%8D%98%E4%BD%8D"),
     ("a%20b", "a%2520b"), ("a,b;c=\"d\"", "a,b;c=\"d\""), ("\u2028", "%E2%80%A8")],
)  # fmt: skip
def test_different_units_have_different_header_values(client, service, unit_id, header):
    issued = service.issue(caller(unit_id), name="x")
    answer = verify(client, issued)
    assert answer.json["unit_id"] == unit_id
    assert answer.headers["X-LeadVibe-Unit-Id"] == header


def test_a_name_in_any_script_is_answered_unchanged(client, service):
    issued = service.issue(caller("u"), name="Zoë \N{FOX FACE}")
    assert verify(client, issued).json["name"] == "Zoë \N{FOX FACE}"


def test_the_scheme_is_case_insensitive(client, issued):
    headers = basic(issued.client_id, issued.client_secret)
    headers["Authorization"] = headers["Authorization"].replace("Basic", "bAsIc")
    assert client.get("/verify", headers=headers).status_code == 200


def test_several_spaces_may_follow_the_scheme(client, issued):
    """RFC 9110, 11.4."""
    headers = basic(issued.client_id, issued.client_secret)
    headers["Authorization"] = headers["Authorization"].replace(" ", "  ")
    assert client.get("/verify", headers=headers).status_code == 200


def test_a_request_with_a_body_is_verified(client, issued):
    answer = verify(client, issued, method="POST", data=b"an event", content_type="text/plain")
    assert answer.status_code == 200
    assert answer.json["client_id"] == issued.client_id
    assert answer.headers["X-LeadVibe-Unit-Id"] == "unit_demo"


def test_the_fast_path_and_the_flask_view_give_the_same_answer(client, issued):
    """A request with a chunked body goes to the Flask view, any other to the fast path."""
    chunked = {"data": b"x", "environ_base": {"HTTP_TRANSFER_ENCODING": "chunked"}}
    for secret in (issued.client_secret, generate_client_secret()):
        fast = verify(client, issued, secret, method="POST")
        view = verify(client, issued, secret, method="POST", **chunked)
        assert (fast.status, fast.data) == (view.status, view.data)
        assert sorted(fast.headers) == sorted(view.headers)


# Invalid pairs


def test_every_invalid_pair_gets_the_same_answer(client, issued, service, rows):
    revoked = service.issue(caller(), name="x")
    service.revoke(caller(), revoked.secret_id)
    expired = service.issue(caller(), name="x")
    rows.execute(
        "UPDATE client_secrets SET expires_at = now() WHERE secret_id = %(id)s",
        id=expired.secret_id,
    )
    unknown = replace(issued, client_id=generate_client_id())
    typo = typo_of(issued.client_secret)
    answers = [
        verify(client, issued, generate_client_secret()),
        verify(client, issued, revoked.client_secret),
        verify(client, issued, typo),
        verify(client, issued, "password"),
        verify(client, unknown),
        verify(client, revoked),
        verify(client, expired),
        client.get("/verify", headers={"X-Request-Id": "same"}),
    ]
    ((status, _, _),) = distinct(answers)
    assert status.startswith("401 ")
    assert answers[0].json == UNAUTHORIZED
    assert answers[0].content_type == "application/problem+json"
    assert answers[0].headers["WWW-Authenticate"] == CHALLENGE


MALFORMED = [
    "", "Basic", "Basic ", "Basic !", "Basic YQ", "Basic YTpi YTpi", "Basic YTpi, Basic YTpi",
    "Basic YTpi=", "Basic /w==", "Basic " + b64encode(b"\xff:\xff").decode(), "Bearer x", "é",
    "Basic " + b64encode(b"no colon").decode(), "Basic " + b64encode(b":").decode(),
    "Basic " + b64encode(b"\x00:\x00").decode(), "Basic " + b64encode(b"a:b" * 900).decode(),
    "Basic\tYTpi", "Digest username=x",
]  # fmt: skip


@pytest.mark.parametrize("authorization", MALFORMED, ids=lambda text: ascii(text[:30]))
def test_a_malformed_header_gets_the_same_answer(client, authorization):
    answer = client.get("/verify", headers={"Authorization": authorization})
    assert (answer.status_code, answer.json) == (401, UNAUTHORIZED)
    assert answer.headers["WWW-Authenticate"] == CHALLENGE


@pytest.mark.parametrize(
    "change",
    [lambda pair: (pair[0] + "\x00", pair[1]), lambda pair: (pair[0], pair[1] + "\n"),
     lambda pair: (pair[0].upper(), pair[1]), lambda pair: (" " + pair[0], pair[1]),
     lambda pair: (pair[0], ":" + pair[1]), lambda pair: (pair[1], pair[0])],
)  # fmt: skip
def test_a_pair_that_is_almost_right_is_refused(client, issued, change):
    headers = basic(*change((issued.client_id, issued.client_secret)))
    assert client.get("/verify", headers=headers).status_code == 401


def test_the_secret_of_another_client_is_refused(client, service, issued):
    other = service.issue(caller(), name="x")
    assert verify(client, issued, other.client_secret).status_code == 401


def test_a_bearer_token_is_refused(app, issuer):
    assert client_of(app, issuer.sign()).get("/verify").status_code == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_an_unsupported_method_is_answered_with_the_allowed_ones(client, issued, method):
    answer = verify(client, issued, method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_a_body_over_16_kib_is_too_large(client, issued):
    answer = verify(client, issued, method="POST", data=b"x" * (16 * 1024 + 1))
    assert answer.status_code == 413


def test_a_revocation_takes_effect_on_every_instance_immediately(app_with, issued, service):
    instances = [app_with().test_client() for _ in range(2)]
    assert {verify(each, issued).status_code for each in instances} == {200}
    service.revoke(caller(), issued.secret_id)
    assert {verify(each, issued).status_code for each in instances} == {401}


def test_both_secrets_verify_during_an_overlap_and_only_the_new_one_afterwards(
    client, issued, service, rows
):
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=60)
    assert verify(client, issued).status_code == verify(client, rotated).status_code == 200
    rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert verify(client, issued).status_code == 401
    assert verify(client, rotated).status_code == 200


# What a verification costs


@pytest.fixture
def bcrypt_calls(monkeypatch):
    """The calls of bcrypt's comparison, which still compares."""
    calls = []
    checkpw = bcrypt.checkpw

    def counting(*arguments):
        calls.append(arguments)
        return checkpw(*arguments)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    return calls


def test_neither_a_valid_nor_an_invalid_pair_needs_bcrypt(client, issued, bcrypt_calls):
    assert verify(client, issued).status_code == 200
    for secret in (generate_client_secret(), "x"):
        assert verify(client, issued, secret).status_code == 401
    assert verify(client, replace(issued, client_id=generate_client_id())).status_code == 401
    assert bcrypt_calls == []


def test_a_secret_with_a_wrong_checksum_is_refused_without_the_database(settings, issued):
    unreachable = replace(settings, database_url="postgresql://postgres@127.0.0.1:1/x")
    client = create_app(unreachable).test_client()
    typo = typo_of(issued.client_secret)
    assert verify(client, issued, typo).status_code == 401
    assert verify(client, issued).status_code == 503


OLD_KEY = b"the old digest key, 32 bytes...."
NEW_KEY = b"the new digest key, 32 bytes...."


def test_a_planned_change_of_key_needs_no_bcrypt(app_with, rows, bcrypt_calls):
    """Three deployments: the new key is added, then comes first, then the old one is removed."""
    apps = [
        app_with(digest_keys=keys)
        for keys in ((OLD_KEY,), (OLD_KEY, NEW_KEY), (NEW_KEY, OLD_KEY), (NEW_KEY,))
    ]
    issued = apps[0].services.credentials.issue(caller(), name="x")
    for app in apps:
        client = app.test_client()
        assert verify(client, issued).status_code == 200
        assert verify(client, issued, generate_client_secret()).status_code == 401
        app.services.writer.flush()
    assert bcrypt_calls == []


def test_a_success_renews_the_digest_with_the_first_key(app_with, rows):
    issued = app_with(digest_keys=(OLD_KEY,)).services.credentials.issue(caller(), name="x")
    app = app_with(digest_keys=(NEW_KEY, OLD_KEY))

    def digest():
        app.services.writer.flush()
        return bytes(rows("SELECT digest FROM client_secrets")[0]["digest"])

    verify(app.test_client(), issued, generate_client_secret())
    assert digest() == hasher_with(OLD_KEY).digest(issued.client_secret)
    verify(app.test_client(), issued)
    assert digest() == hasher_with(NEW_KEY).digest(issued.client_secret)


def test_bcrypt_decides_if_the_digest_has_a_lost_key_and_the_digest_is_replaced(
    app_with, issued, rows, bcrypt_calls
):
    client = app_with(digest_keys=(NEW_KEY,)).test_client()
    assert verify(client, issued).status_code == 200
    assert len(bcrypt_calls) == 1
    (stored,) = rows("SELECT digest FROM client_secrets")
    assert bytes(stored["digest"]) == hasher_with(NEW_KEY).digest(issued.client_secret)
    assert verify(client, issued).status_code == 200
    assert len(bcrypt_calls) == 1


def test_a_revoked_secret_is_refused_whatever_key_its_digest_had(app_with, issued, service):
    client = app_with(digest_keys=(NEW_KEY,)).test_client()
    assert verify(client, issued).status_code == 200
    service.revoke(caller(), issued.secret_id)
    assert verify(client, issued).status_code == 401


def test_an_address_at_its_limit_causes_no_more_bcrypt(app_with, issued, bcrypt_calls):
    client = app_with(digest_keys=(NEW_KEY,), verify_failure_limit=3).test_client()
    assert guess(client, issued, 5) == [401, 401, 401, 429, 429]
    assert len(bcrypt_calls) == 3
    assert verify(client, issued).status_code == 429
    elsewhere = {"environ_base": {"REMOTE_ADDR": "127.0.0.9"}}
    assert verify(client, issued, **elsewhere).status_code == 200
    assert len(bcrypt_calls) == 4


def test_bcrypt_decides_if_there_is_no_digest(client, issued, rows, bcrypt_calls):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    assert guess(client, issued, 1) == [401]
    assert rows("SELECT digest FROM client_secrets") == [{"digest": None}]
    assert verify(client, issued).status_code == 200
    assert verify(client, issued).status_code == 200
    assert len(bcrypt_calls) == 2


def test_a_secret_revoked_during_the_bcrypt_comparison_is_refused(
    client, issued, service, rows, monkeypatch
):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    checkpw = bcrypt.checkpw

    def revoke_and_compare(*arguments):
        service.revoke(caller(), issued.secret_id)
        return checkpw(*arguments)

    monkeypatch.setattr(bcrypt, "checkpw", revoke_and_compare)
    assert verify(client, issued).status_code == 401


@pytest.fixture
def may_compare(monkeypatch):
    """An event for which every comparison by bcrypt waits."""
    checkpw, may_compare = bcrypt.checkpw, threading.Event()

    def compare_later(*arguments):
        assert may_compare.wait(HANG_SECONDS)
        return checkpw(*arguments)

    monkeypatch.setattr(bcrypt, "checkpw", compare_later)
    return may_compare


def test_a_pair_with_another_hint_needs_no_bcrypt(client, issued, rows, bcrypt_calls):
    """So guesses cost bcrypt only if they come from somebody who has read the database."""
    rows.execute("UPDATE client_secrets SET digest = NULL")
    assert fail(client, issued, 5) == [401] * 5
    assert bcrypt_calls == []
    assert verify(client, issued).status_code == 200


def test_bcrypt_decides_only_if_no_digest_does(client, issued, service, rows, bcrypt_calls):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    rotated = service.rotate(caller(), issued.secret_id, overlap_seconds=60)
    assert verify(client, rotated).status_code == 200
    assert bcrypt_calls == []
    assert verify(client, issued).status_code == 200
    assert len(bcrypt_calls) == 1


def test_a_flood_that_needs_bcrypt_leaves_a_thread_for_valid_pairs(
    app_with, service, rows, may_compare
):
    """One comparison runs at a time, and one waits. Others from the address get 503 at once."""
    needing_bcrypt = service.issue(caller("u"), name="x")
    rows.execute("UPDATE client_secrets SET digest = NULL")
    other = service.issue(caller("u"), name="x")
    app = app_with(threads=4, verify_failure_limit=0)

    def attack(secret):
        return verify(app.test_client(), needing_bcrypt, secret)

    with ThreadPoolExecutor(8) as pool:
        secrets = islice(guesses(needing_bcrypt.client_secret), 24)
        attacks = [pool.submit(attack, secret) for secret in secrets]
        wait_until(lambda: sum(each.done() for each in attacks) >= 22)
        assert verify(app.test_client(), other).status_code == 200
        may_compare.set()
        answers = [each.result() for each in attacks]
    assert {answer.status_code for answer in answers} == {401, 503}
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert int(busy.headers["Retry-After"]) > 0
    assert busy.json["title"] == "Service Unavailable"
    assert verify(app.test_client(), needing_bcrypt).status_code == 200


def test_comparisons_leave_management_alone(app_with, issuer, issued, rows, may_compare):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    app = app_with(threads=4)
    turns, management = app.services.bulkheads.comparison, app.services.bulkheads.management
    with ThreadPoolExecutor(1) as pool:
        comparing = pool.submit(verify, app.test_client(), issued)
        wait_until(lambda: turns.in_use == 1)
        assert management.bulkhead.in_use == 0
        assert client_of(app, issuer.sign()).get("/secrets").status_code == 200
        may_compare.set()
    assert comparing.result().status_code == 200


def test_the_owner_goes_before_addresses_that_have_failed(app_with, service, rows, monkeypatch):
    """Four guessers keep all places of the queue taken, each from an address of its own."""
    attacked = service.issue(caller("u"), name="x")
    rows.execute("UPDATE client_secrets SET digest = NULL")
    app = app_with(threads=4)
    turns = app.services.bulkheads.comparison
    secrets = guesses(attacked.client_secret)
    checkpw, compared, may_compare = bcrypt.checkpw, [], threading.Event()

    def compare(secret, stored_hash):
        compared.append(secret.decode())
        assert may_compare.wait(HANG_SECONDS)
        return checkpw(secret, stored_hash)

    def ask(address, secret):
        base = {"environ_base": {"REMOTE_ADDR": address}}
        return verify(app.test_client(), attacked, secret, **base).status_code

    addresses = [f"203.0.113.{number}" for number in range(4)]
    assert [ask(address, next(secrets)) for address in addresses] == [401] * 4
    monkeypatch.setattr(bcrypt, "checkpw", compare)
    with ThreadPoolExecutor(5) as pool:
        attacks = []
        for number, address in enumerate(addresses):
            attacks.append(pool.submit(ask, address, next(secrets)))
            wait_until(lambda number=number: turns.waiting == number and turns.in_use)
        owner = pool.submit(ask, "198.51.100.7", attacked.client_secret)
        wait_until(lambda: turns.refused == 1)
        may_compare.set()
        assert owner.result() == 200
    assert compared[1] == attacked.client_secret
    assert [attack.result() for attack in attacks].count(503) == 1


# Last use


def last_uses(rows):
    return [each["last_used_at"] for each in rows("SELECT last_used_at FROM client_secrets")]


def test_a_use_is_recorded_soon_afterwards(member, client, issued, rows):
    verify(client, issued)
    wait_until(lambda: last_uses(rows) != [None])
    shown = member.get(f"/secrets/{issued.secret_id}").json
    assert shown["last_used_at"] == shown["secrets"][0]["last_used_at"] is not None


def test_a_failed_verification_is_not_recorded_as_a_use(app, client, issued, rows):
    verify(client, issued, generate_client_secret())
    app.services.writer.flush()
    assert last_uses(rows) == [None]


def test_uses_are_written_at_most_once_a_minute(app, client, issued, rows):
    def use():
        verify(client, issued)
        app.services.writer.flush()
        return last_uses(rows)

    first = use()
    assert use() == use() == first
    rows.execute("UPDATE client_secrets SET last_used_at = now() - interval '59 s'")
    assert use() == last_uses(rows) == use()
    rows.execute("UPDATE client_secrets SET last_used_at = now() - interval '61 s'")
    before = last_uses(rows)
    assert use() > before


def test_a_use_within_a_minute_of_the_last_is_not_recorded_again(app, issued, verifier):
    class Recorder:
        used = 0

        def record_use(self, *_):
            self.used += 1

    recorder = Recorder()
    watched = replace(verifier, writer=recorder)
    pair = {"client_id": issued.client_id, "client_secret": issued.client_secret}
    watched.verify(**pair)
    verifier.verify(**pair)
    app.services.writer.flush()
    watched.verify(**pair)
    assert recorder.used == 1


def test_two_instances_do_not_both_write_a_use(app_with, issued, rows):
    instances = [app_with(), app_with()]
    for app in instances:
        verify(app.test_client(), issued)
    instances[0].services.writer.flush()
    (first,) = last_uses(rows)
    instances[1].services.writer.flush()
    assert last_uses(rows) == [first] != [None]


def test_a_use_just_before_the_process_stops_is_recorded(settings, issued, rows):
    app = create_app(settings)
    app.services.open()
    verify(app.test_client(), issued)
    app.services.close()
    assert last_uses(rows) != [None]


def test_closing_waits_for_uses_that_are_being_written(settings, issued, database_url, rows):
    app = create_app(settings)
    app.services.open()
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM client_secrets FOR UPDATE")
        verify(app.test_client(), issued)
        before = threading.active_count()
        stopping = pool.submit(app.services.close)
        wait_until(lambda: threading.active_count() == before)  # the pool's, for the writer's
        other.rollback()
        stopping.result()
    assert last_uses(rows) != [None]


def test_without_a_use_nothing_is_written(settings, capfd):
    unreachable = replace(settings, database_url="postgresql://postgres@127.0.0.1:1/x")
    writer = create_app(unreachable).services.writer
    writer.flush()
    assert "not recorded" not in capfd.readouterr().out
    writer.record_use(1, "sec_" + "0" * 20)
    writer.flush()
    writer.flush()
    assert capfd.readouterr().out.count('"uses, refusals and digests not recorded yet"') == 1


def test_a_verification_succeeds_even_if_its_use_cannot_be_written(
    app, client, issued, database_url, rows
):
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM client_secrets FOR UPDATE")
        assert verify(client, issued).status_code == 200
        assert not app.services.writer.flush()
        assert verify(client, issued).status_code == 200


def test_a_use_that_cannot_be_written_is_written_later_with_its_own_time(
    settings, issued, database_url, rows
):
    app = create_app(settings)
    writer = app.services.writer  # without its background thread
    app.services.database.open()
    with closing(app.services.database):
        with psycopg.connect(database_url) as other:
            other.execute("SELECT FROM client_secrets FOR UPDATE")
            verify(app.test_client(), issued)
            (soon,) = rows("SELECT clock_timestamp() + interval '0.3 s' AS at")
            assert not writer.flush()
            assert last_uses(rows) == [None]
            wait_until(lambda: rows("SELECT WHERE clock_timestamp() > %(at)s", **soon))
        assert writer.flush()
    assert last_uses(rows)[0] < soon["at"]


def test_a_use_of_a_deleted_client_secret_does_not_hide_a_later_one(service, issued, rows):
    rows.execute("UPDATE credentials SET ended_secrets_last_used_at = '2100-01-01Z'")
    service.writer.record_use(0, issued.secret_id)
    service.writer.flush()
    (stored,) = rows("SELECT ended_secrets_last_used_at AS at FROM credentials")
    assert stored["at"].year == 2100


def test_uses_that_cannot_be_written_take_a_limited_amount_of_memory(settings):
    writer = create_app(settings).services.writer
    for client_secret_id in range(49_999):
        writer.record_use(client_secret_id, "sec_1")
    for secret_id in ("sec_2", "sec_3"):
        writer.record_use(secret_id, secret_id)
    kept = [writer.seconds_since_use(f"sec_{number}") is not None for number in (1, 2, 3)]
    assert kept == [True, True, False]


# Limits


@pytest.fixture
def limited(app_with):
    return app_with(verify_failure_limit=3).test_client()


def fail(client, credential, times, **changes):
    return [
        verify(client, credential, generate_client_secret(), **changes).status_code
        for _ in range(times)
    ]


def test_failures_beyond_the_limit_are_answered_429(limited, issued):
    assert fail(limited, issued, 5) == [401, 401, 401, 429, 429]
    answer = verify(limited, issued, generate_client_secret())
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert answer.content_type == "application/problem+json"
    assert answer.json["title"] == "Too Many Requests"
    assert answer.headers["X-Request-Id"] == "same"


def guess(client, credential, times, **changes):
    """Fail with client secrets about which only bcrypt can decide."""
    secrets = islice(guesses(credential.client_secret), times)
    return [verify(client, credential, secret, **changes).status_code for secret in secrets]


def test_a_valid_pair_is_never_limited(limited, issued):
    fail(limited, issued, 10)
    assert {verify(limited, issued).status_code for _ in range(10)} == {200}


def test_valid_pairs_are_not_counted(limited, issued):
    assert {verify(limited, issued).status_code for _ in range(10)} == {200}
    assert fail(limited, issued, 3) == [401] * 3


def test_each_client_id_and_each_address_is_counted_separately(limited, issued, service):
    other = service.issue(caller("u"), name="x")
    assert fail(limited, issued, 4)[-1] == 429
    assert fail(limited, other, 3) == [401] * 3
    elsewhere = {"environ_base": {"REMOTE_ADDR": "127.0.0.9"}}
    assert fail(limited, issued, 3, **elsewhere) == [401] * 3


def test_an_ipv6_address_is_counted_with_its_neighbours(limited, issued):
    """A provider gives a customer a /64 at least."""

    def fail_at(address):
        return fail(limited, issued, 1, environ_base={"REMOTE_ADDR": address})[0]

    neighbours = [f"2001:db8:1:2::{number}" for number in range(1, 5)]
    assert [fail_at(address) for address in neighbours] == [401, 401, 401, 429]
    assert fail_at("2001:db8:1:3::1") == 401


def test_malformed_pairs_are_not_counted(limited, issued):
    malformed = [None, "x", "Basic !", *(basic(issued.client_id, "password").values())] * 3
    headers = [{"Authorization": each} if each else {} for each in malformed]
    assert {limited.get("/verify", headers=each).status_code for each in headers} == {401}
    assert fail(limited, issued, 4) == [401, 401, 401, 429]


def test_a_limit_of_0_disables_the_limit(app_with, issued):
    client = app_with(verify_failure_limit=0).test_client()
    assert fail(client, issued, 100) == [401] * 100


def test_the_limit_is_60_a_minute_by_default(app_with, settings, issued, monkeypatch):
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VERIFY_FAILURE_LIMIT")
    default = Settings.from_environment().verify_failure_limit
    client = app_with(verify_failure_limit=default).test_client()
    assert fail(client, issued, 62) == [401] * 60 + [429] * 2


# Logs and addresses


def logged(caplog):
    return [record.fields for record in caplog.records if record.msg == "request"]


def test_a_verification_is_logged_with_its_client_id(client, issued, caplog):
    with caplog.at_level(logging.INFO):
        verify(client, issued)
        verify(client, issued, generate_client_secret())
        client.get("/verify", headers=basic("s3cret", "s3cret"))
    accepted, refused, malformed = logged(caplog)
    assert accepted["client_id"] == refused["client_id"] == issued.client_id
    assert (accepted["actor"], refused["actor"]) == (issued.client_id, None)
    assert malformed["client_id"] is None
    assert [each["outcome"] for each in logged(caplog)] == ["accepted", "wrong", "malformed"]
    assert {each["address"] for each in (accepted, refused, malformed)} == {"127.0.0.1"}


MISTYPED = {
    "cut": lambda secret: secret[:-1],
    "a line break": "{}\n".format,
    "quotes": '"{}"'.format,
    "a space": " {}".format,
    "a byte order mark": "\ufeff{}".format,
    "a zero-width space": "{}\u200b".format,
    "a typo": typo_of,
    "empty": lambda _: "",
    "another kind": lambda _: "password",
}


@pytest.mark.parametrize("mistyped", MISTYPED.values(), ids=list(MISTYPED))
def test_a_mistyped_client_secret_is_logged_with_its_client_id(client, issued, caplog, mistyped):
    wrong = mistyped(issued.client_secret)
    with caplog.at_level(logging.INFO):
        assert client.get("/verify", headers=basic(issued.client_id, wrong)).status_code == 401
    (line,) = logged(caplog)
    assert (line["client_id"], line["outcome"]) == (issued.client_id, "malformed")
    assert issued.client_secret[6:-2] not in caplog.text + str(line)


@pytest.mark.parametrize(
    ("user_id", "is_found"),
    [
        ('"{}', True), (" {}", True), ("{}\n", True), ("\ufeff{}", True), ("client_id={}", True),
        ("{}x", False), ("x{}", False), ("{}lv_cs_x", False),
    ],
)  # fmt: skip
def test_a_client_id_is_logged_without_what_is_around_it(client, issued, caplog, user_id, is_found):
    pair = basic(user_id.format(issued.client_id), issued.client_secret)
    with caplog.at_level(logging.INFO):
        assert client.get("/verify", headers=pair).status_code == 401
    (line,) = logged(caplog)
    assert line["client_id"] == (issued.client_id if is_found else None)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [(0, "1.1.1.1, 2.2.2.2", "127.0.0.1"), (1, "1.1.1.1, 2.2.2.2", "2.2.2.2"),
     (2, "1.1.1.1, 2.2.2.2", "1.1.1.1"), (3, "1.1.1.1, 2.2.2.2", None),
     (1, None, None), (1, "", None)],
)  # fmt: skip
def test_the_client_address_comes_from_trusted_proxies(
    app_with, issued, capfd, proxies, forwarded, address
):
    client = app_with(trusted_proxies=proxies).test_client()
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    client.get("/verify", headers=headers)
    client.get("/secrets", headers=headers)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["address"] for line in lines if line["message"] == "request"] == [address] * 2


def test_senders_behind_a_trusted_proxy_are_counted_separately(app_with, issued):
    client = app_with(trusted_proxies=1, verify_failure_limit=2).test_client()

    def fail_from(address):
        pair = basic(issued.client_id, generate_client_secret())
        return client.get("/verify", headers=pair | {"X-Forwarded-For": address}).status_code

    assert [fail_from("1.1.1.1") for _ in range(3)] == [401, 401, 429]
    assert fail_from("2.2.2.2") == 401
