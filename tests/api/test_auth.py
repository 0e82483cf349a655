import json
import logging
from dataclasses import replace

import pytest

from app import create_app
from tests.conftest import client_of
from tests.helpers import caller, claims_named
from tests.jwks_server import serving_keys
from tests.running_server import wait_until

CHALLENGE = 'Bearer realm="LeadVibe"'
INVALID_TOKEN = f'{CHALLENGE}, error="invalid_token"'


def challenge_of(client, authorization=None):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.get("/secrets", headers=headers)
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert answer.json == {
        "type": "/docs/errors#invalid-token",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Check authentication credentials",
    }
    return answer.headers["WWW-Authenticate"]


def test_a_missing_token_is_refused(client):
    assert challenge_of(client) == CHALLENGE


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x", "bearerx", "é", ","]
)
def test_another_kind_of_authorization_is_refused(client, authorization):
    assert challenge_of(client, authorization) == CHALLENGE


@pytest.mark.parametrize("token", ["x", "a.b.c", "x y", "é", "x, Bearer y", '"x"', "x" * 5000])
def test_a_malformed_token_is_refused(client, token):
    assert challenge_of(client, f"Bearer {token}") == INVALID_TOKEN


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://evil.example"}, {"aud": "x"}, {"unit_id": 5}, {"exp": 0, "aud": "x"},
     {"exp": 0, "unit_id": 5}, {"exp": "0"}, {"exp": -1}],
)  # fmt: skip
def test_an_invalid_token_is_refused_without_saying_why(client, issuer, claims):
    assert challenge_of(client, f"Bearer {issuer.sign(**claims)}") == INVALID_TOKEN


def test_the_caller_is_told_that_an_otherwise_valid_token_has_expired(client, issuer):
    answer = client.get("/secrets", headers={"Authorization": f"Bearer {issuer.sign(exp=0)}"})
    assert answer.status_code == 401
    assert answer.json["type"] == "/docs/errors#token-expired"
    expired = f'{INVALID_TOKEN}, error_description="The token has expired"'
    assert answer.headers["WWW-Authenticate"] == expired


def test_the_caller_is_not_told_so_if_the_signature_is_bad(client, issuer):
    head, claims, signature = issuer.sign(exp=0).split(".")
    forged = ".".join([head, claims, signature[::-1]])
    assert challenge_of(client, f"Bearer {forged}") == INVALID_TOKEN


def test_the_log_says_why_a_token_is_refused_but_not_the_token(client, issuer, caplog):
    token = issuer.sign(aud="x")
    client.environ_base["HTTP_X_REQUEST_ID"] = "req-1"
    with caplog.at_level(logging.INFO):
        challenge_of(client, f"Bearer {token}")
    (refused,) = [record for record in caplog.records if record.msg == "token refused"]
    assert refused.fields == {"request_id": "req-1", "reason": "wrong audience"}
    assert token not in "".join(str(vars(record)) for record in caplog.records)


def test_a_refused_caller_changes_nothing(client, rows):
    assert client.post("/secrets", json={"name": "x"}).status_code == 401
    assert rows.count("credentials") == 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(client, issuer, scheme):
    headers = {"Authorization": f"{scheme} {issuer.sign()}"}
    assert client.get("/secrets", headers=headers).status_code == 200


@pytest.mark.parametrize("claims", [{"unit_id": None}, {"unit_id": ""}, {"unit_ids": ["unit_a"]}])
def test_a_valid_token_without_an_active_unit_is_rejected(app, issuer, claims):
    without = () if "unit_id" in claims else ("unit_id",)
    answer = client_of(app, issuer.sign(without=without, **claims)).get("/secrets")
    assert answer.status_code == 400
    assert answer.json["detail"] == "Active OU must be set"


def active_unit(app, token, cookie):
    client = client_of(app, token)
    answer = client.post("/secrets", json={"name": "x"}, headers={"Cookie": cookie})
    return answer.json["unit_id"] if answer.status_code == 200 else answer.status_code


def test_the_cookie_selects_one_of_the_units_in_the_token(app, issuer):
    token = issuer.sign(unit_ids=["unit_a", "unit_b"])
    assert active_unit(app, token, "activeOu=unit_b") == "unit_b"
    assert active_unit(app, token, "other=x; activeOu=unit_a") == "unit_a"


def test_the_cookie_selects_the_unit_that_is_read(app, issuer, service):
    issued = service.issue(caller("unit_a"), name="x")
    client = client_of(app, issuer.sign(unit_ids=["unit_a"]))
    cookie = {"Cookie": "activeOu=unit_a"}
    assert client.get(f"/secrets/{issued.secret_id}", headers=cookie).status_code == 200
    assert client.get(f"/secrets/{issued.secret_id}").status_code == 404


def test_the_cookie_may_select_the_unit_of_the_token(app, issuer):
    assert active_unit(app, issuer.sign(), "activeOu=unit_demo") == "unit_demo"


def test_the_cookie_is_enough_if_the_token_only_lists_units(app, issuer):
    token = issuer.sign(without=("unit_id",), unit_ids=["unit_a"])
    assert active_unit(app, token, "activeOu=unit_a") == "unit_a"


@pytest.mark.parametrize(
    "unit", ["unit_other", "UNIT_DEMO", "unit_demo%20", "unit_*", "null", "unit_a,unit_b", "é"]
)
def test_a_cookie_that_names_a_foreign_unit_is_forbidden(app, issuer, rows, unit):
    assert active_unit(app, issuer.sign(unit_ids=["unit_a"]), f"activeOu={unit}") == 403
    assert rows.count("credentials") == 0


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("größe".encode(), "größe"),
        (rb'"gr\303\266\303\237e"', "größe"),  # as Werkzeug writes it
        ("größe".encode("latin-1"), 403),
        (b'"gr\xf6"', 403),
    ],
)
def test_the_cookie_is_utf_8(app, issuer, cookie, expected):
    token = issuer.sign(unit_ids=["größe"])
    header = b"activeOu=" + cookie
    assert active_unit(app, token, header.decode("latin-1")) == expected  # PEP 3333


@pytest.mark.parametrize("cookie", ["activeOu=", 'activeOu=""', "activeOu"])
def test_an_empty_cookie_is_rejected(app, issuer, cookie):
    assert active_unit(app, issuer.sign(), cookie) == 400


def test_two_cookies_with_different_units_are_rejected(app, issuer):
    token = issuer.sign(unit_ids=["unit_a"])
    assert active_unit(app, token, "activeOu=unit_a; activeOu=unit_demo") == 400


def test_a_second_cookie_header_is_not_lost(app, issuer):
    """gunicorn joins the two headers with a comma."""
    token = issuer.sign(unit_ids=["unit_a"])
    assert active_unit(app, token, "a=1,activeOu=unit_a") == 400


@pytest.fixture
def with_other_names(app_with):
    """A service for an issuer that puts its own claims under a namespace."""
    return app_with(jwt_claims=claims_named("https://example.com/unit", "/leadvibe/units"))


def test_the_active_unit_comes_from_the_configured_claims(with_other_names, issuer):
    own = {"https://example.com/unit": "unit_a", "leadvibe": {"units": ["unit_b"]}}
    token = issuer.sign(**own)
    assert active_unit(with_other_names, token, "") == "unit_a"
    assert active_unit(with_other_names, token, "activeOu=unit_a") == "unit_a"
    assert active_unit(with_other_names, token, "activeOu=unit_b") == "unit_b"
    assert active_unit(with_other_names, token, "activeOu=unit_demo") == 403


def test_the_default_claims_are_ignored_if_others_are_configured(with_other_names, issuer):
    token = issuer.sign(unit_ids=["unit_demo"])
    assert active_unit(with_other_names, token, "") == 400
    assert active_unit(with_other_names, token, "activeOu=unit_demo") == 403


@pytest.mark.parametrize(
    "claims",
    [{"https://example.com/unit": ["unit_a"]}, {"leadvibe": {"units": "unit_b"}}],
)
def test_a_configured_claim_of_the_wrong_type_is_refused(with_other_names, issuer, claims):
    client = with_other_names.test_client(use_cookies=False)
    assert challenge_of(client, f"Bearer {issuer.sign(**claims)}") == INVALID_TOKEN


def test_the_service_takes_its_keys_from_a_url(app_with, issuer):
    with serving_keys(issuer.jwks()) as jwks:
        by_url = app_with(jwt_keys=jwks.url)
        wait_until(lambda: by_url.services.keys.fetches().succeeded)
        assert by_url.services.tokens.verify(issuer.sign("ES256")).subject == "ada"


def test_the_service_is_unavailable_without_any_key(settings, issuer):
    unreachable = "http://127.0.0.1:1/jwks.json"
    app = create_app(replace(settings, jwt_keys=unreachable))
    answer = client_of(app, issuer.sign()).get("/secrets")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["title"] == "Service Unavailable"


def test_a_token_that_cannot_be_checked_is_logged(app_with, issuer, capfd):
    client = client_of(app_with(jwt_keys="http://127.0.0.1:1/jwks.json"), issuer.sign())
    assert client.get("/secrets", headers={"X-Request-Id": "req-1"}).status_code == 503
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (line,) = [each for each in lines if each["message"] == "token not checked"]
    reason = "no cached key matches, and the JWKS URL cannot be asked now"
    assert (line["request_id"], line["reason"]) == ("req-1", reason)


def test_a_forbidden_request_is_logged_with_its_actor(app, issuer, caplog):
    client = client_of(app, issuer.sign())
    with caplog.at_level(logging.INFO):
        answer = client.get("/secrets", headers={"Cookie": "activeOu=unit_other"})
    assert answer.status_code == 403
    (line,) = [record.fields for record in caplog.records if record.msg == "request"]
    assert (line["status"], line["actor"], line["address"]) == (403, "ada", "127.0.0.1")


@pytest.mark.parametrize("character", ["\u202a", "\u202e", "\u2066", "\u2069"])
@pytest.mark.parametrize("claim", ["sub", "unit_id"])
def test_a_claim_with_a_bidirectional_override_is_refused(client, issuer, claim, character):
    token = issuer.sign(**{claim: f"a{character}b"})
    answer = client.get("/secrets", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, INVALID_TOKEN)
