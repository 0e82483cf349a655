"""Crowds: what one caller or one unit does must not affect the others."""

from time import monotonic, sleep

from app.credentials.generator import generate_client_id, generate_client_secret
from drills.bars import (
    HEALTH_MS,
    Bar,
    none_of,
    p99_times_quiet,
    times_quiet,
    within,
    within_ms,
)
from drills.load import Callers, Load, Request, during
from drills.service import (
    PROCESSES,
    Issued,
    Service,
    Testbed,
    bearer,
    issuing,
    listing,
    new_digest_key,
    probing,
    verifying,
    wait_until,
)
from tests.helpers import basic

_QUIET_SECONDS = 3
_QUIET_TAIL_MS = 3


def issue_flood(testbed: Testbed) -> list[Bar]:
    """16 callers issue as fast as they can, each in its own unit."""
    with testbed.serve(ISSUE_LIMIT="0") as service:
        verifiers = verifying([service.issue() for _ in range(4)])
        quiet = during(_QUIET_SECONDS, service.port, verifying=verifiers)["verifying"]
        tokens = [service.token(f"unit_{number}") for number in range(16)]
        flood = during(6, service.port, verifying=verifiers, issuing=issuing(tokens))
    issues = flood["issuing"]
    wrong = issues.without_status(200, 503) + issues.without_retry_after(503)
    return [
        p99_times_quiet("/verify p99", quiet.p99, flood["verifying"].p99),
        none_of("verifications not 200", flood["verifying"].without_status(200)),
        none_of("issues not 200 or 503 with Retry-After", wrong, len(issues)),
        Bar("issues that succeed, missing", max(0, 1 - issues.with_status(200)), 0),
    ]


def one_unit_issues(testbed: Testbed) -> list[Bar]:
    """One unit alone issues with 16 callers, and ISSUE_LIMIT is 60."""
    limit = 60
    with testbed.serve(ISSUE_LIMIT=str(limit)) as service:
        verifiers = verifying([service.issue("unit_v") for _ in range(4)])
        quiet = during(_QUIET_SECONDS, service.port, verifying=verifiers)["verifying"]
        greedy = issuing([service.token("unit_greedy")] * 16)
        other = issuing([service.token("unit_other")], pause=0.4)
        before = during(6, service.port, issuing=greedy)
        after = during(5, service.port, issuing=greedy, other=other, verifying=verifiers)
    issues = before["issuing"]
    issues.extend(after["issuing"])
    return [
        # each process counts separately
        Bar("issues of the unit in a minute", issues.with_status(200), limit * PROCESSES),
        Bar("answers of 429, missing", max(0, 1 - issues.with_status(429)), 0),
        none_of(
            "issues not 200, or 429 or 503 with Retry-After",
            issues.without_status(200, 429, 503) + issues.without_retry_after(429, 503),
        ),
        none_of("another unit's issues not 200", after["other"].without_status(200)),
        p99_times_quiet("/verify p99", quiet.p99, after["verifying"].p99),
    ]


def planned_change_of_key(testbed: Testbed) -> list[Bar]:
    """8 guessers on one client ID after a planned change of DIGEST_KEY."""
    database = testbed.new_database()
    old, new = new_digest_key(), new_digest_key()
    with testbed.serve(database, DIGEST_KEY=old) as service:
        right, other, known = service.issue(), service.issue(), service.issue()
    settings = {"DIGEST_KEY": f"{new},{old}", "VERIFY_FAILURE_LIMIT": "0"}
    with testbed.serve(database, **settings) as service:
        ids = compare_known_and_unknown(service, known)
        asking = listing(right.token)
        quiet = during(2, service.port, listing=asking)["listing"]
        slow = during(4, service.port, listing=asking, guessing=guessing(other, callers=8))
        with Load(service.port, guessing=guessing(right, callers=8, pause=0)):
            sleep(0.5)
            owner = verifying([right], callers=1, pause=0.02)
            owned = during(4, service.port, owner=owner)["owner"]
    return [
        none_of("right pair not 200", owned.without_status(200), len(owned)),
        times_quiet("GET /secrets p50", quiet.p50, slow["listing"].p50, 2),
        ids,
    ]


def lost_key(testbed: Testbed) -> list[Bar]:
    """8 guessers on one client ID after the previous DIGEST_KEY was lost."""
    database = testbed.new_database()
    guesser = {"X-Forwarded-For": "203.0.113.1"}
    limits = {"TRUSTED_PROXIES": "1", "VERIFY_FAILURE_LIMIT": "20"}
    with testbed.serve(database) as service:
        right = service.issue()
    with testbed.serve(database, **limits) as service:
        quiet = during(2, service.port, listing=listing(right.token))["listing"]
        guessers = guessing(right, callers=8, headers=guesser)
        with Load(service.port, guessing=guessers):
            sleep(5)  # in which the guesser's address reaches its limit
            after = during(3, service.port, listing=listing(right.token))["listing"]
        with Load(service.port, guessing=guessing(right, callers=8, pause=0, headers=guesser)):
            sleep(0.5)
            owner = {"X_Forwarded_For": "198.51.100.7"}
            until_served = wait_until(lambda: service.verify(right, **owner) == 200, 8)
    return [
        within("right pair from another address 200 after", until_served, 2),
        times_quiet("GET /secrets p50 once the guesser is at its limit", quiet.p50, after.p50, 2),
    ]


def one_proxy_for_all(testbed: Testbed) -> list[Bar]:
    """All senders come through one proxy, and one of them fails too often."""
    with testbed.serve(TRUSTED_PROXIES="1", VERIFY_FAILURE_LIMIT="10") as service:
        issued = service.issue()
        wrong = basic(issued.client_id, generate_client_secret())

        def statuses(address: str, authorization: dict[str, str]) -> list[int]:
            call = {**authorization, "X_Forwarded_For": address}
            return [service.request("GET", "/verify", **call).status for _ in range(30)]

        guesser = statuses("203.0.113.1", wrong)
        neighbour = statuses("203.0.113.2", wrong)
        malformed = statuses("203.0.113.3", {"Authorization": "Basic nonsense"})
    return [
        Bar("answers of 429 to the guesser, missing", max(0, 1 - guesser.count(429)), 0),
        Bar("first answers to another address not 401", sum(s != 401 for s in neighbour[:10]), 0),
        none_of("malformed credentials not 401", sum(s != 401 for s in malformed), len(malformed)),
    ]


def a_large_unit(testbed: Testbed, *, size: int = 100_000, seconds: float = 5) -> list[Bar]:
    """8 callers list a unit with 100,000 credentials, and 16 others issue."""
    with testbed.serve(MAX_CREDENTIALS_PER_UNIT="1000", ISSUE_LIMIT="0") as service:
        issued = service.issue()
        tokens = [service.token(f"unit_{number}") for number in range(16)]
        verifiers = verifying([issued])
        quiet = during(_QUIET_SECONDS, service.port, verifying=verifiers)["verifying"]
        service.database.clone_credential(issued.secret_id, copies=size, secrets=False)
        page = service.request("GET", "/secrets", **bearer(issued.token))
        over = service.request("POST", "/secrets", {"name": "one more"}, **bearer(issued.token))
        load = during(
            seconds,
            service.port,
            probing=probing(),
            listing=listing(issued.token, callers=8, pause=0),
            issuing=issuing(tokens),
            verifying=verifiers,
        )
    refusal = "The unit has reached its limit of credentials"
    is_refused = over.status == 409 and over.json()["detail"] == refusal
    return [
        Bar("credentials in an answer", len(page.json()), 1000),
        none_of("answers without Link", int('rel="next"' not in page.headers.get("link", ""))),
        Bar("POST over the limit not 409", int(not is_refused), 0, note=f"status {over.status}"),
        within_ms("/healthz", load["probing"].slowest, HEALTH_MS, noisy=True),
        none_of("lists not 200 or 503", load["listing"].without_status(200, 503)),
        none_of("verifications not 200", load["verifying"].without_status(200)),
        p99_times_quiet("/verify p99", quiet.p99, load["verifying"].p99),
        within_ms("quiet /verify p99 - p50", quiet.p99 - quiet.p50, _QUIET_TAIL_MS, noisy=True),
    ]


def guessing(
    issued: Issued, *, callers: int, pause: float = 0.01, headers: dict[str, str] | None = None
) -> Callers:
    """Return callers that guess the client secret, in the right format."""
    guesses = [
        Request(
            "GET", "/verify", basic(issued.client_id, generate_client_secret()) | (headers or {})
        )
        for _ in range(50)
    ]
    return Callers([guesses] * callers, pause)


def compare_known_and_unknown(service: Service, known: Issued) -> Bar:
    """Compare the times of a wrong pair with a known and with an unknown client ID.

    The two take turns on one connection, so that noise affects both.
    """
    rounds = 150
    turns = [
        Request("GET", "/verify", basic(client_id, generate_client_secret()))
        for _ in range(rounds)
        for client_id in (known.client_id, generate_client_id())
    ]
    started = monotonic()
    with Load(service.port, guessing=Callers([turns], once=True)) as load:
        load.wait_for("guessing")
    answers = load["guessing"].started(started)
    medians = [type(answers)(answers[offset::2]).p50 for offset in (0, 1)]
    apart = max(medians) / min(medians)
    note = f"{medians[0] * 1000:,.2f} and {medians[1] * 1000:,.2f} ms"
    return Bar("known / unknown client ID, median", apart, 1.25, "x", note)
