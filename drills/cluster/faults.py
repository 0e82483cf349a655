"""Faults of the cluster's machines, and the promises to callers that must still hold."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

from drills.bars import Bar, none_of, within
from drills.cluster.callers import Callers
from drills.cluster.servers import Cluster, Machine
from drills.service import CannotRun, Issued, wait_until

_QUIET_SECONDS = 2.0
_AFTER_SECONDS = 8.0
_THAWED_SECONDS = 12.0
_BACK_SECONDS = 5.0
_SERVICE_SECONDS = 30.0
_PROMOTION_SECONDS = 40.0  # Patroni's ttl, and some more for a busy machine
_STANDBY_SECONDS = 20.0
_UNCONFIRMED_SECONDS = 4.5  # less than wal_sender_timeout, so that no other standby takes over
_STOCK = 40


def killed(cluster: Cluster) -> list[Bar]:
    """Postgres of the primary is killed."""
    return _fail_over(cluster, Machine.crash_postgres)


def switched_over(cluster: Cluster) -> list[Bar]:
    """An operator makes another machine the primary."""
    return _fail_over(cluster, cluster.switch_over)


def lost(cluster: Cluster) -> list[Bar]:
    """The primary's machine loses power, and comes back later."""
    return _fail_over(cluster, Machine.crash, heal=Machine.start)


def frozen(cluster: Cluster) -> list[Bar]:
    """The primary's machine is frozen until another one is the primary, and then thaws."""
    return _fail_over(cluster, Machine.freeze, heal=Machine.thaw, heal_under_load=True)


def standby_frozen(cluster: Cluster) -> list[Bar]:
    """The synchronous standby's machine is frozen: commits wait for it, and then for another."""
    cluster.await_health()
    issued = [cluster.service.issue() for _ in range(10)]
    standby = cluster.synchronous_standby()
    with Callers(cluster.service, issued) as callers:
        sleep(_QUIET_SECONDS)
        went_at = monotonic()
        standby.freeze()
        sleep(_STANDBY_SECONDS + _AFTER_SECONDS)
        standby.thaw()
        sleep(_AFTER_SECONDS)
    cluster.await_health()
    return [
        *_safety(cluster, callers),
        within(
            "last failure after the freeze", callers.last_failure_after(went_at), _STANDBY_SECONDS
        ),
        none_of("verifications not served", callers.not_served("verify")),
    ]


def both_lost(cluster: Cluster) -> list[Bar]:
    """The synchronous standby's machine freezes, both lose power, and it comes back first."""

    def lose(primary: Machine) -> None:
        standby = cluster.synchronous_standby()
        standby.freeze()
        sleep(_UNCONFIRMED_SECONDS)
        primary.crash()
        standby.crash()  # what has reached only its network buffers is lost
        standby.start()

    return _fail_over(cluster, lose, heal=Machine.start)


def _fail_over(
    cluster: Cluster,
    fault: Callable[[Machine], None],
    *,
    heal: Callable[[Machine], None] | None = None,
    heal_under_load: bool = False,
) -> list[Bar]:
    """Apply the fault to the primary under load, and check that no acknowledged change is lost.

    Some credentials are issued before and revoked through the new primary. The previous primary
    would still accept them.
    """
    cluster.await_health()
    issued = [cluster.service.issue() for _ in range(10)]
    stock = [cluster.service.issue() for _ in range(_STOCK)]
    previous = cluster.primary()
    with Callers(cluster.service, issued) as callers:
        sleep(_QUIET_SECONDS)
        went_at = monotonic()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(fault, previous)  # a switchover takes a while
            cluster.primary(besides=previous)
            promoted_at = monotonic()
            done.result()
        _await_service(cluster, stock[0])
        if callers.revoke(stock) < _STOCK // 2:
            raise CannotRun("the new primary does not take changes")
        sleep(_AFTER_SECONDS)
        if heal is not None and heal_under_load:
            heal(previous)
            sleep(_THAWED_SECONDS)
    if heal is not None and not heal_under_load:
        heal(previous)
    cluster.await_health()
    return [
        *_safety(cluster, callers),
        within(
            "last failure after the new primary",
            callers.last_failure_after(promoted_at),
            _BACK_SECONDS,
        ),
        within("new primary after", promoted_at - went_at, _PROMOTION_SECONDS),
    ]


def _await_service(cluster: Cluster, issued: Issued) -> None:
    """Wait until both instances serve."""

    def serve() -> bool:
        return all(each.verify(issued) == 200 for each in cluster.instances)

    if wait_until(serve, _SERVICE_SECONDS) == float("inf"):
        raise CannotRun("the service does not come back")


def _safety(cluster: Cluster, callers: Callers) -> list[Bar]:
    """Return the bars that every fault must meet."""
    tries = sum(call.expected == 401 for call in callers.calls)
    return [
        none_of("acknowledged changes lost", _lost(cluster, callers), len(callers.acknowledged)),
        none_of("revoked credentials accepted", len(callers.accepted_after_end()), tries),
        none_of("answers other than 503", len(callers.wrong()), len(callers.calls)),
    ]


def _lost(cluster: Cluster, callers: Callers) -> int:
    """Count the acknowledged changes that the audit trail lacks."""
    with cluster.connect() as connection:
        [(count,)] = connection.execute(
            """
            SELECT count(*) FROM unnest(%s::text[]) AS acknowledged (request_id)
            WHERE request_id NOT IN (SELECT request_id FROM credential_events)
            """,
            [callers.acknowledged],
        ).fetchall()
    return int(count)
