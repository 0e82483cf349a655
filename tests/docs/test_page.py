import gzip
import re
from urllib.parse import urljoin, urlsplit

import pytest

from app.api.http import problems
from app.api.http.problems import PROBLEM_TYPES, Problem

PAGES = ("/docs", "/docs/errors", "/docs/changelog")
MAX_BYTES = 60_000


def assets_of(page):
    """Return the addresses of the files that the page fetches when it opens."""
    tags = re.findall(r'<(?:link rel="(?:icon|stylesheet)"|script)[^>]*>', page.text)
    return [
        urljoin(page.request.path, re.search(r'(?:src|href)="([^"]+)"', tag)[1]) for tag in tags
    ]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_its_own_files_and_no_others(client, path):
    paths = assets_of(client.get(path))
    assert len(paths) == 3
    for each in paths:
        assert re.fullmatch(r"/docs/static/\w+\.[0-9a-f]{12}\.\w+", each)
        assert client.get(each).status_code == 200, each


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_only_run_its_own_scripts(client, path):
    page = client.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert re.findall(r"<script(?![^>]* src=)", page.text) == []
    assert re.findall(r"\s(on\w+|style)=", page.text) == []


def test_the_pages_are_small(client):
    page = client.get("/docs")
    later = re.findall(r'data-(?:console|search)="([^"]+)"', page.text)
    assert len(later) == 2
    paths = ["/docs", *assets_of(page), *(urljoin("/docs", each) for each in later)]
    paths.append("/docs/search.json")
    sent = [client.get(path, headers={"Accept-Encoding": "gzip"}).data for path in paths]
    assert sum(map(len, sent)) < MAX_BYTES


@pytest.mark.parametrize("path", PAGES)
def test_search_engines_find_a_title_and_a_description(client, path):
    page = client.get(path).text
    assert re.search(r"<title>[^<]{10,60}</title>", page)
    assert re.search(r'<meta name="description" content="[^"]{50,160}">', page)


def links_of(page):
    return re.findall(r'href="([^"]+)"', page)


def test_every_link_has_a_target(client):
    pages = {path: client.get(path).text for path in PAGES}
    for path, page in pages.items():
        for link in links_of(page):
            url = urlsplit(link)
            if url.netloc:
                assert url.scheme == "https"
                continue
            target = urljoin(path, url.path)
            if target not in pages:
                assert client.get(target).status_code == 200, link
            if url.fragment:
                assert f'id="{url.fragment}"' in pages[target], link


@pytest.mark.parametrize("path", PAGES)
def test_every_anchor_is_unique_and_every_heading_has_one(client, path):
    page = client.get(path).text
    identifiers = re.findall(r'\sid="([^"]+)"', page)
    assert len(set(identifiers)) == len(identifiers)
    for heading in re.findall(r"<h[2345][^>]*>", page.partition("<main")[2]):
        assert 'id="' in heading


def test_every_operation_and_every_field_has_an_anchor(client):
    page = client.get("/docs").text
    document = client.get("/openapi.json").json
    for path in document["paths"].values():
        for method, operation in path.items():
            if method != "parameters":
                assert f'<h4 id="{operation["operationId"]}">' in page
    for anchor in (
        "listCredentials.query.expiring_before",
        "rotateCredential.path.secret_id",
        "rotateCredential.header.Idempotency-Key",
        "rotateCredential.request.overlap_seconds",
        "rotateCredential.response.client_secret",
        "getCredential.response.secrets.hint",
        "verify.response.X-LeadVibe-Secret-Expires-At",
        "issueCredential.errors",
    ):
        assert f'id="{anchor}"' in page


def test_each_error_is_explained_once_and_linked_from_each_call(client):
    page = client.get("/docs").text
    document = client.get("/openapi.json").json
    types = re.findall(r'"type": ?"(/docs/errors#[a-z-]+)"', client.get("/openapi.json").text)
    assert document["paths"]
    for each in set(types):
        assert f'href="{each.removeprefix("/")}"' in page
    errors = client.get("/docs/errors").text
    slugs = [each.slug for each in PROBLEM_TYPES]
    assert re.findall(r'<h2 id="([^"]+)"', errors) == slugs
    assert "409" in errors.partition('id="last-secret"')[2].partition("</h2>")[0]
    assert len(set(slugs)) == len(slugs)


def test_each_problem_has_a_status_that_its_type_names():
    found = [each for each in vars(problems).values() if isinstance(each, Problem)]
    assert found
    assert [
        each for each in found if each.status not in (each.type.status, each.type.other_status)
    ] == []


def test_the_text_says_what_the_page_says(client):
    text = client.get("/docs.md")
    assert text.mimetype == "text/markdown"
    page = client.get("/docs").text
    shown = "".join(client.get(path).text for path in PAGES)
    for heading in re.findall(r"^#{2,3} (.+)$", text.text, re.MULTILINE):
        assert heading in shown or heading.replace("'", "&#39;") in shown
    for operation_id in ("issueCredential", "verify"):
        assert f'id="{operation_id}"' in page
    assert "`overlap_seconds`" in text.text


@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_similar_addresses_redirect_to_the_page(client, path):
    answer = client.get(path)
    assert answer.status_code == 308
    assert urljoin(path, answer.headers["Location"]) == "/docs"


TEXTS = ("/docs.md", "/docs/errors.md", "/llms.txt")
CACHEABLE = (*PAGES, *TEXTS, "/docs/search.json", "/openapi.json")


@pytest.mark.parametrize("path", CACHEABLE)
def test_a_page_that_the_caller_has_is_not_sent_again(client, path):
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.data == b""
    assert again.headers["ETag"] == first.headers["ETag"]
    other = client.get(path, headers={"If-None-Match": '"x"'})
    assert other.status_code == 200
    assert other.data == first.data


@pytest.mark.parametrize("path", CACHEABLE)
@pytest.mark.parametrize("accepted", ["gzip", "gzip, br", "*", "br;q=1, gzip;q=0.5"])
def test_a_page_is_compressed_if_the_caller_allows_it(client, path, accepted):
    plain = client.get(path)
    compressed = client.get(path, headers={"Accept-Encoding": accepted})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.data) == plain.data
    assert compressed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert compressed.headers["ETag"] != plain.headers["ETag"]


def test_a_page_with_a_token_is_compressed_but_never_kept(app_with):
    app = app_with()
    app.development_token = lambda: "eyJ.development.token"
    answer = app.test_client().get("/docs", headers={"Accept-Encoding": "gzip"})
    assert b"eyJ.development.token" in gzip.decompress(answer.data)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "identity", "\x00"])
def test_a_page_is_sent_uncompressed_otherwise(client, accepted):
    answer = client.get("/docs", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-None-Match", "If-Range", "Range"])
@pytest.mark.parametrize(
    "value", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "x", "", '"', "bytes=0-1"]
)
def test_a_page_is_sent_whatever_a_conditional_header_says(client, name, value):
    assert client.get("/docs", headers={name: value}).status_code == 200


def test_a_file_of_the_page_is_kept_for_a_year(client):
    for path in assets_of(client.get("/docs")):
        headers = client.get(path).headers
        assert headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", ["docs.css", "docs.000000000000.css", "..%2fpage.py", "x"])
def test_an_unknown_file_is_not_found(client, name):
    assert client.get(f"/docs/static/{name}").status_code == 404


def test_the_problem_type_distinguishes_errors_with_the_same_status(member, issued):
    """Both an unknown address and an unknown credential are 404, for example."""
    types = [
        member.get(path).json["type"]
        for path in ("/nothing", "/secrets/sec_nothing", "/secrets?limit=0")
    ]
    types.append(member.delete(f"/secrets/{issued.secret_id}/secrets/none").json["type"])
    types.append(member.post("/secrets", json={}).json["type"])
    types.append(member.post("/secrets", data="{", content_type="application/json").json["type"])
    assert [each.removeprefix("/docs/errors#") for each in types] == [
        "not-found",
        "credential-not-found",
        "invalid-parameter",
        "client-secret-not-found",
        "invalid-input",
        "malformed-json",
    ]
