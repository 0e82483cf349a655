"""The whole life of a credential, with httpx and the pydantic models of datamodel-code-generator.

The arguments are the address and a token.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar
from uuid import uuid4

import httpx
from leadvibe_models import (
    AuditEvent,
    Credential,
    CredentialInput,
    CredentialPatch,
    CredentialUpdate,
    DetailedCredential,
    DisabledUnitEvent,
    IssuedCredential,
    IssuedEvent,
    IssuedUnitEvent,
    Problem,
    RequestTime,
    RevokedEvent,
    RotatedEvent,
    RotatedUnitEvent,
    Rotation,
    SecretEndedEvent,
    UnitEvent,
    UpdatedEvent,
    VerifiedCredential,
)
from pydantic import BaseModel, TypeAdapter

Kind = TypeVar("Kind")

address, token = sys.argv[1:]
client = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"})


def send(method: str, path: str, body: BaseModel, **headers: str) -> httpx.Response:
    content = body.model_dump_json(exclude_unset=True)
    named = {"Content-Type": "application/json", **headers}
    return client.request(method, path, content=content, headers=named)


def verify(credential: IssuedCredential) -> httpx.Response:
    return client.get("/verify", auth=(credential.client_id, credential.client_secret))


def find(events: Sequence[object], kind: type[Kind]) -> Kind:
    return next(event for event in events if isinstance(event, kind))


# The models would not let an empty name pass.
rejected = client.post("/secrets", json={"name": ""})
assert rejected.status_code == 400
problem = Problem.model_validate_json(rejected.content)
assert problem.detail == "Name must be 1-50 characters"
assert problem.errors
assert problem.errors[0].pointer == "/name"

shop = IssuedCredential.model_validate_json(
    send("POST", "/secrets", CredentialInput(name="Shop")).content
)
new, key = CredentialInput(name="CRM backend"), {"Idempotency-Key": str(uuid4())}
issued, repeated = (
    IssuedCredential.model_validate_json(send("POST", "/secrets", new, **key).content)
    for _ in range(2)
)
assert repeated.client_secret == issued.client_secret
path = f"/secrets/{issued.secret_id}"

credentials = TypeAdapter(list[Credential])
filtered = client.get("/secrets", params={"name": "crm"})
assert [each.name for each in credentials.validate_json(filtered.content)] == ["CRM backend"]

names: list[str] = []
page: httpx.Response | None = client.get("/secrets?limit=1")
while page:
    names += [each.name for each in credentials.validate_json(page.content)]
    link = page.links.get("next")
    page = client.get(page.url.join(link["url"])) if link else None
assert names == ["CRM backend", "Shop"]

# Times as a program has them: to the microsecond, to the second, and of another time zone.
soon = datetime.now(UTC) + timedelta(days=90)
whole = soon.replace(microsecond=0)
for time in (soon, whole, soon.astimezone(timezone(timedelta(hours=5, minutes=30)))):
    body = CredentialInput(name="x", expires_at=RequestTime(time))
    answer = send("POST", "/secrets", body)
    expiring = f"/secrets/{IssuedCredential.model_validate_json(answer.content).secret_id}"
    rotation = Rotation(overlap_seconds=0, expires_at=RequestTime(time))
    assert send("POST", f"{expiring}/rotate", rotation).status_code == 200
    shown = DetailedCredential.model_validate_json(client.get(expiring).content)
    assert [each.expires_at and each.expires_at.root for each in shown.secrets] == [whole]
    later = (time + timedelta(days=1)).isoformat()
    answer = client.get("/secrets", params={"expiring_before": later, "unused_since": later})
    assert len(credentials.validate_json(answer.content)) == 1
    window = {"since": (time - timedelta(days=91)).isoformat(), "until": time.isoformat()}
    answer = client.get("/secrets/events", params={**window, "secret_id": shown.secret_id})
    happened = [each.root for each in TypeAdapter(list[UnitEvent]).validate_json(answer.content)]
    for event in (find(happened, IssuedUnitEvent), find(happened, RotatedUnitEvent)):
        assert event.detail.expires_at
        assert event.detail.expires_at.root == whole
    assert client.delete(expiring).status_code == 204

renamed = CredentialUpdate(trust_upstream_consent=True, name="CRM backend (EMEA)", enabled=False)
assert send("PUT", path, renamed).status_code == 204
assert verify(issued).status_code == 401
assert send("PATCH", path, CredentialPatch(enabled=True)).status_code == 204

rotated = IssuedCredential.model_validate_json(
    send("POST", f"{path}/rotate", Rotation(overlap_seconds=60)).content
)
for known in (issued, rotated):
    verified = VerifiedCredential.model_validate_json(verify(known).content)
    assert verified.trust_upstream_consent

credential = DetailedCredential.model_validate_json(client.get(path).content)
assert credential.name == "CRM backend (EMEA)"
previous = next(secret for secret in credential.secrets if secret.expires_at)
assert previous.hint == issued.client_secret[-4:]
assert client.delete(f"{path}/secrets/{previous.hint}").status_code == 204
assert verify(issued).status_code == 401

for each in (issued, shop):
    assert client.delete(f"/secrets/{each.secret_id}").status_code == 204
unknown = verify(rotated)
assert unknown.status_code == 401
assert Problem.model_validate_json(unknown.content).title == "Unauthorized"

answer = client.get(f"{path}/events")
events = [each.root for each in TypeAdapter(list[AuditEvent]).validate_json(answer.content)]
assert find(events, IssuedEvent).detail.name == "CRM backend"
change = find(events, UpdatedEvent).detail.name
assert change
assert change.to == "CRM backend (EMEA)"
assert find(events, RotatedEvent).detail.overlap_seconds == 60
assert find(events, SecretEndedEvent).detail.hint == previous.hint
assert find(events, RevokedEvent).detail.all is None

query = {"secret_id": issued.secret_id, "order": "asc", "event": "disabled"}
answer = client.get("/secrets/events", params=query)
trail = [each.root for each in TypeAdapter(list[UnitEvent]).validate_json(answer.content)]
assert find(trail, DisabledUnitEvent).secret_id == issued.secret_id
