"""`make cluster`: run the cluster until Ctrl-C, to practise an operator's tasks."""

import signal
import sys
from time import sleep, time
from typing import Any

from drills.cluster.servers import Cluster, running_cluster
from drills.service import CannotRun

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DAY_SECONDS = 24 * 60 * 60

_BANNER = """
Three Postgres machines and two instances of the service run.
Files and logs: {directory}

  http://127.0.0.1:{nginx}  nginx, in front of both instances
  http://127.0.0.1:{by_pgbouncer}  the instance that goes through PgBouncer (127.0.0.1:{pgbouncer})
  http://127.0.0.1:{by_haproxy}  the instance that goes through HAProxy (127.0.0.1:{haproxy})

Issue a credential:

  curl -X POST http://127.0.0.1:{nginx}/secrets \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' -d '{{"name": "CRM backend"}}'

See which machine is the primary, and make another one the primary:

  patronictl -c {directory}/db1/patroni.yml list
  patronictl -c {directory}/db1/patroni.yml switchover

Kill Postgres of the primary, here db1, and see what callers get meanwhile:

  kill -9 $(head -1 {directory}/db1/data/postmaster.pid)
  watch -n 0.2 curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{nginx}/readyz

Ctrl-C stops everything.
"""


def main() -> None:
    for number in _STOPPING:
        signal.signal(number, _stop)
    print("Starting …", flush=True)
    try:
        with running_cluster() as cluster:
            print(_banner(cluster), flush=True)
            while True:
                sleep(1)
    except CannotRun as reason:
        sys.exit(f"make cluster: {reason}")
    except KeyboardInterrupt:
        print("Stopped.")


def _stop(*_: Any) -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stop
    raise KeyboardInterrupt


def _banner(cluster: Cluster) -> str:
    by_pgbouncer, by_haproxy = (each.port for each in cluster.instances)
    return _BANNER.format(
        directory=cluster.machines[0].directory.parent,
        nginx=cluster.service.port,
        by_pgbouncer=by_pgbouncer,
        by_haproxy=by_haproxy,
        haproxy=cluster.haproxy_port,
        pgbouncer=cluster.pgbouncer_port,
        token=cluster.service.issuer.sign(exp=int(time()) + _DAY_SECONDS),
    )


if __name__ == "__main__":
    main()
