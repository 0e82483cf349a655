"""`credentials token check`: what the service reads in a token, and why it refuses one."""

import json
from dataclasses import fields
from threading import Timer

import pytest
from click.testing import CliRunner

from app.cli.commands import main
from app.identity.tokens import Claims
from app.times import parse_time
from tests.conftest import environment
from tests.issuer import AUDIENCE, ISSUER
from tests.jwks_server import serving_keys
from tests.running_server import HANG_SECONDS


@pytest.fixture
def check(settings, monkeypatch):
    """Return a function that checks the token with the tests' settings."""

    def check(token, *options, **changes):
        for name, value in (environment(settings) | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        done = CliRunner().invoke(
            main, ["token", "check", *options], input=token, catch_exceptions=False
        )
        assert token.strip() not in done.output or len(token) < 20
        return done

    return check


def test_an_accepted_token_is_shown_as_the_service_reads_it(check, issuer):
    token = issuer.sign(unit_ids=["unit_b", "unit_a"], groups=["viewer"], exp=4_000_000_000)
    roles = {"JWT_ROLE_CLAIM": "groups", "JWT_MANAGER_ROLES": "owner, admin"}
    done = check(token, "--json", **roles)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "accepted": True,
        "subject": "ada",
        "unit_id": "unit_demo",
        "unit_ids": ["unit_a", "unit_b"],
        "roles": ["viewer"],
        "may_change": False,
        "expires_at": "2096-10-02T07:06:40Z",
    }
    table = dict(line.split(maxsplit=1) for line in check(token, **roles).stdout.splitlines())
    assert (table["subject"], table["may_change"]) == ("ada", "false")
    manager = issuer.sign(groups="admin")
    assert json.loads(check(manager, "--json", **roles).stdout)["may_change"] is True


def test_every_claim_that_the_service_reads_is_shown(check, issuer):
    shown = json.loads(check(issuer.sign(), "--json").stdout)
    assert {each.name for each in fields(Claims)} <= shown.keys()


@pytest.mark.parametrize(
    ("unit_ids", "words"), [([], "the service answers 400"), (["unit_a"], "the cookie activeOu")]
)
def test_a_token_without_an_active_unit_is_accepted_with_a_warning(check, issuer, unit_ids, words):
    done = check(issuer.sign(unit_id=None, unit_ids=unit_ids))
    assert done.exit_code == 0
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"headers": {"kid": "another"}}, "no key of the issuer has this key ID and algorithm"),
        ({"iss": "https://another.example"}, "wrong issuer"),
        ({"aud": "another service"}, "wrong audience"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"without": ("sub",)}, "the claim sub is missing"),
        ({"headers": {"typ": "logout+jwt"}}, "unexpected typ"),
    ],
    ids=str,
)
def test_a_refused_token_is_reported_with_the_reason_that_the_service_logs(
    check, issuer, app, caplog, arguments, reason
):
    token = issuer.sign(**arguments)
    done = check(token, "--json")
    assert done.exit_code == 1
    shown = json.loads(done.stdout)
    assert (shown["accepted"], shown["reason"]) == (False, reason)
    with caplog.at_level("INFO"):
        app.test_client().get("/secrets", headers={"Authorization": f"Bearer {token}"})
    [refused] = [record for record in caplog.records if record.msg == "token refused"]
    assert refused.fields["reason"] == reason


def test_a_refused_token_is_shown_beside_what_the_service_requires(check, issuer):
    exp = 1_000_000_000
    token = issuer.sign(headers={"kid": "a\x1bb"}, iss="https://another.example", exp=exp)
    done = check(token, JWT_ALGORITHMS="RS256, EdDSA")
    assert (done.exit_code, done.stdout) == (1, "")
    rows = {line.split()[0]: line for line in done.stderr.splitlines() if line}
    assert "https://another.example" in rows["iss"]
    assert ISSUER in rows["iss"]
    assert rows["aud"].count(AUDIENCE) == 2
    assert r'"a\u001bb"' in rows["kid"]
    assert '["RS256", "EdDSA"]' in rows["alg"]
    shown = json.loads(check(token, "--json").stdout)
    assert parse_time(shown["token"]["exp"]).timestamp() == exp


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "e30.e30.e30", "." * 9999])
def test_a_malformed_token_is_refused_without_a_table(check, token):
    done = check(f"{token}\n")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: The service refuses the token: ")


def test_no_token_is_a_usage_error(check):
    assert check("\n").exit_code == 2


def test_keys_come_from_the_url_of_the_issuer(check, issuer):
    with serving_keys(issuer.jwks()) as server:
        url = {"JWT_JWKS_URL": server.url, "JWT_PUBLIC_KEY_FILE": None}
        assert check(issuer.sign(), **url).exit_code == 0
        assert check(issuer.sign(headers={"kid": "another"}), **url).exit_code == 1


def test_the_command_waits_for_an_issuer_that_answers_after_a_second(check, issuer, monkeypatch):
    """The service's callers would have given up."""
    for module in ("app.cli.token_check", "app.identity.key_sources"):
        monkeypatch.setattr(f"{module}.FETCH_SECONDS", HANG_SECONDS)
    with serving_keys(issuer.jwks()) as server:
        server.may_answer.clear()
        answer = Timer(1.2, server.may_answer.set)
        answer.start()
        url = {"JWT_JWKS_URL": server.url, "JWT_PUBLIC_KEY_FILE": None}
        assert check(issuer.sign(), **url).exit_code == 0
        answer.join()


def test_the_exit_status_is_4_if_the_keys_cannot_be_fetched(check, issuer):
    url = {"JWT_JWKS_URL": "http://127.0.0.1:1/jwks.json", "JWT_PUBLIC_KEY_FILE": None}
    done = check(issuer.sign(), **url)
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("JWKS not fetched")
    assert done.stderr.endswith("Error: The issuer's keys cannot be fetched from JWT_JWKS_URL.\n")


def test_missing_settings_are_named(check, issuer):
    done = check(issuer.sign(), JWT_ISSUER=None, JWT_AUDIENCE=None)
    assert done.exit_code == 2
    assert "Error: JWT_AUDIENCE:" in done.stderr
    assert "Error: JWT_ISSUER:" in done.stderr
