import hashlib
import hmac
import os
import sys
import threading

import bcrypt
import pytest

from tests.helpers import hasher_with

KEY = b"k" * 32
SECRET = "lv_cs_" + "a" * 49


@pytest.fixture
def hasher():
    return hasher_with(KEY)


def test_the_hash_is_bcrypt_at_the_given_cost(hasher):
    secret_hash = hasher.hash(SECRET).secret_hash
    assert secret_hash.startswith("$2b$10$")
    assert bcrypt.checkpw(SECRET.encode(), secret_hash.encode())


def test_two_hashes_of_one_secret_differ(hasher):
    assert hasher.hash(SECRET).secret_hash != hasher.hash(SECRET).secret_hash


def test_the_hint_is_the_secrets_last_four_characters(hasher):
    assert hasher.hash(SECRET[:-4] + "wxyz").hint == "wxyz"


def test_the_digest_ends_in_the_hmac_sha_256_of_the_secret(hasher):
    assert hasher.digest(SECRET)[8:] == hmac.digest(KEY, SECRET.encode(), hashlib.sha256)


def test_the_digest_begins_with_the_identifier_of_its_key(hasher):
    other = hasher_with(b"o" * 32)
    assert hasher.digest(SECRET)[:8] == hasher.digest("another secret")[:8]
    assert hasher.digest(SECRET)[:8] != other.digest(SECRET)[:8]


def test_the_identifier_of_a_key_never_changes(hasher):
    """With another one, every verification would need bcrypt once."""
    assert hasher.digest(SECRET)[:8] == hmac.digest(KEY, b"key id", hashlib.sha256)[:8]


def test_the_repr_of_a_hasher_does_not_show_its_key(hasher):
    assert "kkkk" not in repr(hasher)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_bcrypt_leaves_the_processor_to_other_threads(hasher):
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness >= 5 and os.geteuid() != 0:
        pytest.skip("only root may set a niceness that is lower than the present one")
    before = set(threading.enumerate())
    hasher.hash(SECRET)
    (worker,) = set(threading.enumerate()) - before
    assert 0 < os.getpriority(os.PRIO_PROCESS, worker.native_id) < 10
    assert os.getpriority(os.PRIO_PROCESS, 0) == niceness
