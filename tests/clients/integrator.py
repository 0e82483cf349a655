"""Code that uses the generated Python client. Its arguments are the address and a token."""

import sys
from base64 import b64encode
from http import HTTPStatus

from leadvibe_client import AuthenticatedClient
from leadvibe_client.api.credentials import (
    get_credential,
    issue_credential,
    list_credentials,
    list_events,
    revoke_credential,
    rotate_credential,
    update_credential,
)
from leadvibe_client.api.verification import verify
from leadvibe_client.models import (
    CredentialUpdate,
    DetailedCredential,
    IssuedCredential,
    NewCredential,
    Problem,
    Rotation,
    VerifiedCredential,
)

address, token = sys.argv[1:]
client = AuthenticatedClient(address, token=token, raise_on_unexpected_status=True)


def sender(credential: IssuedCredential) -> AuthenticatedClient:
    pair = f"{credential.client_id}:{credential.client_secret}"
    return AuthenticatedClient(address, token=b64encode(pair.encode()).decode(), prefix="Basic")


rejected = issue_credential.sync_detailed(client=client, body=NewCredential(name=""))
assert rejected.status_code == HTTPStatus.BAD_REQUEST
assert isinstance(rejected.parsed, Problem)
assert rejected.parsed.detail == "Name must be 1-50 characters"

issued = issue_credential.sync(client=client, body=NewCredential(name="CRM backend"))
assert isinstance(issued, IssuedCredential)

listed = list_credentials.sync(client=client)
assert isinstance(listed, list)
assert [credential.name for credential in listed] == ["CRM backend"]

changes = CredentialUpdate(trust_upstream_consent=True)
updated = update_credential.sync_detailed(issued.secret_id, client=client, body=changes)
assert updated.status_code == HTTPStatus.NO_CONTENT

rotated = rotate_credential.sync(issued.secret_id, client=client, body=Rotation(overlap_seconds=60))
assert isinstance(rotated, IssuedCredential)
assert rotated.client_secret != issued.client_secret

credential = get_credential.sync(issued.secret_id, client=client)
assert isinstance(credential, DetailedCredential)
previous = next(secret for secret in credential.secrets if secret.expires_at)
assert previous.hint == issued.client_secret[-4:]

for known in (issued, rotated):
    verified = verify.sync(client=sender(known))
    assert isinstance(verified, VerifiedCredential)
    assert verified.trust_upstream_consent

revoked = revoke_credential.sync_detailed(issued.secret_id, client=client)
assert revoked.status_code == HTTPStatus.NO_CONTENT
unknown = verify.sync_detailed(client=sender(rotated))
assert unknown.status_code == HTTPStatus.UNAUTHORIZED
assert isinstance(unknown.parsed, Problem)

events = list_events.sync(issued.secret_id, client=client)
assert isinstance(events, list)
assert [event.event for event in events] == ["revoked", "rotated", "updated", "issued"]
