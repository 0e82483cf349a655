import re

import pytest


def test_the_page_loads_its_own_files_and_no_others(client):
    page = client.get("/docs")
    assert page.status_code == 200
    paths = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(paths) == 6
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
