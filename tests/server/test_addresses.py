"""The client address, through every entrance and with both workers."""

import pytest

from app.credentials.generator import generate_client_secret
from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import basic, caller
from tests.running_server import running_server


@pytest.fixture(params=WORKER_CLASSES)
def start(request, settings, rows):
    """Return a context manager that runs the service with changed settings."""

    def start(**changes):
        return running_server(environment(settings, worker_class=request.param, **changes))

    return start


def logged(server, request_id):
    """Return the address in the log line of the request."""
    lines = [line for line in server.log() if line["message"] == "request"]
    (address,) = [line["address"] for line in lines if line["request_id"] == request_id]
    return address


# Those on the right are the proxy's own; those on the left are the sender's.
FORWARDED = {
    "203.0.113.7": "203.0.113.7",
    "198.51.100.1, 203.0.113.7": "203.0.113.7",
    "203.0.113.7:51001": "203.0.113.7",
    "::ffff:203.0.113.7": "203.0.113.7",
    "[2001:DB8::0:9]:51001": "2001:db8::9",
    "fe80::1%eth0": "fe80::1",
    '", 203.0.113.7': "203.0.113.7",
    '"x, 203.0.113.7': "203.0.113.7",
    '"': None,
    "unknown": None,
    "203.0.113.7,": None,
}


def test_every_entrance_sees_the_same_address(start, issuer):
    token = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
    with start(trusted_proxies=1) as server:

        def address(number, *entrance, **headers):
            request_id = f"r-{number}-{entrance[1].strip('/')}-{len(entrance)}"
            answer = server.request(*entrance, X_Request_Id=request_id, **headers)
            assert answer.status in (200, 401)
            return logged(server, request_id)

        for number, (forwarded, expected) in enumerate(FORWARDED.items()):
            xff = {"X_Forwarded_For": forwarded}
            assert address(number, "GET", "/verify", **xff) == expected
            assert address(number, "POST", "/verify", b"body", **xff) == expected
            assert address(number, "POST", "/secrets", b'{"name": "x"}', **token, **xff) == expected
        assert address("none", "GET", "/verify") is None
        trail = server.request("GET", "/secrets/events", **token).json()
    assert [event["address"] for event in reversed(trail)] == list(FORWARDED.values())


def test_several_headers_are_one_list(start):
    lines = ["203.0.113.1, 203.0.113.2", '"', "203.0.113.3"]
    forwarded = "".join(f"X-Forwarded-For: {line}\r\n" for line in lines)
    message = f"GET /verify HTTP/1.1\r\nHost: x\r\nX-Request-Id: r\r\n{forwarded}\r\n"
    for proxies, expected in {1: "203.0.113.3", 2: None, 3: "203.0.113.2", 5: None}.items():
        with start(trusted_proxies=proxies) as server:
            server.send(message.encode())
            assert logged(server, "r") == expected


def test_a_client_of_a_dual_stack_socket_has_its_ipv4_address(start):
    with start(host="::") as server:
        server.request("GET", "/verify", X_Request_Id="plain")
        server.request("POST", "/verify", b"body", X_Request_Id="other")
        assert logged(server, "plain") == logged(server, "other") == "127.0.0.1"


def test_spellings_of_an_address_share_a_limit(start, service):
    issued = service.issue(caller(), name="x")
    wrong = basic(issued.client_id, generate_client_secret())
    clients = {
        "an IPv4 address": ["203.0.113.8:51001", "203.0.113.8:51002", "::ffff:203.0.113.8"],
        "an IPv6 address": ["2001:db8::9", "[2001:DB8::9]:1", "2001:0db8:0:0::9"],
        "a network": ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3"],
        "no address": ["", "unknown", '"'],
    }
    with start(trusted_proxies=1, verify_failure_limit=2) as server:
        for client, spellings in clients.items():
            statuses = [
                server.request("GET", "/verify", X_Forwarded_For=each, **wrong).status
                for each in spellings
            ]
            assert statuses == [401, 401, 429], client
        right = basic(issued.client_id, issued.client_secret)
        assert server.request("GET", "/verify", **right).status == 200


def test_an_unknown_address_is_reported_once(start):
    def warnings(server):
        return [line["message"] for line in server.log() if line["level"] == "WARNING"]

    with start(trusted_proxies=2) as server:
        server.request("GET", "/verify")
        assert warnings(server) == []
        for _ in range(3):
            server.request("GET", "/verify", X_Forwarded_For="203.0.113.7")
            server.request("GET", "/secrets", X_Forwarded_For="203.0.113.7")
        assert warnings(server) == ["client address unknown: is TRUSTED_PROXIES right?"]
