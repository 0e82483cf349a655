"""What a credential may do, and from where: how restrictions are set, shown and kept to."""

import pytest

from app.addresses import is_within
from app.credentials.generator import generate_client_secret
from app.credentials.model import CredentialChanges
from tests.conftest import client_of
from tests.helpers import basic, caller, names
from tests.metrics.reading import read_metrics

SCOPES = ["events", "ingest", "leads.read"]  # of the tests
NETWORKS = ["203.0.113.7", "198.51.100.0/24", "2001:db8::/32", "2001:db9::1"]


def restrictions(member, secret_id):
    shown = member.get(f"/secrets/{secret_id}").json
    return {"scopes": shown["scopes"], "addresses": shown["addresses"]}


def changes(member, secret_id):
    """Return the detail of each `updated` event, oldest first."""
    events = member.get(f"/secrets/{secret_id}/events").json[::-1]
    return [each["detail"] for each in events if each["event"] == "updated"]


# Setting and showing


def test_a_new_credential_is_unrestricted(member):
    issued = member.post("/secrets", json={"name": "x"}).json
    assert restrictions(member, issued["secret_id"]) == {"scopes": None, "addresses": None}
    (event,) = member.get(f"/secrets/{issued['secret_id']}/events").json
    assert event["detail"] == {"client_id": issued["client_id"], "name": "x"}


def test_a_credential_is_issued_with_restrictions(member):
    given = {"scopes": ["leads.read", "ingest"], "addresses": ["2001:DB8:0::/32", "192.0.2.7/32"]}
    issued = member.post("/secrets", json={"name": "x", **given}).json
    stored = {"scopes": ["ingest", "leads.read"], "addresses": ["2001:db8::/32", "192.0.2.7"]}
    assert restrictions(member, issued["secret_id"]) == stored
    (event,) = member.get(f"/secrets/{issued['secret_id']}/events").json
    assert event["detail"] == {"client_id": issued["client_id"], "name": "x", **stored}


def test_restrictions_are_changed_and_removed_one_by_one(member, issued):
    path = f"/secrets/{issued.secret_id}"
    steps = [
        ({"scopes": ["ingest"]}, {"scopes": {"from": None, "to": ["ingest"]}}),
        ({"addresses": ["192.0.2.1"]}, {"addresses": {"from": None, "to": ["192.0.2.1"]}}),
        ({"name": "y"}, {"name": {"from": "CRM backend", "to": "y"}}),
        ({"scopes": []}, {"scopes": {"from": ["ingest"], "to": []}}),
        (
            {"scopes": None, "addresses": None},
            {
                "scopes": {"from": [], "to": None},
                "addresses": {"from": ["192.0.2.1"], "to": None},
            },
        ),
    ]
    expected = {"scopes": None, "addresses": None}
    for patch, _ in steps:
        assert member.patch(path, json=patch).status_code == 204
        expected |= {name: value for name, value in patch.items() if name in expected}
        assert restrictions(member, issued.secret_id) == expected
    assert changes(member, issued.secret_id) == [detail for _, detail in steps]


def test_the_same_restriction_again_changes_nothing(member, issued):
    path = f"/secrets/{issued.secret_id}"
    for scopes, addresses in (
        (["ingest", "events"], ["2001:db8::1"]),
        (["events", "ingest"], ["2001:DB8:0::1/128"]),
    ):
        patch = {"scopes": scopes, "addresses": addresses}
        assert member.patch(path, json=patch).status_code == 204
    assert len(changes(member, issued.secret_id)) == 1


def test_restrictions_outlive_a_rotation_a_pause_and_a_put(member, service, issued):
    given = {"scopes": ["ingest"], "addresses": ["192.0.2.1"]}
    path = f"/secrets/{issued.secret_id}"
    member.patch(path, json=given)
    service.rotate(caller(), issued.secret_id, overlap_seconds=0)
    member.put(path, json={"trust_upstream_consent": True, "name": "y", "enabled": False})
    service.enable_all(caller())
    assert restrictions(member, issued.secret_id) == given


@pytest.mark.parametrize("member_name", ["scopes", "addresses"])
def test_put_does_not_have_restrictions(member, issued, member_name):
    body = {"trust_upstream_consent": True, member_name: None}
    answer = member.put(f"/secrets/{issued.secret_id}", json=body)
    assert answer.status_code == 400
    assert answer.json["errors"] == [{"pointer": f"/{member_name}", "detail": "Unknown field"}]


@pytest.mark.parametrize(
    ("scopes", "pointers"),
    [
        ("ingest", ["/scopes"]),
        (True, ["/scopes"]),
        ({"ingest": 1}, ["/scopes"]),
        ([["ingest"]], ["/scopes/0"]),
        (["ingest", None], ["/scopes/1"]),
        (["nonsense"], ["/scopes/0"]),
        (["INGEST", "ingest", "*", " ingest"], ["/scopes/0", "/scopes/2", "/scopes/3"]),
        (["ingest", "events", "ingest"], ["/scopes/2"]),
        (["\ud800", "ingest\x00", "x" * 5000], ["/scopes/0", "/scopes/1", "/scopes/2"]),
        ([*SCOPES] * 6, [f"/scopes/{position}" for position in range(3, 18)]),
    ],
)
def test_invalid_scopes_are_rejected_item_by_item(member, issued, scopes, pointers):
    path = f"/secrets/{issued.secret_id}"
    for answer in (
        member.post("/secrets", json={"name": "x", "scopes": scopes}),
        member.patch(path, json={"scopes": scopes, "name": "y"}),
    ):
        assert answer.status_code == 400
        assert answer.json["type"] == "/docs/errors#invalid-input"
        assert [each["pointer"] for each in answer.json["errors"]] == pointers
    assert names(member.get("/secrets")) == ["CRM backend"]
    assert restrictions(member, issued.secret_id)["scopes"] is None


HOST_BITS = "Must not have host bits: the network is 203.0.113.0/24"
EVERYWHERE = "Must not be every address: use null instead"
MAPPED = "Must be written as IPv4, not as IPv4-mapped IPv6"
NO_ADDRESS = "Must be an IP address or a network, such as 203.0.113.7 or 2001:db8::/32"
TWICE = "Must not be given twice"


@pytest.mark.parametrize(
    ("addresses", "problems"),
    [
        (["203.0.113.7/24"], {0: HOST_BITS}),
        (["192.0.2.1", "2001:db8::", "192.0.2.2", "203.0.113.9/24"], {3: HOST_BITS}),
        (["0.0.0.0/0", "::/0"], {0: EVERYWHERE, 1: EVERYWHERE}),
        (["192.0.2.1", "192.0.2.1/32"], {1: TWICE}),
        (["2001:db8::1", "2001:0DB8::0001"], {1: TWICE}),
        (["::ffff:192.0.2.1", "::ffff:0:0/96", "::ffff:c000:201/128", "::/64"],
         dict.fromkeys(range(4), MAPPED)),
        (["fe80::1%eth0", "fe80::%1/64", "[2001:db8::1]", "192.0.2.1:80", "192.0.2.0/255.255.255.0",
          "192.0.2.0/0.0.0.255", "192.0.2.0/33", "2001:db8::/129", "192.0.2.01", "192.0.2",
          "3221225985", "example.com", "", " 192.0.2.1", "192.0.2.1\n", "192.0.2.0/-1", "*",
          "192.0.2.0/", "/24", "192.0.2.0/٢٤", "\x00", "\ud800", "0x7f.1", "x" * 5000],
         dict.fromkeys(range(24), NO_ADDRESS)),
    ],
)  # fmt: skip
def test_invalid_addresses_are_rejected_item_by_item(member, issued, addresses, problems):
    expected = [
        {"pointer": f"/addresses/{position}", "detail": what} for position, what in problems.items()
    ]
    for answer in (
        member.post("/secrets", json={"name": "x", "addresses": addresses}),
        member.patch(f"/secrets/{issued.secret_id}", json={"addresses": addresses}),
    ):
        assert answer.status_code == 400
        assert answer.json["errors"] == expected
    assert restrictions(member, issued.secret_id)["addresses"] is None


@pytest.mark.parametrize("addresses", ["192.0.2.1", {"192.0.2.1": 1}, 1, [], ["192.0.2.1"] * 51])
def test_addresses_are_null_or_a_list_of_1_to_50(member, issued, addresses):
    path = f"/secrets/{issued.secret_id}"
    assert member.patch(path, json={"addresses": addresses}).status_code == 400
    many = [f"192.0.2.{number}" for number in range(51)]
    answer = member.patch(path, json={"addresses": many})
    assert answer.json["errors"][0]["pointer"] == "/addresses"
    assert member.patch(path, json={"addresses": many[:50]}).status_code == 204
    assert restrictions(member, issued.secret_id)["addresses"] == many[:50]


@pytest.mark.parametrize("scopes", [None, [], ["ingest"], ["nonsense"]])
def test_without_scopes_the_member_is_rejected(app_with, issuer, issued, scopes):
    member = client_of(app_with(scopes=[]), issuer.sign())
    path = f"/secrets/{issued.secret_id}"
    for answer in (
        member.post("/secrets", json={"name": "x", "scopes": scopes}),
        member.patch(path, json={"scopes": scopes}),
    ):
        assert answer.status_code == 400
        assert answer.json["detail"] == "scopes are not configured"
        assert [each["pointer"] for each in answer.json["errors"]] == ["/scopes"]
    assert member.patch(path, json={"addresses": ["192.0.2.1"]}).status_code == 204


def test_new_credentials_get_the_default_scopes_unless_they_name_some(app_with, issuer):
    member = client_of(app_with(default_scopes=["ingest"]), issuer.sign())
    for given, expected in (
        ({}, ["ingest"]),
        ({"scopes": ["events"]}, ["events"]),
        ({"scopes": []}, []),
        ({"scopes": None}, None),
    ):
        issued = member.post("/secrets", json={"name": "x", **given}).json
        assert restrictions(member, issued["secret_id"])["scopes"] == expected
        (event,) = member.get(f"/secrets/{issued['secret_id']}/events").json
        assert event["detail"].get("scopes") == expected


def test_a_scope_that_was_removed_stays_and_matches_nothing(app_with, issuer, member, issued):
    path = f"/secrets/{issued.secret_id}"
    member.patch(path, json={"scopes": ["events", "ingest"]})
    later = client_of(app_with(scopes=["ingest"]), issuer.sign())
    assert restrictions(later, issued.secret_id)["scopes"] == ["events", "ingest"]
    pair = basic(issued.client_id, issued.client_secret)
    statuses = [later.get(f"/verify/{each}", headers=pair).status_code for each in SCOPES]
    assert statuses == [404, 200, 404]
    assert later.patch(path, json={"name": "y"}).status_code == 204
    assert later.patch(path, json={"scopes": ["events"]}).status_code == 400


def test_a_scope_does_not_include_another_one(app_with, service):
    app = app_with(scopes=["leads", "leads.read", "read"])
    issued = app.services.credentials.issue(caller(), name="x", scopes=["leads.read"])
    statuses = [
        verify(app.test_client(), issued, f"/verify/{scope}").status_code
        for scope in ("leads", "read", "leads.read")
    ]
    assert statuses == [403, 403, 200]


def test_the_same_idempotency_key_is_for_the_same_restrictions(member, rows):
    key = {"Idempotency-Key": "k" * 16}
    bodies = [
        {}, {"scopes": None}, {"scopes": []}, {"scopes": ["ingest"]},
        {"addresses": ["192.0.2.1"]}, {"scopes": ["ingest"], "addresses": ["192.0.2.1"]},
    ]  # fmt: skip
    for number, body in enumerate(bodies):
        key = {"Idempotency-Key": f"{number}" * 16}
        answers = [
            member.post("/secrets", json={"name": "x", **each}, headers=key)
            for each in (body, body, bodies[number - 1])
        ]
        assert [each.status_code for each in answers] == [200, 200, 422]
        assert answers[0].json == answers[1].json
    assert rows.count("credentials") == len(bodies)


def test_the_list_shows_which_credentials_are_unrestricted(member, service):
    for scopes in (None, [], ["ingest"]):
        service.issue(caller(), name=str(scopes), scopes=scopes, addresses=["192.0.2.1"])
    assert names(member.get("/secrets?unrestricted=true")) == ["None"]
    assert names(member.get("/secrets?unrestricted=false")) == ["['ingest']", "[]"]
    assert names(member.get("/secrets?unrestricted=true&enabled=false")) == []
    assert member.get("/secrets?unrestricted=yes").status_code == 400


# What a verification keeps to


def verify(client, issued, path="/verify", secret=None, *, peer="127.0.0.1", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(
        path,
        headers=basic(issued.client_id, secret or issued.client_secret)
        | {"X-Request-Id": "same"}
        | headers,
        environ_base={"REMOTE_ADDR": peer},
    )


@pytest.fixture
def fenced(service):
    """A credential that may be used from some addresses."""
    return service.issue(caller(), name="x", addresses=NETWORKS)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("203.0.113.7", 200), ("203.0.113.8", 401), ("198.51.100.0", 200), ("198.51.100.255", 200),
        ("198.51.101.0", 401), ("::ffff:203.0.113.7", 200), ("::ffff:198.51.100.9", 200),
        ("::ffff:203.0.113.8", 401), ("2001:db8:ffff::1", 200), ("2001:DB8::1%eth0", 200),
        ("2001:db9::1", 200), ("2001:db9::2", 401), ("::1", 401), ("127.0.0.1", 401), ("", 401),
        ("nonsense", 401),
    ],
)  # fmt: skip
def test_a_pair_is_valid_from_its_addresses_only(client, fenced, peer, expected):
    assert verify(client, fenced, peer=peer).status_code == expected


def test_a_refusal_from_elsewhere_is_the_same_to_the_byte(client, fenced, issued):
    elsewhere = verify(client, fenced)
    for other in (
        verify(client, fenced, secret=generate_client_secret()),
        verify(client, fenced, secret=generate_client_secret(), peer="203.0.113.7"),
        verify(client, issued, secret=generate_client_secret()),
        client.get("/verify", headers={"X-Request-Id": "same"}),
    ):
        assert (other.status, other.data, str(other.headers)) == (
            elsewhere.status, elsewhere.data, str(elsewhere.headers),
        )  # fmt: skip


def test_the_address_is_judged_whatever_the_client_secret(client, fenced, monkeypatch):
    """Otherwise the time would tell a thief elsewhere whether the pair is valid."""
    judged = []

    def observed(networks, address):
        judged.append(address)
        return is_within(networks, address)

    monkeypatch.setattr("app.credentials.verification.is_within", observed)
    for secret in (fenced.client_secret, generate_client_secret()):
        assert verify(client, fenced, secret=secret).status_code == 401
    assert judged == ["127.0.0.1"] * 2


def test_a_refusal_from_elsewhere_counts_as_a_failure(app_with, fenced):
    client = app_with(verify_failure_limit=2).test_client()
    statuses = [verify(client, fenced).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert verify(client, fenced, peer="203.0.113.7").status_code == 200


def test_a_missing_scope_is_neither_a_failure_nor_a_use(app_with, service, rows):
    app = app_with(verify_failure_limit=1)
    issued = service.issue(caller(), name="x", scopes=["ingest"])
    statuses = [verify(app.test_client(), issued).status_code for _ in range(3)]
    assert statuses == [403, 403, 403]
    app.services.writer.flush()
    assert rows("SELECT last_used_at FROM client_secrets") == [{"last_used_at": None}]
    assert verify(app.test_client(), issued, "/verify/ingest").status_code == 200
    app.services.writer.flush()
    assert rows("SELECT last_used_at FROM client_secrets")[0]["last_used_at"] is not None


def test_an_address_comes_before_a_scope(client, service):
    issued = service.issue(caller(), name="x", scopes=["ingest"], addresses=["203.0.113.7"])
    for path in ("/verify", "/verify/ingest", "/verify/events"):
        assert verify(client, issued, path).status_code == 401
    assert verify(client, issued, peer="203.0.113.7").status_code == 403
    assert verify(client, issued, "/verify/ingest", peer="203.0.113.7").status_code == 200


NEW_KEY = b"the new digest key, 32 bytes...."


def test_bcrypt_lets_nobody_past_a_restriction(app_with, service, rows):
    """A lost DIGEST_KEY: only the hash can tell whether a pair is valid."""
    client = app_with(digest_keys=(NEW_KEY,)).test_client()
    issued = service.issue(caller(), name="x", scopes=["ingest"], addresses=["203.0.113.7"])
    assert verify(client, issued, "/verify/ingest").status_code == 401
    assert verify(client, issued, peer="203.0.113.7").status_code == 403
    assert verify(client, issued, "/verify/ingest", peer="203.0.113.7").status_code == 200


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.7", 200),
        ("198.51.100.77, 203.0.113.7", 200),
        ("203.0.113.7, 192.0.2.66", 401),
        ("203.0.113.7, 203.0.113.7, 192.0.2.66", 401),
        ("203.0.113.7,", 401),
        ('"203.0.113.7', 401),
        ("203.0.113.7, unknown", 401),
        ("for=203.0.113.7", 401),
        ("", 401),
        ("[2001:db8::1]:443", 200),
        ("::ffff:203.0.113.7", 200),
        ("203.0.113.7:51001", 200),
    ],
)
def test_a_sender_cannot_choose_its_address(app_with, fenced, forwarded, expected):
    client = app_with(trusted_proxies=1).test_client()
    for path in ("/verify", "/verify/ingest"):
        answer = verify(client, fenced, path, peer="203.0.113.7", X_Forwarded_For=forwarded)
        assert answer.status_code == expected


def test_without_a_proxy_the_header_says_nothing(client, fenced):
    assert verify(client, fenced, X_Forwarded_For="203.0.113.7").status_code == 401


def test_narrowing_takes_effect_on_every_instance_immediately(app_with, service, issued):
    clients = [app_with().test_client() for _ in range(2)]
    assert {verify(each, issued).status_code for each in clients} == {200}
    service.update(caller(), issued.secret_id, CredentialChanges(scopes=["ingest"]))
    assert {verify(each, issued).status_code for each in clients} == {403}
    assert {verify(each, issued, "/verify/ingest").status_code for each in clients} == {200}
    service.update(caller(), issued.secret_id, CredentialChanges(addresses=["203.0.113.7"]))
    assert {verify(each, issued, "/verify/ingest").status_code for each in clients} == {401}


# Metrics


def test_each_refusal_is_counted_by_its_outcome(client, fenced, service):
    scoped = service.issue(caller(), name="x", scopes=["ingest"])
    verify(client, fenced)
    verify(client, scoped)
    verify(client, scoped, "/verify/events")
    before = read_metrics(client)
    verify(client, fenced)
    verify(client, scoped)
    verify(client, scoped, "/verify/events")
    found = read_metrics(client)
    for outcome, expected in (("address", 1), ("scope", 2)):
        name = f'leadvibe_verifications_total{{outcome="{outcome}"}}'
        assert found[name] - before[name] == expected
    total = 'leadvibe_http_requests_total{method="GET",route="/verify/<scope:scope>",status="403"}'
    assert found[total] - before[total] == 1


def test_unrestricted_credentials_are_counted(service, rows):
    for unit, scopes in (("a", None), ("b", None), ("a", []), ("a", ["ingest"])):
        service.issue(caller(unit), name="x", scopes=scopes, addresses=["192.0.2.1"])
    assert service.count_unrestricted() == 2
