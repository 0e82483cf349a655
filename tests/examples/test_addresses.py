"""No sender hides or chooses its address, behind the examples and behind proxies that append."""

import signal
import subprocess
from contextlib import contextmanager

import pytest

from tests.conftest import environment
from tests.examples.proxies import NGINX, Sender, routes, running_proxy
from tests.helpers import require
from tests.running_server import HANG_SECONDS, free_port, running_server, wait_until

pytestmark = pytest.mark.long

FORGED = [
    b'X-Forwarded-For: "',
    b'X-Forwarded-For: "203.0.113.7',
    b'X-Forwarded-For: x", "y',
    b"X-Forwarded-For: 203.0.113.7:51001",
    b"X-Forwarded-For: [2001:db8::1]:51001",
    b"X-Forwarded-For: ,,,",
    b'X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: "',
    b"X-Forwarded-For:",
    b"Forwarded: for=203.0.113.7",
    b"X-Real-IP: 203.0.113.7",
]


def addresses_of_the_sender(server, send):
    """Send events with every forged header, and return the addresses that the service logs."""

    def lines():
        return [line for line in server.log() if line.get("route") == "/verify"]

    already = len(lines())
    for forged in FORGED:
        assert send.send_lines(b"Authorization: Basic eDp5", forged) == 401
    wait_until(lambda: len(lines()) >= already + len(FORGED))
    return {line["address"] for line in lines()[already:]}


def test_a_sender_cannot_hide_behind_an_example(proxy, send_through, settings):
    with running_server(environment(settings, trusted_proxies=proxy.trusted_proxies)) as server:
        send = send_through(server.port)
        assert addresses_of_the_sender(server, send) == {send.address}


def test_a_sender_cannot_hide_behind_nginx_that_appends(settings, tmp_path, ingestion):
    require("nginx", install="apt-get install nginx-light")
    appends = {"X-Forwarded-For $remote_addr": "X-Forwarded-For $proxy_add_x_forwarded_for"}
    with running_server(environment(settings, trusted_proxies=1)) as server:
        port = free_port()
        ports = {8080: port, 8000: server.port, 9000: ingestion.port}
        with running_proxy(NGINX, tmp_path, ports, appends):
            send = Sender(port)
            assert addresses_of_the_sender(server, send) == {send.address}


HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s

listen verify
    bind 127.0.0.1:{port}
    option forwardfor
    http-request set-path /verify
    server service 127.0.0.1:{service_port}
"""


@contextmanager
def haproxy(configuration, port):
    process = subprocess.Popen(["haproxy", "-f", configuration, "-db"])
    try:
        wait_until(lambda: routes(port, process, configuration))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG_SECONDS)


def test_a_sender_cannot_hide_behind_haproxy(settings, tmp_path):
    require("haproxy", install="apt-get install haproxy")
    with running_server(environment(settings, trusted_proxies=1)) as server:
        port = free_port()
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=port, service_port=server.port))
        with haproxy(configuration, port):
            send = Sender(port)
            assert addresses_of_the_sender(server, send) == {send.address}
