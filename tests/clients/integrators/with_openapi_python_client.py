"""The whole life of a credential, with the client of openapi-python-client.

The arguments are the address and a token.
"""

import re
import sys
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from leadvibe_client import AuthenticatedClient
from leadvibe_client.api.credentials import (
    end_client_secret,
    get_credential,
    issue_credential,
    list_credentials,
    list_events,
    list_unit_events,
    patch_credential,
    revoke_credential,
    rotate_credential,
    update_credential,
)
from leadvibe_client.api.verification import verify
from leadvibe_client.models import (
    CredentialInput,
    CredentialPatch,
    CredentialUpdate,
    DetailedCredential,
    DisabledUnitEvent,
    IssuedCredential,
    IssuedEvent,
    IssuedUnitEvent,
    ListUnitEventsEvent,
    ListUnitEventsOrder,
    NameChange,
    Problem,
    RevokedEvent,
    RotatedEvent,
    RotatedUnitEvent,
    Rotation,
    SecretEndedEvent,
    UpdatedEvent,
    VerifiedCredential,
)
from leadvibe_client.types import UNSET, Unset

Kind = TypeVar("Kind")

address, token = sys.argv[1:]
client = AuthenticatedClient(address, token=token, raise_on_unexpected_status=True)


def sender(credential: IssuedCredential) -> AuthenticatedClient:
    pair = f"{credential.client_id}:{credential.client_secret}"
    return AuthenticatedClient(address, token=b64encode(pair.encode()).decode(), prefix="Basic")


def next_cursor(link: str) -> str | None:
    target = re.match("<(.*)>", link)
    return parse_qs(urlsplit(target[1]).query)["cursor"][0] if target else None


def find(events: Sequence[object], kind: type[Kind]) -> Kind:
    return next(event for event in events if isinstance(event, kind))


rejected = issue_credential.sync_detailed(client=client, body=CredentialInput(name=""))
assert rejected.status_code == HTTPStatus.BAD_REQUEST
assert isinstance(rejected.parsed, Problem)
assert rejected.parsed.detail == "Name must be 1-50 characters"
assert rejected.parsed.errors
assert rejected.parsed.errors[0].pointer == "/name"

shop = issue_credential.sync(client=client, body=CredentialInput(name="Shop"))
assert isinstance(shop, IssuedCredential)
new, key = CredentialInput(name="CRM backend"), str(uuid4())
issued = issue_credential.sync(client=client, body=new, idempotency_key=key)
assert isinstance(issued, IssuedCredential)
repeated = issue_credential.sync(client=client, body=new, idempotency_key=key)
assert isinstance(repeated, IssuedCredential)
assert repeated.client_secret == issued.client_secret

filtered = list_credentials.sync(client=client, name="crm")
assert isinstance(filtered, list)
assert [credential.name for credential in filtered] == ["CRM backend"]

names: list[str] = []
cursor: str | None = None
while cursor or not names:
    page = list_credentials.sync_detailed(client=client, limit=1, cursor=cursor or UNSET)
    assert isinstance(page.parsed, list)
    names += [credential.name for credential in page.parsed]
    cursor = next_cursor(page.headers.get("Link", ""))
assert names == ["CRM backend", "Shop"]

# Times as a program has them: to the microsecond, to the second, and of another time zone.
soon = datetime.now(UTC) + timedelta(days=90)
whole = soon.replace(microsecond=0)
for time in (soon, whole, soon.astimezone(timezone(timedelta(hours=5, minutes=30)))):
    expiring = issue_credential.sync(client=client, body=CredentialInput("x", expires_at=time))
    assert isinstance(expiring, IssuedCredential)
    rotation = Rotation(overlap_seconds=0, expires_at=time)
    assert isinstance(
        rotate_credential.sync(expiring.secret_id, client=client, body=rotation), IssuedCredential
    )
    shown = get_credential.sync(expiring.secret_id, client=client)
    assert isinstance(shown, DetailedCredential)
    assert [secret.expires_at for secret in shown.secrets] == [whole]
    later = time + timedelta(days=1)
    found = list_credentials.sync(client=client, expiring_before=later, unused_since=later)
    assert isinstance(found, list)
    assert [each.secret_id for each in found] == [expiring.secret_id]
    happened = list_unit_events.sync(
        client=client,
        secret_id=expiring.secret_id,
        since=time - timedelta(days=91),
        until=time,
    )
    assert isinstance(happened, list)
    assert find(happened, IssuedUnitEvent).detail.expires_at == whole
    assert find(happened, RotatedUnitEvent).detail.expires_at == whole
    revoke_credential.sync_detailed(expiring.secret_id, client=client)

renamed = CredentialUpdate(trust_upstream_consent=True, name="CRM backend (EMEA)", enabled=False)
updated = update_credential.sync_detailed(issued.secret_id, client=client, body=renamed)
assert updated.status_code == HTTPStatus.NO_CONTENT
assert isinstance(verify.sync(client=sender(issued)), Problem)
enabled = CredentialPatch(enabled=True)
patched = patch_credential.sync_detailed(issued.secret_id, client=client, body=enabled)
assert patched.status_code == HTTPStatus.NO_CONTENT

rotated = rotate_credential.sync(issued.secret_id, client=client, body=Rotation(overlap_seconds=60))
assert isinstance(rotated, IssuedCredential)
for known in (issued, rotated):
    verified = verify.sync(client=sender(known))
    assert isinstance(verified, VerifiedCredential)
    assert verified.trust_upstream_consent

credential = get_credential.sync(issued.secret_id, client=client)
assert isinstance(credential, DetailedCredential)
assert credential.name == "CRM backend (EMEA)"
previous = next(secret for secret in credential.secrets if secret.expires_at)
assert previous.hint == issued.client_secret[-4:]
ended = end_client_secret.sync_detailed(issued.secret_id, previous.hint, client=client)
assert ended.status_code == HTTPStatus.NO_CONTENT
assert isinstance(verify.sync(client=sender(issued)), Problem)

for each in (issued, shop):
    revoked = revoke_credential.sync_detailed(each.secret_id, client=client)
    assert revoked.status_code == HTTPStatus.NO_CONTENT
unknown = verify.sync_detailed(client=sender(rotated))
assert unknown.status_code == HTTPStatus.UNAUTHORIZED
assert isinstance(unknown.parsed, Problem)

events = list_events.sync(issued.secret_id, client=client)
assert isinstance(events, list)
assert find(events, IssuedEvent).detail.name == "CRM backend"
change = find(events, UpdatedEvent).detail.name
assert isinstance(change, NameChange)
assert change.to == "CRM backend (EMEA)"
assert find(events, RotatedEvent).detail.overlap_seconds == 60
assert find(events, SecretEndedEvent).detail.hint == previous.hint
assert isinstance(find(events, RevokedEvent).detail.all_, Unset)

trail = list_unit_events.sync(
    client=client,
    secret_id=issued.secret_id,
    order=ListUnitEventsOrder.ASC,
    event=ListUnitEventsEvent.DISABLED,
)
assert isinstance(trail, list)
assert find(trail, DisabledUnitEvent).secret_id == issued.secret_id
