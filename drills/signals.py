"""Signals: a reload with a bad key file, and a stop while a request is half sent."""

import signal
import socket
from time import monotonic, sleep

from drills.bars import Bar, none_of, within
from drills.service import Service, Testbed, bearer, wait_until
from tests.issuer import Issuer


def reload_with_bad_keys(testbed: Testbed) -> list[Bar]:
    """SIGHUP with an invalid key file, and then with a valid new one."""
    keys = testbed.new_path("keys.json")
    keys.write_bytes(testbed.issuer.jwks())
    with testbed.serve(JWT_PUBLIC_KEY_FILE=str(keys)) as service:
        issued = service.issue()
        keys.write_text("rubbish")
        service.signal(signal.SIGHUP)
        sleep(2)
        served = [_verifies(service, issued.basic) for _ in range(20)]
    keys.write_bytes(testbed.issuer.jwks())
    with testbed.serve(JWT_PUBLIC_KEY_FILE=str(keys)) as service:
        successor = Issuer()
        keys.write_bytes(successor.jwks())
        service.signal(signal.SIGHUP)
        token = bearer(successor.sign(unit_id="unit_drill"))

        def is_accepted() -> bool:
            return all(service.request("GET", "/secrets", **token).status == 200 for _ in range(10))

        taken = wait_until(is_accepted, 6)
    return [
        none_of("verifications not 200 after a bad key file", served.count(False), len(served)),
        within("good key file taken after", taken, 5),
    ]


def stop_with_half_a_request(testbed: Testbed) -> list[Bar]:
    """SIGTERM while a client has sent half a request."""
    with testbed.serve() as service, socket.create_connection(("127.0.0.1", service.port)) as half:
        half.sendall(b"POST /secrets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        sleep(0.5)
        started = monotonic()
        service.signal(signal.SIGTERM)
        service.process.wait(60)
        return [within("stopped after", monotonic() - started, 15)]


def _verifies(service: Service, authorization: dict[str, str]) -> bool:
    try:
        return service.request("GET", "/verify", **authorization).status == 200
    except OSError:
        return False
