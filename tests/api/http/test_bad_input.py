import pytest

from app.api.http.problems import MAX_BODY_BYTES
from app.credentials.management import CredentialService
from app.credentials.verification import Verifier
from tests.helpers import basic

JSON = "application/json"


def post(client, data, content_type=JSON, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/secrets", data=data, content_type=content_type, headers=named)


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"{", b"name", b'{"name":NaN}', b'{"name":-Infinity}', b'{"name":"a","name":"b"}',
        b'{"name":"\xff"}', b"\xff\xfe", b'{"name":' + b"9" * 6000 + b"}", b"[" * 16000,
        b'{"name":' * 1600, b"[]", b"null", b"5", b'"name"', b"true",
    ],
    ids=lambda body: ascii(body[:20]),
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_rejected(member, rows, body):
    answer = post(member, body)
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert list(answer.json) == ["type", "title", "status", "detail"]
    assert rows.count("credentials") == 0


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
     "application/problem+json", "application/jsonp", "json",
     "application/json, text/plain"],
)  # fmt: skip
def test_a_body_of_another_media_type_is_rejected(member, rows, content_type):
    answer = post(member, b'{"name":"x"}', content_type)
    assert (answer.status_code, answer.json["title"]) == (415, "Unsupported Media Type")
    assert rows.count("credentials") == 0


@pytest.mark.parametrize(
    "parameter",
    ["charset=utf-8", "charset=UTF-8", 'charset="utf-8"', "charset=utf8", "charset=us-ascii",
     "charset=latin-1", "charset=utf-16", "charset=", "charset", "version=1"],
)  # fmt: skip
def test_json_is_utf_8_whatever_charset_it_declares(member, parameter):
    content_type = f"Application/JSON; {parameter}"
    answer = post(member, '{"name":"é日"}'.encode(), content_type)
    assert (answer.status_code, answer.json["name"]) == (200, "é日")
    for body in ('{"name":"é"}'.encode("latin-1"), '{"name":"x"}'.encode("utf-16")):
        assert post(member, body, content_type).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", "x"])
def test_a_body_with_a_content_encoding_is_rejected(member, encoding):
    assert post(member, b'{"name":"x"}', Content_Encoding=encoding).status_code == 415


def test_a_body_of_16_kib_is_accepted(member):
    body = b'{"name":"x"}'.ljust(MAX_BODY_BYTES)
    assert len(body) == 16 * 1024
    assert post(member, body).status_code == 200


def test_a_body_over_16_kib_is_too_large(member, rows):
    answer = post(member, b'{"name":"x"}'.ljust(MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json["status"]) == (413, 413)
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_an_unsupported_method_is_answered_with_the_allowed_ones(member, method):
    answer = member.open("/secrets", method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert answer.json["title"] == "Method Not Allowed"


@pytest.mark.parametrize("query", ["name=%FF", "name=x%C3", "name=\xff", "unknown=%ED%A0%80"])
@pytest.mark.parametrize("path", ["/secrets", "/secrets/events"])
def test_a_query_that_is_not_utf_8_is_rejected(member, path, query):
    answer = member.get(path, environ_overrides={"QUERY_STRING": query})
    assert (answer.status_code, answer.json["type"], answer.json["detail"]) == (
        400,
        "/docs/errors#invalid-parameter",
        "The query must be UTF-8",
    )
    assert member.get(f"{path}?actor=%C3%BC&name=%C3%BC").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/verify"])
@pytest.mark.parametrize(
    ("host", "is_valid"),
    [("localhost", True), ("a_b.example:8000", True), ("192.0.2.1", True),
     ("[2001:db8::1]:80", True), ("", True), ("x" * 255, True),
     ("x" * 256, False), ("a b", False), ("a@b", False),
     ("x/y", False), ("<script>", False), ("a,b", False), ("a:b", False), ("::1", False),
     ("a%2", False), ("\xe9", False)],
)  # fmt: skip
def test_an_invalid_host_is_rejected(client, path, host, is_valid):
    answer = client.get(path, environ_overrides={"HTTP_HOST": host})
    assert answer.status_code == (400 if not is_valid else 200 if path == "/healthz" else 401)
    if not is_valid:
        assert answer.json["detail"] == "The Host header is not valid"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/secrets", b""), ("POST", "/secrets", b'{"name":"x"}'), ("POST", "/verify", b"{}"),
     ("GET", "/healthz", b"")],
)  # fmt: skip
def test_an_offer_to_upgrade_is_ignored(member, method, path, body):
    offer = {"Connection": "Upgrade", "Upgrade": "websocket"}
    answers = [
        member.open(path, method=method, data=body, content_type=JSON, headers=headers)
        for headers in ({}, offer)
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].status_code in (200, 401)


@pytest.mark.parametrize(
    "path",
    ["/secret", "/secrets/", "/secrets//", "/Secrets", "/secrets%00", "/%ff",
     "/secrets/sec_%00", "/secrets/../secrets", "/static/x", "/docs/x", "/docs/static/../../app.py",
     "/docs/static/..%2f..%2fauth.py", "/docs/static/"],
)  # fmt: skip
def test_an_unknown_path_is_not_found(member, path):
    answer = member.get(path)
    assert answer.status_code == 404
    assert answer.json == {
        "type": "/docs/errors#not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "No such resource",
    }


@pytest.mark.parametrize(
    ("path", "service", "operation"),
    [("/secrets", CredentialService, "list"), ("/verify", Verifier, "verify")],
)
def test_an_unexpected_error_reveals_no_details(
    client, issuer, monkeypatch, caplog, path, service, operation
):
    def fail(*_, **__):
        raise LookupError("s3cret")

    monkeypatch.setattr(service, operation, fail)
    authorization = {
        "/secrets": {"Authorization": f"Bearer {issuer.sign()}"},
        "/verify": basic("x", "y"),
    }
    answer = client.get(path, headers={"X-Request-Id": "req-1"} | authorization[path])
    assert answer.status_code == 500
    assert answer.json["title"] == "Internal Server Error"
    assert "LookupError" not in answer.text
    assert "s3cret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.fields["request_id"], record.exc_info[0]) == ("req-1", LookupError)
