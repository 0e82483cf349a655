import contextlib
import json
import math
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.bulkheads import Bulkhead
from app.identity import key_sources
from app.identity.key_sources import (
    FETCH_SECONDS,
    WAIT_SECONDS,
    KeyFile,
    KeysUnavailable,
    KeyUrl,
)
from app.identity.keys import InvalidKeys, VerificationKey, parse_jwks, read_key_file
from tests.issuer import ALGORITHMS
from tests.jwks_server import serving_keys
from tests.running_server import HANG_SECONDS, wait_until


@pytest.fixture
def clock():
    """A clock that a test moves, so that no test waits for thirty seconds."""

    class Clock:
        now = 1000.0
        read = 0

        def __call__(self):
            self.read += 1
            return self.now

    return Clock()


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Let a fetch, and callers who wait for it, take as long as a slow machine needs."""
    monkeypatch.setattr(key_sources, "FETCH_SECONDS", 10 * HANG_SECONDS)
    monkeypatch.setattr(key_sources, "WAIT_SECONDS", 10 * HANG_SECONDS)


@pytest.fixture
def impatient_callers(monkeypatch, _patience):
    """Let callers wait as long as in production, so much shorter than a fetch."""
    monkeypatch.setattr(key_sources, "WAIT_SECONDS", WAIT_SECONDS)


@pytest.fixture
def jwks_server(issuer):
    with serving_keys(issuer.jwks("RS256")) as server:
        yield server


@contextmanager
def fetching_from(url, bulkhead=None, **arguments):
    """Run a source as a process does: open it after the fork, and close it at the end."""
    bulkhead = bulkhead or Bulkhead(1, max_wait=0, max_waiting=0)
    source = KeyUrl(url, ALGORITHMS, bulkhead, **arguments)
    source.open()
    yield source
    source.close()


@pytest.fixture
def source(jwks_server, clock):
    with fetching_from(jwks_server.url, clock=clock) as source:
        yield source


def find(source, name="RS256"):
    """Return the only key for the token's header, or None."""
    return only(source.find(key_id=name, algorithm=name))


def only(keys):
    (key,) = keys or [None]
    return key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_may_contain_a_pem_public_key(issuer, tmp_path, algorithm):
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.pem(algorithm))
    (key,) = read_key_file(path, ALGORITHMS)
    assert (key.key_id, key.algorithm) == (None, algorithm)


def test_a_file_may_contain_a_jwks(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.jwks())
    assert [key.key_id for key in read_key_file(path, ALGORITHMS)] == list(ALGORITHMS)


NOT_A_JWKS = "^does not contain a JWKS$"
NOT_A_PEM_KEY = "^does not contain a PEM public key$"
NOT_USABLE = "^contains no key usable with JWT_ALGORITHMS$"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((content, NOT_A_JWKS) for content in (b"", b"x", b"{}", b'{"keys": 5}', b"[]")),
        *((content, NOT_A_JWKS) for content in (b"\xff\xfe", b"[" * 100_000)),
        (b'{"keys": []}', NOT_USABLE),
        (b'{"keys": [5, {"kty": "oct"}]}', NOT_USABLE),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", NOT_A_PEM_KEY),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_a_file_without_a_valid_key_is_rejected(tmp_path, content, reason):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InvalidKeys, match=reason):
        read_key_file(path, ALGORITHMS)


def test_a_private_key_is_rejected(issuer, tmp_path):
    private = issuer.keys["ES256"]
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwk = ECAlgorithm.to_jwk(private, as_dict=True)
    for content in (pem, json.dumps({"keys": [jwk]}).encode()):
        path = tmp_path / "private"
        path.write_bytes(content)
        with pytest.raises(InvalidKeys, match=r"^contains a private key$"):
            read_key_file(path, ALGORITHMS)


def test_a_key_for_another_purpose_is_rejected(tmp_path):
    path = tmp_path / "key.pem"
    public_key = x25519.X25519PrivateKey.generate().public_key()
    path.write_bytes(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InvalidKeys, match=NOT_USABLE):
        read_key_file(path, ALGORITHMS)


def jwks_of(*entries):
    return json.dumps({"keys": entries}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"n": "!"},
        {"n": 5},
        {"kty": 5},
        {"key_ops": 5},
        {"alg": []},
    ],
)
def test_a_jwks_entry_for_another_use_is_ignored(issuer, change):
    valid, other = issuer.jwk("ES256"), issuer.jwk("RS256") | change
    assert [key.key_id for key in parse_jwks(jwks_of(other, valid), ALGORITHMS)] == ["ES256"]


MEMBERS = ["alg", "use", "key_ops", "kid", "d", "x5c", "x5t", "x5u", "k", "p", "oth"]


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_member_of_a_jwk_without_a_value_counts_as_missing(issuer, algorithm, member, value):
    entry = issuer.jwk(algorithm)
    entry.pop("key_ops", None)
    expected = parse_jwks(jwks_of({**entry, "kid": None} if member == "kid" else entry), ALGORITHMS)
    assert parse_jwks(jwks_of({**entry, member: value}, entry), ALGORITHMS)[0] == expected[0]


def test_a_jwks_may_have_every_unset_member_and_odd_entries(issuer):
    """.NET writes all members of its class, with empty lists too."""
    unset = dict.fromkeys(["alg", "crv", "d", "dp", "dq", "k", "p", "q", "qi", "use", "x", "y"])
    entry = unset | {"key_ops": [], "oth": None, "x5c": []} | issuer.jwk("RS256")
    odd = [None, 5, [], {}, "x", {"kty": None}, {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}]
    odd += [{"kty": "OKP", "crv": "X25519", "x": "AA"}, {"kty": "RSA", "alg": "none"}]
    odd += [{"kty": "OKP", "crv": curve, "x": "AA"} for curve in ("none", None, [], "HS256")]
    (key,) = parse_jwks(jwks_of(*odd, entry | {"key_ops": []}), ALGORITHMS)
    assert key.key_id == "RS256"


@pytest.mark.parametrize("value", ["AA", 0, [], {}, False])
def test_one_private_key_makes_the_whole_jwks_invalid(issuer, value):
    with pytest.raises(InvalidKeys, match=r"^contains a private key$"):
        parse_jwks(jwks_of(issuer.jwk("RS256"), issuer.jwk("ES256") | {"d": value}), ALGORITHMS)


ED25519, ED448 = ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()


@pytest.mark.parametrize("private", [ED25519, ED448])
@pytest.mark.parametrize("stated", [None, "EdDSA", "curve"])
@pytest.mark.parametrize("allowed", ["EdDSA", "curve"])
def test_a_key_of_eddsa_may_state_its_curve_as_its_algorithm(private, stated, allowed):
    entry = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    curve = entry["crv"]
    (key,) = parse_jwks(
        jwks_of(entry | {"alg": curve if stated == "curve" else stated}),
        [curve if allowed == "curve" else allowed],
    )
    assert key.verifies(curve)
    assert key.verifies("EdDSA") == (allowed == "EdDSA")
    assert not key.verifies("Ed448" if curve == "Ed25519" else "Ed25519")


@pytest.mark.parametrize(
    ("private", "other"), [(ED25519, "Ed448"), (ED448, "Ed25519"), (ED25519, "ES256")]
)
def test_a_key_on_one_curve_is_not_usable_for_another(private, other):
    entry = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    for stated in (None, "EdDSA", other):
        with pytest.raises(InvalidKeys, match=NOT_USABLE):
            parse_jwks(jwks_of(entry | {"alg": stated}), [other])


def test_a_key_that_is_too_short_is_ignored(issuer):
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    entry = {"kid": "short"} | RSAAlgorithm.to_jwk(short, as_dict=True)
    with pytest.raises(InvalidKeys):
        parse_jwks(jwks_of(entry), ALGORITHMS)


def test_a_key_on_another_curve_is_ignored():
    public_key = ec.generate_private_key(ec.SECP384R1()).public_key()
    entry = {"kid": "p384"} | ECAlgorithm.to_jwk(public_key, as_dict=True)
    with pytest.raises(InvalidKeys):
        parse_jwks(jwks_of(entry), ALGORITHMS)


def test_an_rsa_key_works_for_every_allowed_rsa_algorithm(issuer):
    found = parse_jwks(issuer.jwks("RS256"), ("RS256", "PS256", "ES256"))
    assert [key.algorithm for key in found] == ["RS256", "PS256"]


def test_an_hmac_secret_in_a_jwks_is_ignored(issuer):
    secret = {"kty": "oct", "kid": "hmac", "k": "AAAA"}
    found = parse_jwks(jwks_of(secret, issuer.jwk("ES256")), ALGORITHMS)
    assert [key.key_id for key in found] == ["ES256"]


def test_a_key_with_a_matching_key_id_is_preferred_to_one_without(issuer, tmp_path):
    nameless = {name: value for name, value in issuer.jwk("RS256").items() if name != "kid"}
    other = RSAAlgorithm.to_jwk(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(), as_dict=True
    )
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks_of(nameless, other | {"kid": "a"}))
    source = KeyFile(path, ALGORITHMS)
    assert only(source.find(key_id="a", algorithm="RS256")).key_id == "a"
    assert only(source.find(key_id="b", algorithm="RS256")).key_id is None


@pytest.mark.parametrize("key_id", [5, None, ["RS256"], {}])
def test_a_key_id_that_is_not_text_counts_as_none(issuer, key_id):
    (key,) = parse_jwks(jwks_of(issuer.jwk("ES256") | {"kid": key_id}), ALGORITHMS)
    assert key.key_id is None


def test_a_key_that_is_listed_twice_counts_once(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks_of(issuer.jwk("ES256"), issuer.jwk("ES256")))
    assert KeyFile(path, ALGORITHMS).find(key_id="ES256", algorithm="ES256")


@pytest.mark.parametrize("key_id", [None, "ES256"])
def test_a_token_can_refer_to_every_key_with_its_key_id_and_without_one_to_all(
    issuer, tmp_path, key_id
):
    path = tmp_path / "jwks.json"
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    path.write_bytes(
        jwks_of(issuer.jwk("ES256"), {"kid": key_id} | ECAlgorithm.to_jwk(other, as_dict=True))
    )
    assert len(KeyFile(path, ALGORITHMS).find(key_id=key_id, algorithm="ES256")) == 2


def test_the_url_is_fetched_once_for_many_tokens(source, jwks_server):
    assert all(find(source) for _ in range(5))
    assert jwks_server.requests == 1


def test_the_url_is_not_fetched_again_within_five_minutes(source, jwks_server, clock):
    find(source)
    clock.now += 300
    read = clock.read
    find(source)
    wait_until(lambda: clock.read >= read + 3)  # the thread has woken up, a second later
    assert jwks_server.requests == 1
    assert clock.read < read + 50  # it does not run all the time


def test_an_unknown_key_id_causes_another_fetch(source, jwks_server, issuer, clock):
    find(source)
    jwks_server.body = issuer.jwks("RS256", "ES256")
    clock.now += 31
    assert find(source, "ES256").key_id == "ES256"
    assert jwks_server.requests == 2


def answers_of_a_flood(source):
    """Ask for twenty invented key IDs. Return which of them the issuer certainly does not have."""
    answers = []
    for number in range(20):
        try:
            answers.append(find(source, f"invented {number}"))
        except KeysUnavailable:
            answers.append("unavailable")
    return answers


def test_invented_key_ids_cause_at_most_five_fetches_at_once_and_one_in_30_seconds(
    source, jwks_server, clock
):
    find(source)
    assert answers_of_a_flood(source) == [None] * 4 + ["unavailable"] * 16
    assert jwks_server.requests == 5
    for fetches in range(6, 16):
        clock.now += 29
        assert answers_of_a_flood(source) == ["unavailable"] * 20
        clock.now += 1.001
        assert answers_of_a_flood(source) == [None] + ["unavailable"] * 19
        assert jwks_server.requests == fetches


def test_a_new_key_is_found_at_once_while_somebody_invents_a_few_key_ids(
    source, jwks_server, issuer
):
    for number in range(2):
        assert find(source, f"invented {number}") is None
    jwks_server.body = issuer.jwks("ES256")
    assert find(source, "ES256").key_id == "ES256"


def test_a_new_key_is_never_unknown_while_somebody_floods(source, jwks_server, issuer, clock):
    answers_of_a_flood(source)
    jwks_server.body = issuer.jwks("ES256")
    for waited in range(1, 31):
        with pytest.raises(KeysUnavailable) as error:
            find(source, "ES256")
        assert waited + error.value.retry_after == 32  # a moment after the pause
        answers_of_a_flood(source)
        clock.now += 1
    clock.now += 1
    answers_of_a_flood(source)
    assert find(source, "ES256").key_id == "ES256"


def test_an_answer_that_was_asked_for_earlier_does_not_prove_that_a_key_is_unknown(
    jwks_server, issuer
):
    bulkhead = Bulkhead(2, max_wait=0, max_waiting=0)
    with fetching_from(jwks_server.url, bulkhead) as source, ThreadPoolExecutor(2) as pool:
        find(source)
        jwks_server.may_answer.clear()
        pool.submit(find, source, "invented")
        wait_until(lambda: jwks_server.requests == 2)  # it will get the keys as they were
        jwks_server.body = issuer.jwks("ES256")
        finding = pool.submit(find, source, "ES256")
        wait_until(lambda: bulkhead.in_use == 2)
        jwks_server.may_answer.set()
        assert finding.result(HANG_SECONDS).key_id == "ES256"


def test_the_url_is_fetched_again_every_30_seconds_after_a_failure(
    source, jwks_server, clock, caplog
):
    caplog.set_level("INFO", "app.identity.key_sources")
    find(source)
    jwks_server.status = 500
    clock.now += 31
    with pytest.raises(KeysUnavailable):
        find(source, "ES256")
    clock.now += 31
    wait_until(lambda: jwks_server.requests == 3)  # nobody has asked
    jwks_server.status = 200
    clock.now += 31
    wait_until(lambda: caplog.messages[-1] == "JWKS fetched again")
    failure = "JWKS not fetched: OSError HTTP 500"
    assert caplog.messages == [failure, failure, "JWKS fetched again"]


def test_the_keys_have_no_age_until_they_have_been_fetched(source, jwks_server, clock):
    with fetching_from("http://127.0.0.1:1/x") as never, pytest.raises(KeysUnavailable):
        find(never)
    assert never.fetches().age == math.inf
    find(source)
    clock.now += 7
    assert source.fetches().age == 7


@pytest.mark.parametrize("served", ["application/jwk-set+json", "application/json", "text/plain"])
def test_a_provider_may_insist_on_the_type_that_it_serves(issuer, served):
    with serving_keys(issuer.jwks("RS256")) as server:
        server.content_type = served
        with fetching_from(server.url) as source:
            assert find(source)


def test_a_key_that_the_url_no_longer_lists_is_forgotten_within_five_minutes(
    source, jwks_server, issuer, clock
):
    find(source)
    jwks_server.body = issuer.jwks("ES256")
    clock.now += 301
    wait_until(lambda: find(source) is None)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (404, b"{}"), (200, b"<html>"), (200, b'{"keys": []}'), (200, b"x" * 2_000_000)],
)
def test_cached_keys_stay_in_use_while_the_url_fails(source, jwks_server, clock, status, body):
    find(source)
    jwks_server.status, jwks_server.body = status, body
    clock.now += 301
    wait_until(lambda: jwks_server.requests == 2)
    assert find(source).key_id == "RS256"


def test_a_failed_fetch_is_not_repeated_within_30_seconds(source, jwks_server, clock, caplog):
    jwks_server.status = 500
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            find(source)
    assert jwks_server.requests == 1
    assert "JWKS not fetched: OSError HTTP 500" in caplog.messages
    jwks_server.status = 200
    clock.now += 31
    assert find(source).key_id == "RS256"


def test_an_unknown_key_is_unavailable_while_the_url_fails(source, jwks_server, clock):
    find(source)
    jwks_server.status = 500
    clock.now += 31
    with pytest.raises(KeysUnavailable):
        find(source, "ES256")


def test_keys_are_unavailable_if_the_connection_is_refused():
    with fetching_from("http://127.0.0.1:1/x") as source, pytest.raises(KeysUnavailable):
        find(source)


def unavailable_to(source):
    """Ask for a key in a thread of its own, and return whether it was unavailable."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(find, source).exception(HANG_SECONDS)
    return isinstance(error, KeysUnavailable)


def test_a_caller_does_not_wait_for_the_end_of_a_fetch_without_an_answer(
    jwks_server, impatient_callers
):
    jwks_server.may_answer.clear()
    with fetching_from(jwks_server.url) as source:
        assert unavailable_to(source)
        jwks_server.may_answer.set()


def test_a_caller_waits_no_longer_than_the_fetch_takes(jwks_server):
    jwks_server.may_answer.clear()
    with fetching_from(jwks_server.url) as source, ThreadPoolExecutor(1) as pool:
        finding = pool.submit(find, source)
        wait_until(lambda: jwks_server.requests == 1)
        jwks_server.may_answer.set()
        assert finding.result(HANG_SECONDS)


@contextmanager
def raw_server(*pieces):
    """Run a server that answers every connection with these bytes, one piece after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        for piece in pieces:
                            connection.sendall(piece)
                            stopped.wait(0.2)

        stopped = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def dripping_server():
    """Run a server whose answers do not end while a test runs."""
    return raw_server(b"HTTP/1.1 200 OK\r\n", *[b"X"] * 10_000)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b"HTTP/1.1 999\r\n\r\n"],
    ids=lambda answer: ascii(answer[:20]),
)  # fmt: skip
def test_keys_are_unavailable_if_the_answer_is_malformed_http(answer):
    with (
        raw_server(answer) as url,
        fetching_from(url) as source,
        pytest.raises(KeysUnavailable),
    ):
        find(source)


def test_a_caller_does_not_wait_for_the_end_of_a_dripping_answer(impatient_callers):
    with dripping_server() as url, fetching_from(url) as source:
        assert unavailable_to(source)


def test_a_redirect_is_not_followed(issuer):
    with serving_keys(issuer.jwks()) as elsewhere:
        redirect = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
        with (
            raw_server(redirect.encode()) as url,
            fetching_from(url) as source,
            pytest.raises(KeysUnavailable),
        ):
            find(source)
        assert elsewhere.requests == 0


def test_a_cached_key_never_waits_for_a_fetch(source, jwks_server, clock):
    find(source)
    clock.now += 301
    jwks_server.may_answer.clear()
    wait_until(lambda: jwks_server.requests == 2)  # and it does not answer
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(find, source).result(HANG_SECONDS).key_id == "RS256"
        jwks_server.may_answer.set()


def test_the_keys_are_fetched_before_the_first_caller_asks(source, jwks_server):
    wait_until(lambda: jwks_server.requests == 1)


def test_only_one_caller_waits_for_a_key_that_is_not_cached(jwks_server):
    jwks_server.may_answer.clear()
    with fetching_from(jwks_server.url) as source, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(find, source) for _ in range(4)]
        wait_until(lambda: sum(call.done() for call in calls) == 3)
        jwks_server.may_answer.set()
        outcomes = [call.exception() or call.result() for call in calls]
    assert sum(isinstance(each, KeysUnavailable) for each in outcomes) == 3
    assert sum(isinstance(each, VerificationKey) for each in outcomes) == 1
    assert jwks_server.requests == 1


def test_a_key_is_unavailable_if_others_wait_for_the_next_fetch(jwks_server, clock):
    """This holds even though the last fetch succeeded: the next one may find the key."""
    bulkhead = Bulkhead(1, max_wait=0, max_waiting=0)
    with fetching_from(jwks_server.url, bulkhead, clock=clock) as source:
        find(source)
        clock.now += 31
        with bulkhead, pytest.raises(KeysUnavailable):
            find(source, "unknown")


def test_a_process_does_not_wait_for_the_thread_that_fetches():
    before = set(threading.enumerate())
    with fetching_from("http://127.0.0.1:1/x") as source:
        threads = set(threading.enumerate()) - before
        with pytest.raises(KeysUnavailable):
            find(source)
    assert all(thread.daemon for thread in threads)
    for thread in threads:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()


@pytest.mark.parametrize("size", [2**20, 2**20 + 1])
def test_the_url_may_answer_with_one_mebibyte(jwks_server, caplog, size):
    jwks_server.body = jwks_server.body.ljust(size)
    with fetching_from(jwks_server.url) as source:
        if size > 2**20:
            with pytest.raises(KeysUnavailable):
                find(source)
            assert "JWKS not fetched: OSError the answer is too large" in caplog.messages
        else:
            assert find(source)


def test_an_abandoned_fetch_closes_its_connection(monkeypatch):
    monkeypatch.setattr(key_sources, "FETCH_SECONDS", FETCH_SECONDS)
    with dripping_server() as url, fetching_from(url):
        port = int(url.split(":")[2].split("/")[0])
        wait_until(lambda: connections_to(port))
        wait_until(lambda: not connections_to(port))


def connections_to(port):
    connections = psutil.Process().net_connections("tcp")
    return [
        each
        for each in connections
        if each.raddr and each.raddr.port == port and each.status == "ESTABLISHED"
    ]


def test_a_new_key_file_is_read_when_a_process_starts(issuer, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.pem("ES256"))
    source = KeyFile(path, ALGORITHMS)
    path.write_bytes(issuer.pem("EdDSA"))
    source.open()
    assert source.find(key_id=None, algorithm="EdDSA")
    assert not source.find(key_id=None, algorithm="ES256")


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_key_file_that_became_invalid_changes_nothing(issuer, tmp_path, caplog, content):
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.pem("ES256"))
    source = KeyFile(path, ALGORITHMS)
    path.unlink() if content is None else path.write_bytes(content)
    source.open()
    assert source.find(key_id=None, algorithm="ES256")
    (warning,) = caplog.messages
    assert warning.startswith("the key file is invalid, so its previous keys stay in use: ")
