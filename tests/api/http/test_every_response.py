import re

import pytest

PATHS = [
    "/secrets",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/errors",
    "/nothing",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_response_returns_the_request_id_of_the_caller(client, path):
    answer = client.get(path, headers={"X-Request-Id": "Az09._-"})
    assert answer.headers["X-Request-Id"] == "Az09._-"


def test_a_request_id_may_have_128_characters(client):
    answer = client.get("/healthz", headers={"X-Request-Id": "x" * 128})
    assert answer.headers["X-Request-Id"] == "x" * 128


@pytest.mark.parametrize("offered", [None, "", "x" * 129, "a b", "a,b", "é", "a/b", "<script>"])
def test_without_a_valid_request_id_a_response_gets_a_new_one(client, offered):
    headers = {} if offered is None else {"X-Request-Id": offered}
    first, second = (client.get("/healthz", headers=headers) for _ in range(2))
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", first.headers["X-Request-Id"])
    assert first.headers["X-Request-Id"] not in (offered, second.headers["X-Request-Id"])


def test_responses_about_credentials_are_not_cached(client, member):
    answers = [
        member.get("/secrets"),
        member.post("/secrets", json={"name": "x"}),
        member.post("/secrets", json={}),
        member.put("/secrets"),
        client.get("/secrets"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 405, 401]
    assert all(answer.headers["Cache-Control"] == "no-store" for answer in answers)


def test_every_status_has_the_phrase_of_its_standard(member, client, issued):
    answers = [
        client.get("/"),
        client.get("/healthz"),
        client.get("/nothing"),
        member.patch(f"/secrets/{issued.secret_id}", json={}),
        member.delete("/secrets"),
    ]
    assert [each.status for each in answers] == [
        "308 Permanent Redirect",
        "200 OK",
        "404 Not Found",
        "204 No Content",
        "405 Method Not Allowed",
    ]


def test_every_route_except_the_public_ones_requires_authentication(app, client):
    """It reads the URL map, so that a route that is added later is covered."""
    public = {"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/llms.txt"}
    public |= {"/docs", "/docs/", "/docs.md", "/docs/<name>.md", "/docs/errors", "/docs/changelog"}
    public |= {"/docs/search.json", "/docs/static/<name>", "/llms-full.txt", "/leaks"}
    for rule in app.url_map.iter_rules():
        if rule.rule in public:
            continue
        path = re.sub("<[^>]*>", "x", rule.rule.replace("<scope:scope>", "ingest"))
        for method in rule.methods - {"HEAD"}:
            answer = client.open(path, method=method)
            assert (method, rule.rule, answer.status_code) == (method, rule.rule, 401)
            assert answer.headers["WWW-Authenticate"]
