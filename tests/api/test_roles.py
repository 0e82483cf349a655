"""Roles: who may change credentials."""

import pytest

from tests.conftest import client_of
from tests.helpers import claims_named

FORBIDDEN = (403, "Your role does not allow changing credentials")


@pytest.fixture
def guarded(app_with):
    """A service where managers and owners may change credentials."""
    return app_with(
        jwt_claims=claims_named(role="https://leadvibe.example/roles"),
        jwt_manager_roles=frozenset({"manager", "owner"}),
        issue_limit=1,
    )


@pytest.fixture
def with_roles(guarded, issuer):
    """Return a function that makes a client whose token has the claim."""

    def with_roles(claim):
        return client_of(guarded, issuer.sign(**{"https://leadvibe.example/roles": claim}))

    return with_roles


@pytest.fixture
def viewer(with_roles):
    return with_roles("viewer")


def refusal(answer):
    return answer.status_code, answer.json["detail"]


@pytest.mark.parametrize("claim", ["manager", "owner", ["viewer", "owner"]])
def test_a_manager_may_change_credentials(with_roles, claim):
    manager = with_roles(claim)
    issued = manager.post("/secrets", json={"name": "x"})
    assert issued.status_code == 200
    assert manager.delete(f"/secrets/{issued.json['secret_id']}").status_code == 204


@pytest.mark.parametrize(
    "claim", ["viewer", [], ["viewer"], "", "Manager", "manager owner", ["a,manager"]]
)
def test_any_other_role_may_read_but_not_change(with_roles, issued, rows, claim):
    viewer = with_roles(claim)
    assert [each["secret_id"] for each in viewer.get("/secrets").json] == [issued.secret_id]
    assert viewer.get(f"/secrets/{issued.secret_id}").status_code == 200
    assert viewer.get("/secrets/events").status_code == 200
    assert refusal(viewer.post("/secrets", json={"name": "x"})) == FORBIDDEN
    assert rows.count("credentials") == 1


def test_a_token_without_the_claim_may_read_but_not_change(guarded, issuer, issued):
    client = client_of(guarded, issuer.sign())
    assert client.get("/secrets").status_code == 200
    assert refusal(client.post("/secrets", json={"name": "x"})) == FORBIDDEN


@pytest.mark.parametrize("claim", [1, True, {}, {"manager": True}, [1], ["manager", None]])
def test_a_claim_of_another_type_is_401(with_roles, claim):
    assert with_roles(claim).get("/secrets").status_code == 401


def test_every_method_that_changes_something_requires_the_role(guarded, viewer, issued):
    """It reads the URL map, so that a route that is added later is covered."""
    tried = set()
    for rule in guarded.url_map.iter_rules():
        if not rule.rule.startswith("/secrets"):
            continue
        path = rule.rule.replace("<secret_id>", issued.secret_id).replace("<hint>", "abcd")
        for method in rule.methods - {"GET", "HEAD"}:
            assert refusal(viewer.open(path, method=method)) == FORBIDDEN, (method, path)
            tried.add((method, rule.rule))
    assert len(tried) == 6


def test_the_role_is_checked_before_anything_else(viewer, with_roles):
    for _ in range(3):
        answer = viewer.post("/secrets", data="{", content_type="application/json")
        assert refusal(answer) == FORBIDDEN
    missing = "/secrets/sec_" + "0" * 20
    assert refusal(viewer.delete(missing)) == FORBIDDEN
    assert refusal(viewer.post(f"{missing}/rotate", json={"overlap_seconds": -1})) == FORBIDDEN
    assert refusal(viewer.delete(f"{missing}?unused_fro=1")) == FORBIDDEN
    # the refused requests did not count against the limit of one issue
    assert with_roles("manager").post("/secrets", json={"name": "x"}).status_code == 200


def test_without_the_settings_everybody_may_change(member):
    assert member.post("/secrets", json={"name": "x"}).status_code == 200
