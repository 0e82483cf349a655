"""The parts that only a real server shows: the bytes on the wire and the log lines."""

import json
import re

import pytest

from app.credentials.generator import generate_client_id, generate_client_secret
from tests.helpers import basic, caller
from tests.issuer import Issuer
from tests.running_server import ROOT

OPERATIONS = ROOT / "docs" / "operations.md"


def head(issuer: Issuer, *lines: str, method="POST", path="/secrets") -> bytes:
    start = (
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Authorization: Bearer {issuer.sign()}",
        "Content-Type: application/json",
    )
    return ("\r\n".join((*start, *lines)) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_problem(answer: bytes, expected: int) -> None:
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == expected
    assert b"Content-Type: application/problem+json" in headers
    assert b"X-Request-Id: " in headers
    assert json.loads(body)["status"] == expected


def test_a_credential_is_issued_and_listed(server, issuer):
    bearer = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
    issued = server.request("POST", "/secrets", b'{"name": "CRM backend"}', **bearer)
    assert issued.status == 200
    assert issued.headers["cache-control"] == "no-store"
    (listed,) = server.request("GET", "/secrets", **bearer).json()
    assert listed["secret_id"] == issued.json()["secret_id"]


def test_a_chunked_body_is_read(server, issuer):
    body = chunk(b'{"name":') + chunk(b'"x"}') + chunk(b"")
    answer = server.send(head(issuer, "Transfer-Encoding: chunked") + body)
    assert status(answer) == 200


def test_a_chunked_body_over_16_kib_is_too_large(server, issuer, rows):
    body = chunk(b'{"name":"x"}') + chunk(b" " * 17_000) + chunk(b"")
    assert_problem(server.send(head(issuer, "Transfer-Encoding: chunked") + body), 413)
    assert rows.count("credentials") == 0


def test_a_body_over_16_kib_is_rejected_before_it_is_sent(server, issuer):
    answer = server.send(head(issuer, "Content-Length: 17000"), half_close=False)
    assert_problem(answer, 413)


def test_a_transfer_coding_other_than_chunked_is_rejected(server, issuer, rows):
    body = chunk(b'{"name":"x"}') + chunk(b"")
    assert_problem(server.send(head(issuer, "Transfer-Encoding: gzip, chunked") + body), 501)
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "SCRIPT-NAME"])
def test_a_header_cannot_change_the_path(server, issuer, name):
    answer = server.send(head(issuer, f"{name}: /secrets", method="GET", path="/nothing"))
    assert status(answer) in (400, 404)
    answer = server.send(head(issuer, f"{name}: /v", method="GET", path="/v/secrets"))
    assert status(answer) in (400, 404)


def test_a_body_shorter_than_its_content_length_is_rejected(server, issuer, rows):
    answer = server.send(head(issuer, "Content-Length: 100") + b'{"name":"x"}')
    assert_problem(answer, 400)
    assert rows.count("credentials") == 0


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n", b"5\r\n{}", b"-5\r\n{}\r\n", b"", b"2\r\n{}XX0\r\n\r\n"]
)
def test_a_malformed_chunked_body_is_rejected(server, issuer, rows, body):
    assert_problem(server.send(head(issuer, "Transfer-Encoding: chunked") + body), 400)
    assert rows.count("credentials") == 0


@pytest.mark.parametrize(
    ("path", "expected"), [("/verify", 401), ("/healthz", 200), ("/secrets", 401), ("/nope", 404)]
)
def test_all_headers_together_have_at_most_16_kib(server, path, expected):
    def answer_to(size):
        lines = ["Host: x", "Connection: close", *[f"X-Long: {'x' * 4000}"] * 3, "X-Rest: "]
        block = "\r\n".join(lines)
        return server.send(f"GET {path} HTTP/1.1\r\n{block:x<{size}}\r\n\r\n".encode())

    assert status(answer_to(16 * 1024)) == expected
    assert_problem(answer_to(16 * 1024 + 1), 431)
    assert_problem(answer_to(200_000), 431)


@pytest.mark.parametrize("name", ["Accept-Encoding", "Content-Type", "If-None-Match"])
@pytest.mark.parametrize("path", ["/docs", "/secrets", "/nope"])
def test_a_list_in_a_header_has_at_most_1024_characters(server, path, name):
    def answer_to(*values):
        lines = "".join(f"{name}: {value}\r\n" for value in values)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"
        return server.send(head.encode())

    assert status(answer_to("a," * 512)) == status(answer_to("a"))
    assert_problem(answer_to("a," * 512 + "a"), 431)
    if name != "Content-Type":  # the last one of several counts
        assert_problem(answer_to("a," * 256, "a," * 256), 431)


def test_a_verification_does_not_depend_on_headers_that_it_does_not_read(server, service):
    """A proxy passes the sender's headers on, and must not get 431 for them."""
    issued = service.issue(caller(), name="x")
    lists = dict.fromkeys(("Accept_Encoding", "If_None_Match", "Cookie"), "a," * 1500)
    pair = basic(issued.client_id, issued.client_secret)
    assert server.request("GET", "/verify", **pair, **lists).status == 200


@pytest.mark.parametrize("path", ["/verify", "/secrets", "/docs"])
def test_a_chunked_body_has_at_most_256_chunks(server, issuer, path):
    method = "GET" if path == "/docs" else "POST"
    start = head(issuer, "Transfer-Encoding: chunked", path=path, method=method)
    usual = status(server.send(start + chunk(b"x") + chunk(b"")))
    assert status(server.send(start + chunk(b"x") * 255 + chunk(b""))) == usual
    answer = server.send(start + chunk(b"x") * 256 + chunk(b""))
    assert_problem(answer, 400)
    assert b"The request body cannot be read" in answer


def test_a_chunks_size_and_extensions_have_at_most_64_bytes(server, issuer, rows):
    start = head(issuer, "Transfer-Encoding: chunked")
    body = b'{"name":"x"}\r\n' + chunk(b"")

    def answer_to(size):
        return server.send(start + b"c;" + b"x" * (size - 2) + b"\r\n" + body)

    assert status(answer_to(64)) == 200
    assert_problem(answer_to(65), 400)
    assert rows.count("credentials") == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"GET /secrets HTTP/1.1\r\n\r\n", 400),
        (b"GET /secrets HTTP/1.1\r\nHost: x\r\nAuthorization Bearer s3cret\r\n\r\n", 400),
        (b"GET /secrets HTTP/1.1\r\nHost: x\r\nAuthorization: a\x00s3cret\r\n\r\n", 400),
        (b"POST /secrets HTTP/1.1\r\nHost: x\r\nContent-Length: s3cret\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"s3cret\r\n\r\n", 400),
        (b"GET /s3cret HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"s3cret" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"s3cret" * 2000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: s3cret\r\n\r\n", 501),
    ],
    ids=lambda value: ascii(value[:60]) if isinstance(value, bytes) else str(value),
)
def test_malformed_http_is_answered_with_a_problem_document_that_does_not_quote_it(
    server, message, expected
):
    answer = server.send(message)
    assert_problem(answer, expected)
    assert b"s3cret" not in answer
    assert "s3cret" not in server.output.read_text()


def test_each_request_is_logged_as_one_json_line(server, issuer):
    server.request(
        "POST", "/secrets", b'{"name": "x"}',
        Authorization=f"Bearer {issuer.sign()}", Content_Type="application/json",
        X_Request_Id="one-line",
    )  # fmt: skip
    (line,) = [line for line in server.log() if line.get("request_id") == "one-line"]
    (page,) = re.findall(r"## Logs\n(.*?)\n## ", OPERATIONS.read_text(), re.DOTALL)
    explained = set(re.findall(r"`(\w+)`", page))
    assert line.keys() - explained == {"time", "level", "logger", "message"}
    assert line.pop("duration_ms") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "app.api.http.access_log",
        "message": "request",
        "request_id": "one-line",
        "method": "POST",
        "route": "/secrets",
        "status": 200,
        "address": "127.0.0.1",
        "actor": "ada",
        "unit": "unit_demo",
        "client_id": None,
    }


def test_every_verification_is_logged_with_its_client_id_and_outcome(server, issuer):
    bearer = {"Authorization": f"Bearer {issuer.sign()}", "Content_Type": "application/json"}
    issued = server.request("POST", "/secrets", b'{"name": "x"}', **bearer).json()
    client_id, secret = issued["client_id"], issued["client_secret"]
    pairs = {
        "accepted": (client_id, secret),
        "malformed": (client_id, f"{secret}\n"),
        "wrong": (client_id, generate_client_secret()),
        "unknown": (generate_client_id(), secret),
    }
    for method in ("GET", "HEAD", "POST"):
        for outcome, pair in pairs.items():
            named = {"X_Request_Id": f"{method}-{outcome}"}
            server.request(method, "/verify", **basic(*pair), **named)
            server.request(method, "/verify?x=1", b"{}", **basic(*pair), **named)
    server.request("PUT", f"/secrets/{issued['secret_id']}",
                   b'{"trust_upstream_consent": false, "enabled": false}', **bearer)  # fmt: skip
    server.request("GET", "/verify", **basic(*pairs["accepted"]), X_Request_Id="GET-disabled")
    names = {f"{method}-{outcome}" for method in ("GET", "HEAD", "POST") for outcome in pairs}
    names.add("GET-disabled")
    lines = [line for line in server.log() if line.get("request_id") in names]
    assert len(lines) == 2 * 3 * 4 + 1
    for line in lines:
        outcome = line["request_id"].partition("-")[2]
        logged = line["outcome"], line["client_id"]
        assert logged == (outcome, pairs.get(outcome, pairs["accepted"])[0])
    assert secret[6:] not in server.output.read_text()


def test_the_log_contains_no_token_no_secret_and_no_unknown_path(server, issuer):
    token = issuer.sign()
    bearer = {"Authorization": f"Bearer {token}", "Content_Type": "application/json"}
    secret = server.request("POST", "/secrets", b'{"name": "x"}', **bearer).json()["client_secret"]
    server.request("GET", f"/{secret}?token={secret}", **bearer)
    server.request("POST", "/secrets", json.dumps({"name": secret * 2, secret: 1}), **bearer)
    server.request("GET", "/secrets", Authorization=f"Basic {secret}")
    server.request("GET", "/secrets", Authorization=f"Bearer {secret}", Cookie=f"activeOu={secret}")
    log = server.output.read_text()
    assert secret[6:] not in log
    assert token not in log
    assert "Authorization" not in log


def test_a_kept_alive_connection_still_works_after_a_rejected_body(server, issuer):
    rejected = head(issuer, "Content-Length: 2").replace(b"Connection: close\r\n", b"") + b"[]"
    answers = server.send(rejected + head(issuer, method="GET"))
    assert answers.count(b"HTTP/1.1 400") == answers.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("Content-Length: 17000", b"", 413),
        ("Transfer-Encoding: chunked", chunk(b" " * 17_000), 413),
        ("Transfer-Encoding: chunked", b"zz\r\n", 400),
        ("Transfer-Encoding: gzip, chunked", b"", 501),
    ],
)
@pytest.mark.parametrize("path", ["/secrets", "/verify", "/healthz"])
def test_a_body_that_is_not_read_closes_the_connection(server, issuer, path, line, body, expected):
    method = "GET" if path == "/healthz" else "POST"
    token = f"Authorization: Bearer {issuer.sign()}\r\n" if path == "/secrets" else ""
    message = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{token}{line}\r\n\r\n".encode() + body
    answer = server.send(message, half_close=False)
    assert_problem(answer, expected)
    assert answer.count(b"Connection: close\r\n") == 1
    assert b"keep-alive" not in answer


@pytest.mark.parametrize("name", ["X-Request-Id", "x-request-id"])
def test_malformed_http_keeps_the_callers_request_id(server, name):
    message = f"GET / HTTP/1.1\r\nHost: x\r\n{name}: mine-1\r\nAuthorization s3cret\r\n\r\n"
    answer = server.send(message.encode())
    assert_problem(answer, 400)
    assert b"X-Request-Id: mine-1\r\n" in answer
    assert b"X-Content-Type-Options: nosniff\r\n" in answer
    assert b"Cache-Control: no-store\r\n" in answer


@pytest.mark.parametrize("offered", ["X-Request-Id: malformed-1", "X-Request-Id: a b"])
def test_the_log_line_of_malformed_http_has_its_request_id(server, offered):
    message = f"GET / HTTP/1.1\r\nHost: x\r\n{offered}\r\nAuthorization s3cret\r\n\r\n"
    request_id = re.search(rb"X-Request-Id: (.*)\r", server.send(message.encode()))[1].decode()
    (line,) = [line for line in server.log() if line.get("request_id") == request_id]
    del line["time"]
    assert line == {
        "level": "WARNING",
        "logger": "app.server.malformed_http",
        "message": "request not handled",
        "request_id": request_id,
        "status": 400,
    }


def test_malformed_http_gets_a_new_request_id_if_the_callers_is_invalid(server):
    answer = server.send(b"GET / HTTP/1.1\r\nX-Request-Id: a b\r\nAuthorization s3cret\r\n\r\n")
    assert re.search(rb"X-Request-Id: [0-9a-f]{32}\r\n", answer)


def test_a_second_idempotency_key_is_rejected(server, issuer, rows):
    def issue(*lines):
        return server.send(head(issuer, *lines, "Content-Length: 12") + b'{"name":"x"}')

    one, two = "Idempotency-Key: a,comma,is,visible", "idempotency-key: another-key-of-ours"
    assert_problem(issue(one, two), 400)
    assert rows.count("credentials") == 0
    assert status(issue(one)) == 200


@pytest.mark.parametrize(("path", "expected"), [("/healthz", 200), ("/verify", 401)])
def test_only_http_1_1_requires_a_host(server, path, expected):
    """HAProxy's health checks speak HTTP/1.0, without a Host."""
    assert status(server.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())) == expected
    assert_problem(server.send(f"GET {path} HTTP/1.1\r\nX: y\r\n\r\n".encode()), 400)


@pytest.mark.parametrize("host", ["a b", "a@b", "x" * 300, "x\r\nHost: x"])
@pytest.mark.parametrize("path", ["/healthz", "/verify"])
def test_an_invalid_host_is_rejected(server, path, host):
    message = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert_problem(server.send(message), 400)


@pytest.mark.parametrize("path", ["//secrets", "///secrets", "//verify", "//docs", "/docs//static"])
def test_a_path_with_an_empty_segment_is_not_found(server, issuer, path):
    assert_problem(server.send(head(issuer, method="GET", path=path)), 404)


def test_headers_that_disagree_on_the_scheme_are_ignored(server, issuer):
    forwarded = ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off")
    assert status(server.send(head(issuer, *forwarded, method="GET"))) == 200
