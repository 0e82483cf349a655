"""What programs and language models read: the Markdown, its parts, the index, the changelog."""

import json
import re
from urllib.parse import urljoin, urlsplit

import pytest

from app.docs.changelog import callers_part_of
from app.docs.origin import ORIGIN, origin_of
from app.docs.reference import read_reference
from tests.docs.guide import documentation

TEXTS = ("/docs.md", "/llms.txt", "/docs/issueCredential.md", "/docs/errors.md")
HOSTILE = (
    "a$(id)", "a'b", "a;id", "a&b=c", "[::1]$(id)", "a(b)", "é.example", "%3Cb%3E", "",
)  # fmt: skip


def links_of(text):
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)]+)\)", without_code)


def test_the_index_has_the_shape_of_llmstxt_org(client):
    answer = client.get("/llms.txt")
    assert answer.mimetype == "text/markdown"
    title, summary, *sections = re.split(r"\n\n(?=> |## )", answer.text)
    assert title == "# LeadVibe Credentials"
    assert summary.startswith("> ")
    for section in sections:
        lines = section.strip().split("\n")[2:]
        assert lines
        for line in lines:
            assert re.fullmatch(r"- \[[^\]]+\]\([^)]+\)(: .+)?", line), line


def test_the_index_leads_to_every_part_and_they_are_the_whole(client):
    links = links_of(client.get("/llms.txt").text)
    for operation in read_reference(client.get("/openapi.json").json).operations:
        assert f"docs/{operation.id}.md" in links
    whole = documentation(client)
    for link in links:
        part = client.get(urljoin("/llms.txt", link), headers={"Host": urlsplit(ORIGIN).netloc})
        assert part.status_code == 200, link
        if link.startswith("docs/"):
            for code in re.findall(r"^```\w+\n(.*?)^```$", part.text, re.DOTALL | re.MULTILINE):
                assert code in whole


def test_the_whole_has_two_addresses(client):
    assert client.get("/llms-full.txt").data == client.get("/docs.md").data
    assert client.get("/docs/nothing.md").status_code == 404


@pytest.mark.parametrize("path", ["/docs/issueCredential.md", "/docs/i-send-events.md",
                                  "/docs/i-manage-credentials.md", "/docs/rules-for-every-call.md",
                                  "/docs/what-is-a-credential.md", "/docs/errors.md"])  # fmt: skip
def test_the_links_of_a_part_lead_somewhere(client, path):
    part = client.get(path)
    assert part.text.startswith("# ")
    for link in links_of(part.text):
        url = urlsplit(urljoin(path, link))
        if not url.netloc:
            target = client.get(url.path)
            assert target.status_code == 200, link
            if url.fragment:
                assert f'id="{url.fragment}"' in target.text, link


@pytest.mark.parametrize("path", ["/docs", "/docs/errors", "/docs/changelog"])
def test_a_page_names_its_markdown_and_the_index(client, path):
    page = client.get(path).text
    for relation, target in (("alternate", f"{path}.md"), ("describedby", "/llms.txt")):
        href = re.search(rf'<link rel="{relation}" type="text/markdown" href="([^"]+)"', page)[1]
        assert urljoin(path, href) == target
        assert client.get(target).status_code == 200


@pytest.mark.parametrize("path", TEXTS[:3])
@pytest.mark.parametrize("host", ["credentials.example.com", "10.0.0.1:8443", "[2001:db8::1]:80"])
def test_a_text_has_the_address_that_it_is_served_from(client, path, host):
    answer = client.get(path, headers={"Host": host})
    assert f"http://{host}" in answer.text
    assert ORIGIN not in answer.text
    other = client.get(path, headers={"Host": "other.example"})
    assert other.headers["ETag"] != answer.headers["ETag"]
    unchanged = {"Host": host, "If-None-Match": answer.headers["ETag"]}
    assert client.get(path, headers=unchanged).status_code == 304
    assert client.get(path, headers=unchanged | {"Host": "other.example"}).status_code == 200


def test_the_page_has_that_address_too(client):
    page = client.get("/docs", headers={"Host": "credentials.example.com"}).text
    assert set(re.findall(r"<span data-origin>([^<]+)<", page)) == {
        "http://credentials.example.com"
    }


@pytest.mark.parametrize("host", HOSTILE)
def test_a_hostile_host_is_never_repeated(client, host):
    assert origin_of(host, "", behind_proxies=True) == ORIGIN
    for path in ("/docs", *TEXTS):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 400 or ORIGIN in answer.text or "://" not in answer.text
        assert not host or host not in answer.text


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"])
def test_no_other_header_changes_the_address(client, name):
    plain = client.get("/docs.md")
    assert client.get("/docs.md", headers={name: "evil.example"}).data == plain.data


@pytest.mark.parametrize(
    ("proxies", "scheme", "expected"),
    [
        (0, "https", "http"),
        (1, "https", "https"),
        (1, "http, HTTPS", "https"),
        (1, "https, http", "http"),
        (1, "javascript", "http"),
        (1, "", "http"),
    ],
)
def test_the_scheme_is_what_a_trusted_proxy_says(app_with, proxies, scheme, expected):
    client = app_with(trusted_proxies=proxies).test_client()
    text = client.get("/llms.txt", headers={"Host": "x.example", "X-Forwarded-Proto": scheme}).text
    assert f"{expected}://x.example/llms.txt" in text


def test_the_public_url_is_the_address_whatever_the_request_says(app_with):
    client = app_with(public_url="https://example.com/credentials").test_client()
    for path in ("/docs", *TEXTS[:3]):
        text = client.get(path, headers={"Host": "other.example"}).text
        assert "https://example.com/credentials" in text
        assert "other.example" not in text


def test_every_error_has_an_example_of_its_type(client):
    page = client.get("/docs/errors.md").text
    for section in page.split("\n## ")[1:]:
        slug = section.partition("\n")[0]
        example = json.loads(re.search(r"^```json\n(.*?)^```$", section, re.DOTALL | re.M)[1])
        assert example["type"] == f"/docs/errors#{slug}"


CHANGELOG = """# Changelog

## Unreleased

### Added

- **API:** A call, see [Upgrading](docs/upgrading.md)
  and [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
- A setting.

### Fixed

- A command.

## 1.0.0 - 2027-01-31

### Fixed

- A metric.

## 0.9.0 - 2026-11-26

### Changed

- **API:** Another call.
"""


def test_the_changelog_has_the_entries_for_callers_alone():
    assert callers_part_of(CHANGELOG) == (
        "### Unreleased\n\n**Added**\n\n- A call, see Upgrading\n"
        "  and [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).\n\n"
        "### 0.9.0 - 2026-11-26\n\n**Changed**\n\n- Another call."
    )


def test_the_changelog_is_that_of_the_repository(client):
    for path in ("/docs/changelog", "/docs.md"):
        text = client.get(path).text
        assert "0.9.0 - 2026-11-26" in text
        assert "credentials reapply-revocations" not in text


def test_what_the_document_marks_as_deprecated_is_listed(client):
    document = client.get("/openapi.json").json
    assert list(read_reference(document).deprecated()) == []
    document["paths"]["/healthz"]["get"]["deprecated"] = True
    listing = document["paths"]["/secrets"]["get"]
    limit = next(
        each
        for each in listing["parameters"]
        if each.get("name") == "limit" or each.get("$ref", "").endswith("/limit")
    )
    limit["deprecated"] = True
    assert list(read_reference(document).deprecated()) == [
        ("listCredentials.query.limit", "limit of GET /secrets"),
        ("getHealth", "GET /healthz"),
    ]


def test_the_search_knows_headings_calls_fields_and_errors(client):
    found = {(kind, title): url for kind, title, _, _, url in client.get("/docs/search.json").json}
    assert found["Guide", "Rotation"] == "docs#rotation"
    assert found["Call", "Issue a credential"] == "docs#issueCredential"
    assert found["Field", "secrets.hint"] == "docs#getCredential.response.secrets.hint"
    assert found["Error", "invalid-pair"] == "docs/errors#invalid-pair"
    pages = {path: client.get(f"/{path}").text for path in ("docs", "docs/errors")}
    for url in found.values():
        path, _, anchor = url.partition("#")
        assert f'id="{anchor}"' in pages[path], url


@pytest.mark.parametrize("path", ["/docs", "/docs/errors", "/docs.md"])
def test_what_comes_back_is_called_a_response(client, path):
    text = client.get(path).text
    assert re.findall(r"\banswers?\b(?!-)", text, re.IGNORECASE) == []


def test_only_fields_that_a_caller_may_leave_out_are_marked_as_required(client):
    text = client.get("/docs/rotateCredential.md").text
    path, response = (
        re.search(rf"^{title}[^\n]*\n\n((?:- .*\n)+)", text, re.MULTILINE)[1]
        for title in ("Path", "Response: 200")
    )
    assert "required" not in path + response
    assert "`name` (string, required)" in client.get("/docs/issueCredential.md").text
