"""A rolling restart: two instances behind nginx, each restarted in turn."""

import signal
from contextlib import ExitStack
from time import sleep

from drills.bars import Bar, none_of
from drills.load import Load
from drills.nginx import nginx
from drills.service import (
    CannotRun,
    Client,
    Testbed,
    issuing,
    new_digest_key,
    updating,
    verifying,
    wait_until,
)

_STOP_SECONDS = 40
_READY_SECONDS = 30


def rolling_restart(testbed: Testbed, *, seconds: float = 1) -> list[Bar]:
    """Two instances behind nginx are restarted in turn, as docs/upgrading.md says."""
    database = testbed.new_database()
    settings = {
        "DIGEST_KEY": new_digest_key(),
        "TRUSTED_PROXIES": "1",
        "MAX_CREDENTIALS_PER_UNIT": "100000",
    }
    directory = testbed.new_path("nginx")
    directory.mkdir()
    with ExitStack() as stack:
        instances = [stack.enter_context(testbed.serve(database, **settings)) for _ in range(2)]
        ports = [each.port for each in instances]
        proxy = stack.enter_context(nginx(directory, ports))
        client = Client(proxy.port, testbed.issuer)
        issued = [client.issue() for _ in range(4)]
        with Load(
            proxy.port,
            verifying=verifying(issued, callers=4),
            updating=updating(issued[:2], pause=0.02),
            issuing=issuing([client.token()], pause=0.2),
        ) as load:
            for instance in instances:
                sleep(seconds)
                proxy.lead_to([port for port in ports if port != instance.port])
                instance.signal(signal.SIGTERM)
                instance.process.wait(_STOP_SECONDS)
                restarted = stack.enter_context(
                    testbed.serve(database, **settings, PORT=str(instance.port))
                )

                def is_ready(restarted: Client = restarted) -> bool:
                    return restarted.request("GET", "/readyz").status == 200

                if wait_until(is_ready, _READY_SECONDS) == float("inf"):
                    raise CannotRun("the restarted instance did not become ready")
                proxy.lead_to(ports)
            sleep(seconds)
    good = {"verifying": 200, "updating": 204, "issuing": 200}
    calls = sum(len(load[name]) for name in good)
    failed = sum(load[name].without_status(status) for name, status in good.items())
    return [none_of("failures", failed, calls)]
