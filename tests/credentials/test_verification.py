"""The judgement of a pair, where it must not wait."""

from dataclasses import replace

import pytest

from app.credentials import repository
from app.credentials.errors import VerificationRefused
from app.credentials.generator import generate_client_id, generate_client_secret
from app.credentials.hashing import Hasher
from app.credentials.verification import MustWait
from app.rate_limits import MemoryCounters, RateLimit
from app.redis_counters import RedisCounters
from tests.helpers import DIGEST_KEY, typo_of


@pytest.fixture
def judge(verifier, issued):
    """Return a function that judges the issued pair, or one with another client secret."""

    def judge(client_secret=issued.client_secret, **changes):
        stored = repository.select_stored_secrets(
            verifier.database, client_id=issued.client_id, seconds=5
        )
        return replace(verifier, **changes).judge(
            stored,
            client_id=issued.client_id,
            client_secret=client_secret,
            address="",
            scope=None,
            may_wait=False,
        )

    return judge


def test_digests_are_compared_at_once(judge, issued):
    assert judge().credential.client_id == issued.client_id
    with pytest.raises(VerificationRefused):
        judge(typo_of(issued.client_secret))


def test_a_comparison_of_hashes_has_to_wait(judge, rows):
    rows.execute("UPDATE client_secrets SET digest = NULL")
    with pytest.raises(MustWait):
        judge()


@pytest.mark.parametrize(
    ("per_minute", "counters", "expected"),
    [
        (1, MemoryCounters(), VerificationRefused),
        (0, RedisCounters("redis://127.0.0.1:1", b""), VerificationRefused),
        (1, RedisCounters("redis://127.0.0.1:1", b""), MustWait),
    ],
)
def test_only_a_counter_elsewhere_has_to_wait(judge, issued, per_minute, counters, expected):
    limit = RateLimit("x", per_minute, counters)
    with pytest.raises(expected):
        judge(typo_of(issued.client_secret), failure_limit=limit)
    assert judge(failure_limit=limit).credential.client_id == issued.client_id


@pytest.mark.parametrize("keys", [1, 2])
def test_an_unknown_client_id_costs_the_same_digests_as_a_known_one(verifier, issued, keys):
    """Otherwise the time would show which client IDs exist."""
    made = []

    class ObservedHasher(Hasher):
        def digests(self, client_secret):
            digests = super().digests(client_secret)
            made.append(len(digests))
            return digests

    hasher = ObservedHasher(10, [DIGEST_KEY, b"p" * 32][:keys], verifier.bulkheads)
    observed = replace(verifier, hasher=hasher)
    for client_id in (issued.client_id, generate_client_id()):
        with pytest.raises(VerificationRefused):
            observed.verify(client_id=client_id, client_secret=generate_client_secret())
    assert made == [keys, keys]
