"""The settings, tokens and reasons of docs/identity-providers.md, read from the page and tried."""

import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from time import time
from typing import Any

import jwt
import pytest

from app.identity.key_sources import KeyFile
from app.identity.tokens import InvalidToken, TokenVerifier
from app.settings import Settings
from tests.conftest import client_of, running_app
from tests.helpers import DIGEST_KEY, caller, claims_named, require
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.jwks_server import serving_keys
from tests.running_server import ROOT

PAGE = (ROOT / "docs" / "identity-providers.md").read_text()
UNIT = "unit_emea"  # of every token on the page


@dataclass(frozen=True)
class Recipe:
    settings: dict[str, str]
    header: dict[str, Any]
    payload: dict[str, Any]
    code: list[str]


def recipe(title):
    section = re.split(r"^#{2,3} ", PAGE.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for block in blocks("sh", section) for line in block.splitlines()]
    header, payload = blocks("json", section)
    base = title.removeprefix(MACHINES)
    return Recipe(
        settings=(recipe(base).settings if base != title else {})
        | dict(line.split("=", 1) for line in lines),
        header=json.loads(header),
        payload=json.loads(payload),
        code=blocks("javascript", section),
    )


def blocks(language, section):
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


MACHINES = "Machines with "
PROVIDERS = [
    "A complete token",
    *(people := ["Keycloak", "Auth0", "Entra ID", "Okta"]),
    *(MACHINES + provider for provider in people),
    "Cognito",
]
RECIPES = {title: recipe(title) for title in PROVIDERS}


def test_every_recipe_of_the_page_is_tried():
    recipes = PAGE[PAGE.index("## Recipes") : PAGE.index("## When a token is refused")]
    assert re.findall("^### (.*)$", recipes, re.MULTILINE) == PROVIDERS[1:]


def test_a_token_of_cognito_without_its_trigger_is_refused_for_its_audience(issuer, tmp_path):
    (tmp_path / "jwks.json").write_bytes(issuer.jwks())
    cognito = RECIPES["Cognito"]
    verifier = TokenVerifier(
        KeyFile(tmp_path / "jwks.json", ["RS256"]),
        algorithms=["RS256"],
        issuer=cognito.settings["JWT_ISSUER"],
        audience=cognito.settings["JWT_AUDIENCE"],
        claims=claims_named(),
    )
    payload = {name: value for name, value in cognito.payload.items() if name != "aud"}
    token = jwt.encode(payload, issuer.keys["RS256"], "RS256", headers={"kid": "RS256"})
    with pytest.raises(InvalidToken, match="the claim aud is missing"):
        verifier.verify(token)


@pytest.fixture(scope="module", params=PROVIDERS)
def provider(request):
    return RECIPES[request.param]


@pytest.fixture(scope="module")
def running_recipe(provider, issuer, database_url):
    """The service with the recipe's settings, and the provider's JWKS on this machine."""
    key = issuer.jwk(provider.header["alg"]) | {"kid": provider.header["kid"]}
    another = issuer.jwk("RS256") | {"kid": "another", "use": "enc"}
    jwks = json.dumps({"keys": [another, key]}).encode()
    with serving_keys(jwks) as server:
        settings = read_settings(
            provider.settings | {"JWT_JWKS_URL": server.url, "DATABASE_URL": database_url}
        )
        with running_app(settings) as app:
            yield app


def read_settings(variables):
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("JWT_")]:
            environment.delenv(name)
        environment.setenv("DIGEST_KEY", b64encode(DIGEST_KEY).decode())
        for name, value in variables.items():
            environment.setenv(name, value)
        return Settings.from_environment()


@pytest.fixture
def recipe_app(running_recipe, rows):
    """The service of the recipe, with an empty database."""
    return running_recipe


def sign(provider, issuer, **changes):
    """Sign the payload of the page as if it had been issued now."""
    payload = provider.payload | changes
    shift = int(time()) - payload["iat"]
    times = {name: payload[name] + shift for name in ("iat", "nbf", "exp") if name in payload}
    algorithm = provider.header["alg"]
    headers = {"typ": None} | provider.header
    return jwt.encode(payload | times, issuer.keys[algorithm], algorithm, headers=headers)


def test_a_token_of_the_recipe_lists_the_credentials_of_its_unit(provider, recipe_app, issuer):
    service = recipe_app.services.credentials
    issued = service.issue(caller(UNIT), name="of its unit")
    service.issue(caller("unit_other"), name="of another unit")
    answer = client_of(recipe_app, sign(provider, issuer)).get("/secrets")
    assert answer.status_code == 200
    assert [each["secret_id"] for each in answer.json] == [issued.secret_id]
    assert [each["unit_id"] for each in answer.json] == [UNIT]


def test_a_token_of_the_recipe_may_change_credentials(provider, recipe_app, issuer):
    answer = client_of(recipe_app, sign(provider, issuer)).post("/secrets", json={"name": "x"})
    assert (answer.status_code, answer.json["unit_id"]) == (200, UNIT)


def test_a_token_of_the_recipe_without_its_role_only_reads(provider, recipe_app, issuer):
    claim = provider.settings["JWT_ROLE_CLAIM"]
    top_level = claim.split("/")[1] if claim.startswith("/") else claim
    assert top_level in provider.payload
    client = client_of(recipe_app, sign(provider, issuer, **{top_level: []}))
    assert client.get("/secrets").status_code == 200
    assert client.post("/secrets", json={"name": "x"}).status_code == 403


def test_the_cookie_chooses_among_the_units_of_the_recipe(provider, recipe_app, issuer):
    client = client_of(recipe_app, sign(provider, issuer))
    units = [UNIT, "unit_apac"]
    for unit in units if units in provider.payload.values() else [UNIT]:
        answer = client.post("/secrets", json={"name": "x"}, headers={"Cookie": f"activeOu={unit}"})
        assert answer.json["unit_id"] == unit


@pytest.mark.parametrize(
    ("title", "handler"),
    [("Auth0", "onExecutePostLogin"), ("Machines with Auth0", "onExecuteCredentialsExchange")],
)
def test_the_action_for_auth0_sets_the_claims_of_the_payload(title, handler):
    require("node", install="apt-get install nodejs")
    auth0 = RECIPES[title]
    (action,) = auth0.code
    own = {name: value for name, value in auth0.payload.items() if name.startswith("https:")}
    event = {
        "resource_server": {"identifier": auth0.settings["JWT_AUDIENCE"]},
        "user": {"app_metadata": {"unit_id": UNIT, "unit_ids": ["unit_emea", "unit_apac"]}},
        "authorization": {"roles": [auth0.settings["JWT_MANAGER_ROLES"]]},
        "client": {"metadata": {"unit_id": UNIT, "role": auth0.settings["JWT_MANAGER_ROLES"]}},
    }
    script = f"""
        {action}
        const claims = {{}};
        const accessToken = {{ setCustomClaim: (name, value) => {{ claims[name] = value; }} }};
        exports.{handler}({json.dumps(event)}, {{ accessToken }})
          .then(() => console.log(JSON.stringify(claims)));
    """
    command = [shutil.which("node"), "--input-type=commonjs", "--eval", script]
    assert json.loads(subprocess.check_output(command)) == own


def test_the_trigger_for_cognito_adds_the_claims_that_are_missing():
    require("node", install="apt-get install nodejs")
    cognito = RECIPES["Cognito"]
    (trigger,) = cognito.code
    event = {"callerContext": {"clientId": cognito.payload["client_id"]}, "response": {}}
    script = f"{trigger}; console.log(JSON.stringify(await handler({json.dumps(event)})));"
    command = [shutil.which("node"), "--input-type=module", "--eval", script]
    response = json.loads(subprocess.check_output(command))["response"]
    added = response["claimsAndScopeOverrideDetails"]["accessTokenGeneration"]
    assert added == {
        "claimsToAddOrOverride": {name: cognito.payload[name] for name in ("aud", "unit_id")}
    }


# When a token is refused


def claims(**changes):
    """Return a function that signs a token, which is valid except for these claims."""
    return lambda issuer: issuer.sign(**changes)


REFUSED = {
    "malformed": lambda _: "opaque",
    "algorithm not allowed": lambda issuer: issuer.sign("ES256"),
    "unexpected typ": lambda issuer: issuer.sign(headers={"typ": "logout+jwt"}),
    "no key of the issuer has this key ID and algorithm": lambda issuer: issuer.sign(
        headers={"kid": "another"}
    ),
    "no key ID, and several keys of the issuer suit the algorithm": lambda issuer: issuer.sign(
        "RS256", headers={"kid": None}
    ),
    "the signature is not by the issuer's key": lambda _: Issuer().sign(),
    "wrong issuer": claims(iss=f"{ISSUER}/"),
    "wrong audience": claims(aud="account"),
    "the claim sub is missing": claims(without=("sub",)),
    "expired": claims(exp=0),
    "not valid yet": claims(nbf=4_102_444_800),
    "malformed (InvalidSubjectError)": claims(sub=5),
    "malformed (InvalidJTIError)": claims(jti=5),
    "a time is not a number": claims(exp="tomorrow"),
    "a time is out of range": claims(exp=4_102_444_800_000),
    "sub is not a string of 1-255 valid characters": claims(sub=""),
    "unit_id is not a string of 1-255 valid characters": claims(unit_id=["unit_emea"]),
    "unit_ids is not a list": claims(unit_ids="unit_emea"),
    "an entry of unit_ids is not a string of 1-255 valid characters": claims(unit_ids=[{}]),
    "roles is neither a string nor a list of strings": claims(roles={"manager": True}),
}


def stated_reasons():
    table = PAGE[PAGE.index("| `reason` |") : PAGE.index("The last four")]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    return [reason for cell in first_cells for reason in re.findall("`([^`]+)`", cell)]


def test_every_reason_of_the_page_is_tried():
    assert stated_reasons() == list(REFUSED)


def test_the_page_explains_every_refusal_reason():
    code = (ROOT / "app" / "identity" / "tokens.py").read_text()
    written = re.findall(r'(?:InvalidToken\(|TokenExpired\(|return |Error: )f?"([^"]+)"', code)
    assert len(written) > 10
    for reason in written:
        pattern = re.sub(r"\\{.*?\\}", ".+", re.escape(reason))
        assert any(re.fullmatch(pattern, each) for each in stated_reasons()), reason


@pytest.mark.parametrize("reason", REFUSED)
def test_a_token_is_refused_for_the_stated_reason(issuer, tmp_path, reason):
    algorithms = ["RS256", "EdDSA"]
    entries = [issuer.jwk("RS256"), issuer.jwk("EdDSA"), Issuer().jwk("RS256") | {"kid": "second"}]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": entries}))
    verifier = TokenVerifier(
        KeyFile(tmp_path / "jwks.json", algorithms),
        algorithms=algorithms,
        issuer=ISSUER,
        audience=AUDIENCE,
        claims=claims_named(role="roles"),
    )
    with pytest.raises(InvalidToken) as refusal:
        verifier.verify(REFUSED[reason](issuer))
    assert str(refusal.value) == reason
