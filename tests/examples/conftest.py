"""Run a proxy between senders and event ingestion.

The proxy asks the real service, except where a test has to see the proxy's requests or needs an
answer that the service does not give on demand.
"""

from contextlib import ExitStack

import pytest

from tests.examples.proxies import CADDY, ENVOY, NGINX, TRAEFIK, Backend, Sender, running_proxy
from tests.helpers import caller, require
from tests.running_server import Answer, free_port

VERIFIED = {
    "X-LeadVibe-Secret-Id": "sec_1",
    "X-LeadVibe-Unit-Id": "unit_demo",
    "X-LeadVibe-Client-Id": "lv_ci_1",
    "X-LeadVibe-Trust-Upstream-Consent": "true",
    "X-LeadVibe-Secret-Expires-At": "none",
}


@pytest.fixture(params=[NGINX, CADDY, TRAEFIK, ENVOY], ids=lambda proxy: proxy.name)
def proxy(request):
    return request.param


@pytest.fixture
def ingestion():
    ingestion = Backend()
    yield ingestion
    ingestion.stop()


@pytest.fixture
def verify():
    """A stand-in for the service, which accepts every sender unless a test changes its answer."""
    verify = Backend()
    verify.answer = Answer(200, VERIFIED, b"{}")
    yield verify
    verify.stop()


@pytest.fixture
def send_through(proxy, tmp_path, ingestion):
    """Return a function that starts the proxy in front of the service at a port."""
    if proxy is NGINX:
        require("nginx", install="apt-get install nginx-light")
    with ExitStack() as stack:

        def send_through(service_port, **replacements):
            port = free_port()
            ports = {8080: port, 8000: service_port, 9000: ingestion.port}
            stack.enter_context(running_proxy(proxy, tmp_path, ports, replacements))
            ingestion.received.clear()  # of the requests that waited for the proxy
            return Sender(port)

        yield send_through


@pytest.fixture
def send(send_through, server):
    return send_through(server.port)


@pytest.fixture
def send_past(send_through, verify):
    """Send events through the proxy, which asks the stand-in."""
    send = send_through(verify.port)
    verify.received.clear()
    return send


@pytest.fixture
def issued(service):
    return service.issue(caller(), name="x")
