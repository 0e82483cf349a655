import re

import pytest

from app.api.http import problems
from app.api.http.problem_types import PROBLEM_TYPES
from app.api.http.problems import Problem


def test_the_page_loads_its_own_files_and_no_others(client):
    page = client.get("/docs")
    assert page.status_code == 200
    paths = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(paths) == 7
    for path in paths:
        assert path.startswith("/")
        assert not path.startswith("//")
        with client.get(path) as answer:
            assert answer.status_code == 200, path


def test_the_page_may_only_run_its_own_scripts(client):
    page = client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert re.findall(r"<script(?! src=)", page.text) == []
    assert re.findall(r"\son\w+=", page.text) == []


@pytest.mark.parametrize("path", ["/docs/static/docs.js", "/docs/swagger-ui/swagger-ui.css"])
@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "x", ""])
def test_a_file_is_sent_whatever_if_modified_since_says(client, path, date):
    with client.get(path, headers={"If-Modified-Since": date}) as answer:
        assert answer.status_code == 200


def test_every_kind_of_problem_has_its_section(client):
    page = client.get("/docs/errors")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    slugs = [each.slug for each in PROBLEM_TYPES]
    assert re.findall(r'<h2 id="([^"]+)"', page.text) == slugs
    assert len(set(slugs)) == len(slugs)
    used = {each.type for each in vars(problems).values() if isinstance(each, Problem)}
    assert used <= set(PROBLEM_TYPES)


def test_kinds_of_problem_tell_what_a_status_does_not(member, issued):
    """An unknown address and an unknown credential differ; a foreign credential is unknown."""
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
