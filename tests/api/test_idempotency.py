"""Requests that are repeated with an Idempotency-Key."""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime

import psycopg
import pytest

from app import create_app
from app.credentials.errors import IdempotencyKeyReused, RequestInProgress, ResponseErased
from app.credentials.idempotency import IdempotentRequest, ResponseCipher
from app.credentials.model import ReplayedCredential, StoredResponse
from tests.conftest import client_of
from tests.helpers import DIGEST_KEY, basic, caller, time_in
from tests.running_server import wait_until

KEY = "f3b1c2d4-0000-4000-8000-123456789abc"
EXPIRES_AT = time_in(days=30)


@pytest.fixture
def post(member):
    def post(path="/secrets", key=KEY, client=member, **body):
        if path == "/secrets":
            body = {"name": "CRM", **body}
        return client.post(path, json=body, headers={"Idempotency-Key": key})

    return post


@pytest.fixture
def rotate_path(issued):
    return f"/secrets/{issued.secret_id}/rotate"


@pytest.fixture
def store_earlier(rows):
    """Return a function that makes all answers older."""

    def store_earlier(interval):
        for table in ("sealed_answers", "answered_requests"):
            rows.execute(f"UPDATE {table} SET created_at = created_at - interval '{interval}'")

    return store_earlier


@pytest.fixture
def use(app, client):
    """Return a function that verifies the pair of an answer, and waits until that is recorded."""

    def use(answer):
        pair = basic(answer.json["client_id"], answer.json["client_secret"])
        assert client.get("/verify", headers=pair).status_code == 200
        app.services.writer.flush()

    return use


def test_the_same_issue_again_gives_the_same_answer_and_changes_nothing(post, rows):
    first, again = post(), post()
    assert first.status_code == again.status_code == 200
    assert first.data == again.data
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert rows.count("credentials") == rows.count("credential_events") == 1


def test_the_same_rotation_again_ends_nothing(post, rotate_path, rows, client, issued):
    first = post(rotate_path, overlap_seconds=0)
    again = post(rotate_path, overlap_seconds=0)
    assert first.data == again.data
    assert again.headers["Idempotency-Replayed"] == "true"
    assert rows.count("client_secrets") == 1
    pair = basic(issued.client_id, first.json["client_secret"])
    assert client.get("/verify", headers=pair).status_code == 200


def test_the_answer_stays_the_same_after_an_update(post, member):
    first = post()
    path = f"/secrets/{first.json['secret_id']}"
    member.put(path, json={"trust_upstream_consent": True, "name": "renamed"})
    assert post().data == first.data


def test_without_a_key_each_request_makes_a_credential(member, rows):
    member.post("/secrets", json={"name": "x"})
    member.post("/secrets", json={"name": "x"})
    assert rows.count("credentials") == 2
    assert rows.count("sealed_answers") == 0


def test_another_key_makes_another_credential(post, rows):
    post()
    post(key="another key".replace(" ", "-") + "-0123456789")
    assert rows.count("credentials") == 2


def test_the_same_content_may_be_written_differently(member, post):
    first = post(expires_at=EXPIRES_AT)
    again = member.post(
        "/secrets",
        data=f' {{"expires_at":"{EXPIRES_AT}" , "name":" CRM "}}',
        content_type="application/json",
        headers={"Idempotency-Key": KEY},
    )
    assert again.data == first.data


def test_a_rotation_without_a_body_has_the_default_overlap(member, post, rotate_path):
    first = member.post(rotate_path, headers={"Idempotency-Key": KEY})
    assert post(rotate_path, overlap_seconds=86400).data == first.data


@pytest.mark.parametrize(
    "body", [{"name": "other"}, {"expires_at": EXPIRES_AT}], ids=["name", "expires_at"]
)
def test_the_key_of_a_different_request_is_rejected(post, rows, body):
    post()
    answer = post(**body)
    assert (answer.status_code, answer.json["detail"]) == (
        422,
        "This Idempotency-Key belongs to a different request",
    )
    assert rows.count("credentials") == 1


def test_the_key_of_an_issue_does_not_rotate(post, rotate_path, rows):
    post()
    assert post(rotate_path).status_code == 422
    assert rows.count("client_secrets") == 2


@pytest.mark.parametrize("who", [{"sub": "bob"}, {"unit_id": "unit_other"}])
def test_a_key_belongs_to_its_caller(app, issuer, post, rows, who):
    first = post()
    other = post(client=client_of(app, issuer.sign(**who)))
    assert other.status_code == 200
    assert other.json["secret_id"] != first.json["secret_id"]
    assert rows.count("credentials") == 2


@pytest.mark.parametrize(
    "key",
    ["", "x" * 15, "x" * 129, "with a space in it", "täglich-einmal-nicht", "tab\tin-the-middle"],
)
def test_an_invalid_key_is_rejected(post, rows, key):
    answer = post(key=key)
    assert (answer.status_code, answer.json["detail"]) == (
        400,
        "Idempotency-Key must be 16-128 visible ASCII characters",
    )
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("key", ["x" * 16, "~" * 128, '"quoted-0123456789"'])
def test_a_valid_key_is_accepted(post, key):
    assert post(key=key).status_code == 200


def test_a_request_that_failed_may_be_repeated(post, app_with, issuer, rows):
    full = client_of(app_with(max_credentials_per_unit=1), issuer.sign())
    first = post(client=full, key="a" * 16)
    assert post(client=full).status_code == 409
    full.delete(f"/secrets/{first.json['secret_id']}")
    assert post(client=full).status_code == 200


def test_an_answer_is_kept_for_a_day(app, post, store_earlier):
    first = post()
    store_earlier("23:59:00")
    app.services.writer.clean_up()
    assert post().data == first.data


def test_an_answer_does_not_outlive_a_day(post, store_earlier):
    first = post()
    store_earlier("24 hours")
    again = post()
    assert "Idempotency-Replayed" not in again.headers
    assert again.json["secret_id"] != first.json["secret_id"]
    assert post().data == again.data


def test_old_answers_are_erased(app, post, rows, store_earlier):
    post(key="a" * 16)
    store_earlier("24 hours")
    post(key="b" * 16)
    app.services.writer.clean_up()
    assert rows.count("sealed_answers") == rows.count("answered_requests") == 1


def test_a_process_erases_old_answers_in_the_background(app_with, post, rows, store_earlier):
    post()
    store_earlier("24 hours")
    app_with()
    wait_until(lambda: rows.count("sealed_answers") == 0)


def test_answers_that_cannot_be_erased_are_logged(settings, capfd):
    unreachable = replace(settings, database_url="postgresql://postgres@127.0.0.1:1/x")
    create_app(unreachable).services.writer.clean_up()
    assert '"old responses and expired client secrets not deleted"' in capfd.readouterr().out


def test_an_answer_is_erased_once_its_secret_was_verified(app, post, rows, client):
    issued = post().json
    post(key="another-key-0123")
    pair = basic(issued["client_id"], issued["client_secret"])
    assert client.get("/verify", headers=pair).status_code == 200
    wait_until(lambda: rows.count("sealed_answers") == 1)


def test_an_answer_is_erased_with_its_credential(post, member, rows):
    member.delete(f"/secrets/{post().json['secret_id']}")
    assert rows.count("sealed_answers") == 0


def is_erased(answer):
    assert answer.status_code == 409
    assert answer.json["type"] == "/docs/errors#answer-erased"
    assert answer.json["detail"] == (
        "This request was carried out before, and its response is no longer kept"
    )
    return "Retry-After" not in answer.headers


def test_a_rotation_that_is_repeated_after_its_secret_was_used_changes_nothing(
    post, rotate_path, use, rows
):
    first = post(rotate_path, overlap_seconds=0)
    use(first)
    assert is_erased(post(rotate_path, overlap_seconds=0))
    use(first)
    assert rows.count("client_secrets") == 1


def test_an_issue_that_is_repeated_after_its_credential_was_revoked_changes_nothing(
    post, member, rows
):
    member.delete(f"/secrets/{post().json['secret_id']}")
    assert is_erased(post())
    assert rows.count("credentials") == 0


def test_an_issue_that_is_repeated_after_its_secret_has_ended_changes_nothing(post, member, rows):
    path = f"/secrets/{post().json['secret_id']}"
    member.post(f"{path}/rotate", json={"overlap_seconds": 0})
    assert rows.count("sealed_answers") == 0
    assert is_erased(post())
    assert rows.count("credentials") == rows.count("client_secrets") == 1


def test_a_different_request_is_rejected_after_the_answer_was_erased_too(post, use, rows):
    use(post())
    assert post(name="other").status_code == 422
    assert rows.count("credentials") == 1


def test_a_request_whose_answer_was_erased_is_remembered_for_a_day(
    app, post, use, rows, store_earlier
):
    use(post())
    store_earlier("23:59:00")
    app.services.writer.clean_up()
    assert is_erased(post())
    store_earlier("00:01:00")
    again = post(name="other")
    assert rows.count("credentials") == 2
    assert post(name="other").data == again.data
    use(again)
    assert is_erased(post(name="other"))


def test_an_erased_answer_is_recognised_with_the_previous_digest_key(
    app_with, issuer, post, member
):
    old, new = b"o" * 32, b"n" * 32
    first = post(client=client_of(app_with(digest_keys=(old,)), issuer.sign()))
    member.delete(f"/secrets/{first.json['secret_id']}")
    after = client_of(app_with(digest_keys=(new, old)), issuer.sign())
    assert is_erased(post(client=after))


def test_an_erased_answer_does_not_count_against_the_limit(app_with, issuer, post, member):
    limited = client_of(app_with(issue_limit=2), issuer.sign())
    member.delete(f"/secrets/{post(client=limited).json['secret_id']}")
    assert all(is_erased(post(client=limited)) for _ in range(3))
    assert post(client=limited, key="another-key-0123").status_code == 200


def test_an_answer_that_the_previous_version_stored_is_repeated(post, rows):
    """It stores no fingerprint. Both versions run during a deployment."""
    first = post()
    rows.execute("DELETE FROM answered_requests")
    assert post().data == first.data
    assert post(name="other").status_code == 422


def test_a_repeated_request_does_not_count_against_the_limit(app_with, issuer, post):
    limited = client_of(app_with(issue_limit=1), issuer.sign())
    first = post(client=limited)
    assert [post(client=limited).data for _ in range(3)] == [first.data] * 3
    assert post(client=limited, key="another-key-0123").status_code == 429


def test_responses_encrypted_with_the_previous_digest_key_can_still_be_decrypted(
    app_with, issuer, post
):
    old, new = b"o" * 32, b"n" * 32
    first = post(client=client_of(app_with(digest_keys=(old,)), issuer.sign()))
    after = client_of(app_with(digest_keys=(new, old)), issuer.sign())
    assert post(client=after).data == first.data


def test_of_many_requests_at_once_only_one_makes_a_change(app_with, issuer, rows):
    app = app_with()
    token = issuer.sign()

    def request(_):
        return client_of(app, token).post(
            "/secrets", json={"name": "CRM"}, headers={"Idempotency-Key": KEY}
        )

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(request, range(12)))
    assert rows.count("credentials") == 1
    worked = [each for each in answers if each.status_code == 200]
    assert len({each.data for each in worked}) == 1
    assert sum("Idempotency-Replayed" not in each.headers for each in worked) == 1
    for each in answers:
        assert each.status_code in (200, 409, 503)
        if each.status_code != 200:
            assert each.headers["Retry-After"] == "1"


@pytest.mark.parametrize("verb", ["issue", "rotate"])
def test_a_request_that_is_under_way_is_409(post, rotate_path, database_url, rows, verb):
    """The first request's transaction is held open by another session."""
    path = {"issue": "/secrets", "rotate": rotate_path}[verb]
    request = IdempotentRequest(KEY, caller(), verb, {})
    with psycopg.connect(database_url) as first:
        first.execute("SELECT pg_advisory_xact_lock(%s)", [request.lock_id])
        answer = post(path)
        assert (answer.status_code, answer.json["detail"]) == (
            409,
            "A request with this Idempotency-Key is under way",
        )
        assert answer.headers["Retry-After"] == "1"
        assert rows.count("client_secrets") == 1
    assert post(path).status_code == 200


def test_a_request_whose_response_appeared_after_it_looked_is_in_progress(service, rows):
    """It finds no answer; then the other request ends, and only then it gets the lock."""
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM"})
    service.issue(caller(), name="CRM", idempotency_key=KEY)
    for _ in range(2):  # also if its response has been erased
        with service.database.transaction(5) as connection, pytest.raises(RequestInProgress):
            service.idempotency.begin(connection, request)
        rows.execute("DELETE FROM sealed_answers")


def test_the_lock_of_a_request_is_a_bigint():
    requests = [IdempotentRequest(str(number), caller(), "issue", {}) for number in range(64)]
    locks = {each.lock_id for each in requests}
    assert len(locks) == 64
    assert all(-(2**63) <= each < 2**63 for each in locks)


def test_the_order_of_the_arguments_does_not_matter():
    one = IdempotentRequest(KEY, caller(), "rotate", {"overlap_seconds": 0, "expires_at": None})
    other = IdempotentRequest(KEY, caller(), "rotate", {"expires_at": None, "overlap_seconds": 0})
    assert one.content == other.content


# What is stored


def test_no_column_of_the_database_shows_a_secret_or_a_key(post, rotate_path, rows):
    secrets = [
        post(key=KEY).json["client_secret"],
        post(rotate_path, key="k" * 40).json["client_secret"],
    ]
    tables = rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {"sealed_answers", "client_secrets"} <= {each["tablename"] for each in tables}
    stored = ""
    for each in tables:
        for row in rows(f"SELECT * FROM {each['tablename']}"):
            for value in row.values():
                stored += value.decode("latin-1") if isinstance(value, bytes) else str(value)
    for plain in [*secrets, KEY, "k" * 40]:
        assert plain not in stored


def test_a_response_cannot_be_decrypted_without_both_keys(service, issued):
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM"})
    stored = ResponseCipher([DIGEST_KEY]).encrypt(request, issued)
    assert asdict(ResponseCipher([DIGEST_KEY]).decrypt(request, stored)) == asdict(issued)
    assert issued.client_secret.encode() not in stored.encrypted
    others = [
        (ResponseCipher([b"x" * 32]), request),
        (ResponseCipher([DIGEST_KEY]), replace(request, idempotency_key=KEY + "x")),
        (ResponseCipher([DIGEST_KEY]), replace(request, caller=caller(actor="bob"))),
    ]
    for cipher, other in others:
        (key_hash,) = cipher.key_hashes(other)
        assert key_hash != stored.key_hash
        with pytest.raises(IdempotencyKeyReused):
            cipher.decrypt(other, replace(stored, key_hash=key_hash))


def test_a_stored_response_that_was_tampered_with_is_not_decrypted(service, issued):
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM"})
    cipher = ResponseCipher([DIGEST_KEY])
    stored = cipher.encrypt(request, issued)
    last = stored.encrypted[-1] ^ 1
    tampered = replace(stored, encrypted=stored.encrypted[:-1] + bytes([last]))
    with pytest.raises(IdempotencyKeyReused):
        cipher.decrypt(request, tampered)


def test_encrypting_the_same_response_twice_gives_different_bytes(issued):
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM"})
    cipher = ResponseCipher([DIGEST_KEY])
    assert cipher.encrypt(request, issued).encrypted != cipher.encrypt(request, issued).encrypted


def test_a_fingerprint_reveals_no_request_without_both_keys(issued):
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM"})
    requests = [
        (DIGEST_KEY, request),
        (b"x" * 32, request),
        (DIGEST_KEY, replace(request, idempotency_key=KEY + "x")),
        (DIGEST_KEY, replace(request, caller=caller(actor="bob"))),
        (DIGEST_KEY, replace(request, arguments={"name": "other"})),
    ]
    fingerprints = {
        ResponseCipher([key]).encrypt(each, issued).fingerprint for key, each in requests
    }
    assert len(fingerprints) == len(requests)


STORED_RESPONSE = StoredResponse(
    b64decode("3oV71weFMNlfHTr1b0lHtaxosHfLZV+IUDHgU0te+TE="),
    b64decode("T1cEqMkr9AjFTgdY9v9aJDFBUxDSXRId70lxUZEYrtY="),
    b64decode(
        "xHCmDYbcYfIIlb8/i8Sh+PTWhbWk3pdAkpCgh5+gMVMupSGvC3HsqSNtMCym9VIVKDaNRwGoJzhmvdXV+iC9FUav"
        "s/+lbY32Axjl2QNpHdGfVimcEceLKmVHX7VGyaYQxGGm+redi6J45huv3jj+gJRxh86uVO0w/iMtc77NeFBb/lrA"
        "mDOg7AkpimWKlY/luo0jmrzmYjHo38DN3g5Qv7YhXSaVaK3XhMDeqWasoP8ENC+lLmVUCICdVo4wrPMR5iD+EpGr"
        "t+1yffl2pf8h2g4Oi6tmef9TtA=="
    ),
)


def test_a_response_that_another_version_stored_is_decrypted():
    """During a deployment, both versions run. To change the format takes two steps."""
    cipher = ResponseCipher([DIGEST_KEY])
    request = IdempotentRequest(KEY, caller(), "issue", {"name": "CRM", "expires_at": None})
    assert cipher.key_hashes(request) == [STORED_RESPONSE.key_hash]
    assert cipher.decrypt(request, STORED_RESPONSE) == ReplayedCredential(
        secret_id="sec_1",
        unit_id="unit_demo",
        client_id="lv_ci_1",
        name="CRM",
        trust_upstream_consent=False,
        created_at=datetime(2025, 6, 1, tzinfo=UTC),
        client_secret="lv_cs_1",
    )
    with pytest.raises(ResponseErased):
        cipher.decrypt(request, replace(STORED_RESPONSE, encrypted=None))
