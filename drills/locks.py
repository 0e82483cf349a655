"""Locks and slow statements: some of the database's work stalls, while the rest goes well."""

from time import monotonic, sleep

from drills.bars import (
    ANSWER_SECONDS,
    HEALTH_MS,
    RETURN_SECONDS,
    VERIFICATION_SECONDS,
    Bar,
    none_of,
    p99_times_quiet,
    within,
    within_ms,
)
from drills.load import Answers, Load, during
from drills.service import Testbed, issuing, probing, updating, verifying

_QUIET_SECONDS = 3

_SLOW_EVENTS = """
    CREATE FUNCTION drill_slow_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(2.9);
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER drill_slow_event BEFORE INSERT ON credential_events
        FOR EACH ROW EXECUTE FUNCTION drill_slow_event();
"""


def a_locked_table(testbed: Testbed, *, seconds: float = 12) -> list[Bar]:
    """A table is locked for 12 s (ACCESS EXCLUSIVE), and 64 callers verify."""
    with testbed.serve() as service:
        verifiers = verifying([service.issue() for _ in range(4)], callers=64, pause=0.05)
        with Load(service.port, verifying=verifiers, probing=probing()) as load:
            sleep(1)
            with service.database.connect(autocommit=False) as other:
                other.execute("LOCK TABLE client_secrets IN ACCESS EXCLUSIVE MODE")
                locked_at = monotonic()
                sleep(seconds)
                unlocked_at = monotonic()
            sleep(4)
    answers = load["verifying"].started(locked_at)
    later = answers.started(locked_at + 2, unlocked_at)
    return [
        within("slowest answer", answers.slowest, VERIFICATION_SECONDS),
        within("p99 of callers later than 2 s", later.p99, VERIFICATION_SECONDS),
        within_ms("/healthz", load["probing"].slowest, HEALTH_MS, noisy=True),
        none_of("answers not 200 or 503", answers.without_status(200, 503), len(answers)),
        within("service again after", answers.back_after(unlocked_at), RETURN_SECONDS),
    ]


def a_locked_row(testbed: Testbed, *, seconds: float = 5) -> list[Bar]:
    """Another session locks a credential's row; 8 callers update it, 8 verify others."""
    with testbed.serve() as service:
        locked = service.issue()
        verifiers = verifying([service.issue() for _ in range(4)], callers=8)
        quiet = during(_QUIET_SECONDS, service.port, verifying=verifiers)["verifying"]
        with service.database.connect(autocommit=False) as other:
            other.execute(
                "SELECT FROM credentials WHERE secret_id = %s FOR UPDATE", [locked.secret_id]
            )
            load = during(
                seconds, service.port, verifying=verifiers, updating=updating([locked] * 8)
            )
    verified, updated = load["verifying"], load["updating"]
    return [
        p99_times_quiet("/verify p99", quiet.p99, verified.p99),
        none_of("verifications not 200", verified.without_status(200), len(verified)),
        none_of("updates not 503 with Retry-After", _not_refused(updated), len(updated)),
        within("slowest update", updated.slowest, ANSWER_SECONDS),
    ]


def slow_audit_events(testbed: Testbed) -> list[Bar]:
    """The INSERT of an audit event takes 2.9 s; 4 callers issue, 4 update one credential."""
    with testbed.serve() as service:
        changed = service.issue()
        verifiers = verifying([service.issue() for _ in range(4)], callers=8)
        with service.database.connect() as other:
            other.execute(_SLOW_EVENTS)
        load = during(
            10,
            service.port,
            verifying=verifiers,
            issuing=issuing([service.token(f"unit_{number}") for number in range(4)]),
            updating=updating([changed] * 4),
        )
    verified = load["verifying"]
    return [
        none_of("verifications not 200", verified.without_status(200), len(verified)),
        within("slowest verification", verified.slowest, VERIFICATION_SECONDS),
        within(
            "slowest change",
            max(load["issuing"].slowest, load["updating"].slowest),
            ANSWER_SECONDS,
        ),
    ]


def _not_refused(updates: Answers) -> int:
    return updates.without_status(503) + updates.without_retry_after(503)
