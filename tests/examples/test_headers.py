"""The headers of `/verify`, in the document and in the proxies that name them one by one."""

import re

import pytest

from tests.helpers import basic
from tests.running_server import ROOT


@pytest.fixture
def names(client, issued):
    answer = client.get("/verify", headers=basic(issued.client_id, issued.client_secret))
    return {name for name, _ in answer.headers if name.startswith("X-LeadVibe-")}


def test_the_document_describes_every_header(client, names):
    paths = client.get("/openapi.json").json["paths"]
    described = paths["/verify"]["get"]["responses"]["200"]["headers"]
    assert described.keys() == names | {"X-Request-Id"}


@pytest.mark.parametrize("proxy", ["nginx/nginx.conf", "caddy/Caddyfile"])
def test_a_proxy_replaces_every_header_that_a_sender_could_forge(names, proxy):
    configuration = (ROOT / "examples" / proxy).read_text()
    replaced = re.findall(r"(?:proxy_set|request)_header (X-LeadVibe-[\w-]+) ", configuration)
    assert set(replaced) == names
