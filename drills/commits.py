"""Commits: no standby confirms them, the clock steps back, or a pooler mixes sessions."""

from time import sleep

from drills.bars import Bar, none_of
from drills.load import Callers, Load, Request
from drills.service import (
    POOL,
    PROCESSES,
    Testbed,
    bearer,
    issuing,
    pgbouncer,
    updating,
    verifying,
    wait_until,
)


def no_standby_confirms(testbed: Testbed, *, seconds: float = 15) -> list[Bar]:
    """No standby confirms commits; 6 callers issue, 2 verify."""
    with testbed.serve() as service:
        verifiers = verifying([service.issue() for _ in range(2)], callers=2)
        issuers = issuing([service.token(f"unit_{number}") for number in range(6)])
        most = 0
        with testbed.postgres.configured(synchronous_standby_names="nobody"):
            sleep(0.5)
            with Load(service.port, verifying=verifiers, issuing=issuers) as load:
                for _ in range(round(seconds / 0.25)):
                    most = max(most, service.database.backends())
                    sleep(0.25)
    verified = load["verifying"]
    return [
        Bar("connections", most, PROCESSES * (POOL + 1), note=f"in {seconds:.0f} s"),
        none_of("verifications not 200", verified.without_status(200), len(verified)),
        none_of("issues that claim success", load["issuing"].with_status(200)),
    ]


def clock_steps_back(testbed: Testbed) -> list[Bar]:
    """A rotation without overlap ends a client secret, which no step of the clock may revive."""
    with testbed.serve() as service:
        issued = service.issue()
        path = f"/secrets/{issued.secret_id}"
        token = bearer(issued.token)
        service.verify(issued)

        def last_use() -> str | None:
            used: str | None = service.request("GET", path, **token).json()["last_used_at"]
            return used

        wait_until(lambda: last_use() is not None, 4)
        service.request("POST", f"{path}/rotate", {"overlap_seconds": 0}, **token)
        rows = service.database.query(
            "SELECT count(*) FROM client_secrets WHERE secret_id = %s", issued.secret_id
        )[0][0]
        status = service.verify(issued)
        return [
            none_of("rows of the ended client secret", rows - 1),
            Bar("ended client secret not 401", int(status != 401), 0),
            Bar("last_used_at lost", int(last_use() is None), 0),
        ]


def behind_pgbouncer(testbed: Testbed, *, rounds: int = 300) -> list[Bar]:
    """Behind PgBouncer 1.18 in transaction mode, callers delete, get, update and verify at once."""
    database = testbed.new_database()
    with pgbouncer(testbed, database) as port:
        url = database.url_on(port)
        with testbed.serve(database, url=url, MAX_CREDENTIALS_PER_UNIT="10000") as service:
            issued = [service.issue() for _ in range(4)]
            copies = database.clone_credential(
                issued[0].secret_id, copies=2 * 4 * rounds, secrets=True
            )
            deleted, kept = copies[: 4 * rounds], copies[4 * rounds :]
            token = issued[0].token
            with Load(
                service.port,
                verifying=verifying(issued, callers=2),
                updating=updating(issued[:2], pause=0.01),
                getting=_each("GET", kept, token),
                deleting=_each("DELETE", deleted, token),
            ) as load:
                load.wait_for("getting", "deleting")
    gone = database.query(
        """
        SELECT count(*) FROM unnest(%s::text[]) AS kept (secret_id)
        WHERE secret_id NOT IN (SELECT secret_id FROM credentials)
          AND secret_id NOT IN (SELECT secret_id FROM credential_events WHERE event = 'revoked')
        """,
        kept,
    )[0][0]
    good = {"verifying": 200, "updating": 204, "getting": 200, "deleting": 204}
    calls = sum(len(load[name]) for name in good)
    failed = sum(load[name].without_status(status) for name, status in good.items())
    return [
        none_of("credentials gone without an event", gone, len(kept)),
        none_of("answers of 500", sum(load[name].with_status(500) for name in good), calls),
        none_of("failures", failed, calls),
    ]


def _each(method: str, secret_ids: list[str], token: str) -> Callers:
    """Return four callers that share the credentials and call each once."""
    requests = [Request(method, f"/secrets/{each}", bearer(token)) for each in secret_ids]
    return Callers([requests[offset::4] for offset in range(4)], once=True)
