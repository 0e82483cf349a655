"""How responses are written. marshmallow's own `dump` says what they have to show."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from marshmallow import Schema, fields

from app.api.schemas.credentials import (
    CredentialSchema,
    DetailedCredentialSchema,
    IssuedCredentialSchema,
    VerifiedCredentialSchema,
)
from app.api.schemas.events import AuditEventSchema, UnitEventSchema
from app.api.schemas.fields import ResponseSchema
from app.credentials.model import (
    ClientSecret,
    DetailedCredential,
    IssuedCredential,
    LastRefusal,
    UnitEvent,
    VerifiedCredential,
)
from tests.conftest import client_of

NAMES = [
    "CRM backend",
    '"quoted" \\ and / and </script>',
    "Ünïcode ☃ 単位 🦊",
    "a\u2028b\u00a0c\ufeffd",
    "\x7f\x80",
    "e\u0301",
    " ' ; -- %s {} ",
    "0",
]
TIMES = [
    datetime(2027, 1, 31, tzinfo=UTC),
    datetime(2027, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2027, 7, 1, 1, 30, 0, 500_000, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2027, 1, 1, 0, 15, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2026, 12, 31, 23, 15, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
]
DETAILS = [
    {},
    {"client_id": "lv_ci_x", "name": NAMES[1], "expires_at": "2027-01-31T00:00:00Z"},
    {"name": {"from": NAMES[2], "to": NAMES[3]}},
    {"all": True, "much": 2**80, "deep": [{"a": [None, 1.5, False]}]},
]


def marshmallow_text(schema, shown):
    """Return what marshmallow itself makes of it, as JSON."""
    text = json.dumps(schema.dump(shown), separators=(",", ":"), ensure_ascii=False)
    return text.encode()


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_credential_is_written_as_marshmallow_dumps_it(name, time):
    verified = ("sec_x", name, "lv_ci_x", name, True)
    secrets = [
        ClientSecret(2, "abcd", time, time, "192.0.2.1", time),
        ClientSecret(1, "efgh", time, None, None, None),
    ]
    rest = (time, None, time, None, time, None, [name], None, secrets)
    detailed = DetailedCredential(*verified, *rest)
    refused = LastRefusal(time, "wrong", None, None)
    for schema, shown in [
        (VerifiedCredentialSchema(), VerifiedCredential(*verified)),
        (CredentialSchema(), detailed),
        (CredentialSchema(many=True), [detailed, replace(detailed, name="other")]),
        (CredentialSchema(many=True), []),
        (IssuedCredentialSchema(), IssuedCredential(*verified, time, client_secret="lv_cs_x")),
        (DetailedCredentialSchema(), detailed),
        (DetailedCredentialSchema(), replace(detailed, last_refused=refused)),
        (DetailedCredentialSchema(), replace(detailed, secrets=[], created_by=name)),
        (DetailedCredentialSchema(exclude=("secrets", "name")), detailed),
        (CredentialSchema(only=("name",)), detailed),
    ]:
        assert schema.to_json(shown) == marshmallow_text(schema, shown)


@pytest.mark.parametrize("detail", DETAILS, ids=ascii)
@pytest.mark.parametrize("time", TIMES, ids=str)
def test_an_event_is_written_as_marshmallow_dumps_it(time, detail):
    event = UnitEvent(
        7, "updated", NAMES[1], time, "req", detail, 9, "sec_x", None, None, None, None
    )
    full = replace(event, client_id="lv_ci_x", name=NAMES[2], via="api", address="192.0.2.1")
    for schema, shown in [
        (AuditEventSchema(many=True), [event, full]),
        (UnitEventSchema(many=True), [event, full]),
        (UnitEventSchema(exclude=("client_id",)), full),
    ]:
        if "much" in detail:  # more than orjson can write
            assert json.loads(schema.to_json(shown)) == schema.dump(shown)
        else:
            assert schema.to_json(shown) == marshmallow_text(schema, shown)


def test_a_response_cannot_have_a_field_whose_values_json_does_not_know():
    schema = ResponseSchema.from_dict({"at": fields.DateTime()})
    with pytest.raises(TypeError, match="DateTime"):
        schema()


def test_times_are_in_utc_whatever_the_time_zone_of_the_session(app_with, settings, issuer):
    """A database or a role may set one, and a pooler may pass no other on."""
    url = f"{settings.database_url}&options=-c%20TimeZone%3DAsia/Kathmandu"
    here, there = (
        client_of(app, issuer.sign()) for app in (app_with(), app_with(database_url=url))
    )
    issued = there.post(
        "/secrets", json={"name": "CRM backend", "expires_at": "2027-01-31T00:00:00Z"}
    )
    path = f"/secrets/{issued.json['secret_id']}"
    assert (
        here.put(path, json={"trust_upstream_consent": True, "enabled": False}).status_code == 204
    )
    for address in ("/secrets", path, f"{path}/events", "/secrets/events", "/secrets?limit=1"):
        answer = there.get(address)
        assert answer.status_code == 200
        assert answer.text == here.get(address).text
    assert issued.json["created_at"] == here.get(path).json["created_at"]


def test_no_schema_is_made_for_a_request(member, monkeypatch):
    """To make one copies all of its fields."""
    made = []
    initialize = Schema.__init__

    def initialize_and_record(schema, *arguments, **options):
        made.append(type(schema))
        initialize(schema, *arguments, **options)

    monkeypatch.setattr(Schema, "__init__", initialize_and_record)
    issued = member.post("/secrets", json={"name": "CRM backend"}).json
    path = f"/secrets/{issued['secret_id']}"
    assert member.get("/secrets?limit=5").status_code == 200
    assert member.get(f"{path}/events").status_code == 200
    assert member.put(path, json={"trust_upstream_consent": True}).status_code == 204
    assert member.post(f"{path}/rotate").status_code == 200
    assert member.delete(path).status_code == 204
    assert made == []
