"""The service behind an nginx that serves it under a path prefix, as docs/operations.md says."""

import json
import os
import re
import subprocess
import sys
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from app.api.http.pagination import next_link
from app.credentials.model import TrailPosition
from app.docs.origin import ORIGIN
from tests.conftest import environment
from tests.docs.guide import block, samples
from tests.helpers import basic, caller
from tests.nginx import under_prefix
from tests.running_server import HANG_SECONDS, running_server, wait_until


@pytest.fixture(scope="module", params=["/credentials", "/a/b-c/docs"])
def address(request, _server, tmp_path_factory):
    with under_prefix(_server.port, tmp_path_factory.mktemp("nginx"), request.param) as address:
        yield address


@pytest.fixture
def http(address, issuer):
    """A client with a token."""
    headers = {"Authorization": f"Bearer {issuer.sign()}"}
    with httpx.Client(headers=headers, timeout=HANG_SECONDS) as http:
        yield http


@pytest.fixture
def credentials(service):
    return [service.issue(caller(), name=f"n{number}") for number in range(5)]


def pages(http, address):
    """Follow the links to the end, and return what every page shows."""
    shown = []
    while address:
        answer = http.get(address)
        assert answer.status_code == 200, (address, answer.text)
        shown.append(answer.json())
        link = answer.links.get("next")
        address = urljoin(address, link["url"]) if link and answer.json() else None
    return shown


def test_a_list_is_followed_to_its_end(http, address, credentials):
    shown = pages(http, f"{address}/secrets?limit=2&name=N&enabled=true")
    names = [[each["name"] for each in page] for page in shown]
    assert names == [["n4", "n3"], ["n2", "n1"], ["n0"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_trail_is_followed_to_its_end(http, address, credentials, order):
    start = f"{address}/secrets/events?order={order}&limit=2&event=issued"
    expected = sorted((each.name for each in credentials), reverse=order == "desc")
    # a transaction of another test, on the same server, may delay the events for a moment
    wait_until(lambda: names_of(pages(http, start)) == expected)


def names_of(shown):
    return [each["name"] for page in shown for each in page]


def test_the_trail_of_a_credential_is_followed_to_its_end(http, address, service, credentials):
    service.rotate(caller(), credentials[0].secret_id, overlap_seconds=60)
    shown = pages(http, f"{address}/secrets/{credentials[0].secret_id}/events?limit=1")
    assert [each["event"] for page in shown for each in page] == ["rotated", "issued"]


def test_a_follower_whose_events_were_lost_goes_on(http, address, credentials):
    query = next_link({"order": "asc", "limit": 2}, TrailPosition(10**15, 1))[1:].partition(">")[0]
    gone = http.get(f"{address}/secrets/events{query}")
    assert (gone.status_code, gone.json()["type"]) == (410, "/docs/errors#history-lost")
    following = urljoin(str(gone.url), gone.links["next"]["url"])
    wait_until(lambda: len(names_of(pages(http, following))) == 5)


@pytest.mark.parametrize("path", ["/", "/docs/", "/?x=1"])
def test_redirects_stay_under_the_prefix(http, address, path):
    answer = http.get(f"{address}{path}", follow_redirects=True)
    assert (str(answer.url), answer.status_code) == (f"{address}/docs", 200)


@pytest.mark.parametrize("path", ["/docs", "/docs/errors", "/docs.md", "/llms.txt"])
def test_every_link_of_a_page_stays_under_the_prefix(http, address, path):
    text = http.get(f"{address}{path}").text
    links = re.findall(r'(?:href|src|data-console)="([^"]+)"', text)
    links += re.findall(r"\]\(([^)]+)\)", text) if not path.startswith("/docs/") else []
    found = set()
    for link in links:
        url = urlsplit(urljoin(f"{address}{path}", link))
        if url.netloc != urlsplit(address).netloc:
            continue
        assert url.path.startswith(f"{urlsplit(address).path}/"), link
        found.add(url._replace(fragment="").geturl())
    assert len(found) >= 3
    for each in found:
        assert http.get(each).status_code == 200, each


def test_the_server_of_the_document_is_the_address_with_the_prefix(http, address):
    answer = http.get(f"{address}/openapi.json")
    (server,) = answer.json()["servers"]
    base = urljoin(str(answer.url), server["url"])
    assert base == f"{address}/"
    for path in answer.json()["paths"]:
        called = http.get(base.rstrip("/") + path.format(secret_id="x", hint="x", scope="ingest"))
        assert called.status_code in {200, 401, 405} or "No such credential" in called.text, path


def test_the_type_of_a_problem_leads_to_its_explanation(http, address):
    answer = http.get(f"{address}/verify")
    problem_type = answer.json()["type"]
    assert problem_type == "/docs/errors#invalid-pair"
    page = http.get(urljoin(str(answer.url), problem_type), follow_redirects=True)
    assert page.status_code == 200
    assert page.url.path == f"{urlsplit(address).path}/docs/errors"
    assert 'id="invalid-pair"' in page.text


def test_the_guides_follower_follows(client, address, issuer, service, credentials, tmp_path):
    following = subprocess.Popen(
        [sys.executable, "-c", block(client, "Follow the trail", "python", address)],
        cwd=tmp_path,
        env=os.environ | {"TOKEN": issuer.sign()},
        stdout=subprocess.PIPE,
        text=True,
    )
    with following:
        for number in range(5):
            assert json.loads(following.stdout.readline())["name"] == f"n{number}"
        service.revoke(caller(), credentials[0].secret_id)
        assert json.loads(following.stdout.readline())["event"] == "revoked"
        following.kill()


@pytest.mark.parametrize("language", ["sh", "python", "javascript"])
def test_a_sample_works_with_the_address_in_place_of_its_own(
    client, address, credentials, language
):
    sample = dict(samples(client, language))["verify"].replace(ORIGIN, address)
    pair = credentials[0].client_id, credentials[0].client_secret
    programs = {
        "sh": ["sh", "-c"],
        "python": [sys.executable, "-c"],
        "javascript": ["node", "--input-type=module", "-e"],
    }
    shown = subprocess.check_output(
        [*programs[language], sample],
        env=os.environ | dict(zip(("CLIENT_ID", "CLIENT_SECRET"), pair, strict=True)),
        text=True,
    )
    assert json.loads(shown)["client_id"] == pair[0]


@pytest.mark.parametrize("header", ["X-Forwarded-Prefix", "X-Script-Name", "Script-Name"])
@pytest.mark.parametrize("trusted_proxies", [0, 1])
def test_a_header_with_the_prefix_changes_nothing(
    settings, service, issuer, credentials, tmp_path, header, trusted_proxies
):
    """Some proxies add one, and some frameworks would add its value to their links."""
    also = f"proxy_set_header {header} /credentials;"
    with (
        running_server(environment(settings, trusted_proxies=trusted_proxies)) as server,
        under_prefix(server.port, tmp_path, also=also) as address,
        httpx.Client(headers={"Authorization": f"Bearer {issuer.sign()}"}) as http,
    ):
        assert len(pages(http, f"{address}/secrets?limit=2")) == 3
        pair = basic(credentials[0].client_id, credentials[0].client_secret)
        assert http.get(f"{address}/verify", headers=pair).status_code == 200
        assert http.get(f"{address}/", follow_redirects=True).url == f"{address}/docs"
        assert http.get(f"{address}/nothing").json()["type"] == "/docs/errors#not-found"
