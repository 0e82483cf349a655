"""The examples of the OpenAPI document.

Each is a model dumped by its schema. tests/api/openapi compares them with real responses.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from app.api.http.headers import IDEMPOTENCY_KEY
from app.api.http.pagination import Cursor, encode_cursor, next_link
from app.api.schemas.credentials import (
    CredentialSchema,
    DetailedCredentialSchema,
    IssuedCredentialSchema,
    VerifiedCredentialSchema,
)
from app.api.schemas.events import AuditEventSchema, UnitEventSchema
from app.credentials.generator import hint_of
from app.credentials.model import (
    ClientSecret,
    Credential,
    CredentialPosition,
    DetailedCredential,
    Event,
    IssuedCredential,
    LastRefusal,
    TrailPosition,
    UnitEvent,
)
from app.times import format_time

REQUEST_ID = "821d546f-574f-4c77-b480-f4530d166e7d"

_ISSUED_AT = datetime(2025, 6, 1, 10, tzinfo=UTC)
_ROTATED_AT = datetime(2025, 6, 3, 9, tzinfo=UTC)
LAST_USED_AT = datetime(2025, 6, 3, 9, 30, tzinfo=UTC)
EXPIRES_AT = datetime(2025, 6, 4, 9, tzinfo=UTC)
_ACTOR = "ada@example.com"
SCOPE = "ingest"

_credential = Credential(
    secret_id="sec_6q1qrvd8cfz3k6apb04t",  # noqa: S106  an identifier
    unit_id="unit_emea",
    client_id="lv_ci_jfnjsbeideu9dzc68z5v",
    name="CRM backend",
    trust_upstream_consent=False,
    created_at=_ISSUED_AT,
)
_issued = IssuedCredential(
    **asdict(_credential),
    client_secret="lv_cs_ExampleOnlyExampleOnlyExampleOnlyExampleOnl1uGbZQ",  # noqa: S106  made up
)

POSITION = CredentialPosition(_credential.created_at, _credential.secret_id)

NEW_CREDENTIAL = {"name": _credential.name}
CREDENTIAL_PATCH = {"name": "CRM backend (EMEA)"}
CREDENTIAL_UPDATE = {"trust_upstream_consent": True, "name": "CRM backend (EMEA)"}
ROTATION = {"overlap_seconds": 86400}

CREDENTIAL: dict[str, Any] = CredentialSchema().dump(_credential)
VERIFIED_CREDENTIAL: dict[str, Any] = VerifiedCredentialSchema().dump(_credential)
ISSUED_CREDENTIAL: dict[str, Any] = IssuedCredentialSchema().dump(_issued)
DETAILED_CREDENTIAL: dict[str, Any] = DetailedCredentialSchema().dump(
    DetailedCredential(
        **asdict(_credential),
        created_by=_ACTOR,
        updated_at=datetime(2025, 6, 3, 9, 15, tzinfo=UTC),
        last_used_at=LAST_USED_AT,
        disabled_at=None,
        last_refused=LastRefusal(
            datetime(2025, 6, 3, 9, 20, tzinfo=UTC), "ended", "198.51.100.7", "9xWb"
        ),
        scopes=[SCOPE],
        addresses=["192.0.2.1", "2001:db8::/32"],
        secrets=[
            ClientSecret(2, hint_of(_issued.client_secret), _ROTATED_AT, None, None, None),
            ClientSecret(1, "7Kq2", _ISSUED_AT, LAST_USED_AT, "192.0.2.10", EXPIRES_AT),
        ],
    )
)

EVENTS: list[dict[str, Any]] = AuditEventSchema(many=True).dump(
    [
        Event(
            event_id=3,
            event="rotated",
            actor=_ACTOR,
            at=_ROTATED_AT,
            request_id="1f0c5b1e-6d0a-4f43-9f57-3f3b6a1d9a11",
            detail=ROTATION,
        ),
        Event(
            event_id=2,
            event="updated",
            actor=_ACTOR,
            at=datetime(2025, 6, 2, 8, tzinfo=UTC),
            request_id="5b0f3c9e-2f64-4be3-8c3c-0a7f1b8e4d22",
            detail={"trust_upstream_consent": {"from": False, "to": True}},
        ),
        Event(
            event_id=1,
            event="issued",
            actor=_ACTOR,
            at=_ISSUED_AT,
            request_id=REQUEST_ID,
            detail={"client_id": _credential.client_id, "name": _credential.name},
        ),
    ]
)

UNIT_EVENTS: list[dict[str, Any]] = UnitEventSchema(many=True).dump(
    [
        UnitEvent(
            event_id=4,
            event="disabled",
            actor=_ACTOR,
            at=datetime(2025, 6, 5, 7, tzinfo=UTC),
            request_id="7d1f6a1c-0b7e-4d51-8a43-6c1e0b1c7a55",
            detail={},
            transaction_id=778,
            secret_id=_credential.secret_id,
            client_id=_credential.client_id,
            name=_credential.name,
            via="api",
            address="192.0.2.1",
        )
    ]
)

NEXT_EVENTS = next_link({"order": "asc", "limit": 100}, TrailPosition(10**12 - 1, event_id=0))

PARAMETERS: dict[str, Any] = {
    "limit": 100,
    "cursor": encode_cursor(Cursor(POSITION, fingerprint="")),
    "client_id": _credential.client_id,
    "name": "crm",
    "enabled": "true",
    "expiring_before": format_time(EXPIRES_AT),
    "unused_since": format_time(LAST_USED_AT),
    "unrestricted": "true",
    "detailed": "true",
    "refused_since": format_time(LAST_USED_AT),
    "unused_for": 86400,
    "order": "asc",
    "event": "rotated",
    "actor": _ACTOR,
    "secret_id": _credential.secret_id,
    "since": format_time(_ISSUED_AT),
    "until": format_time(_ROTATED_AT),
    IDEMPOTENCY_KEY: "0d8d6c5a-6b5f-4a0e-9d43-0e8b0c7b2f10",
}

LEAK_REPORT = {
    "client_secret": _issued.client_secret,
    "url": "https://github.com/octocat/hello-world/blob/9e64ba1/settings.py",
    "source": "content",
}

METRICS = """\
# HELP leadvibe_verifications_total Verifications, by outcome.
# TYPE leadvibe_verifications_total counter
leadvibe_verifications_total{outcome="accepted"} 1027.0
"""
