"""The examples of the OpenAPI document; tests/api/test_openapi.py compares them with answers."""

from typing import Any

NEW_CREDENTIAL = {"name": "CRM backend"}

CREDENTIAL = {
    "secret_id": "sec_6q1qrvd8cfz3k6apb04t",
    "unit_id": "unit_emea",
    "client_id": "lv_ci_jfnjsbeideu9dzc68z5v",
    "name": "CRM backend",
    "trust_upstream_consent": False,
    "created_at": "2025-06-01T10:00:00Z",
}

ISSUED_CREDENTIAL = {
    "secret_id": "sec_6q1qrvd8cfz3k6apb04t",
    "unit_id": "unit_emea",
    "client_id": "lv_ci_jfnjsbeideu9dzc68z5v",
    "client_secret": "lv_cs_ExampleOnlyExampleOnlyExampleOnlyExampleOnl1uGbZQ",
    "name": "CRM backend",
    "trust_upstream_consent": False,
    "created_at": "2025-06-01T10:00:00Z",
}

DETAILED_CREDENTIAL: dict[str, Any] = {
    **CREDENTIAL,
    "updated_at": "2025-06-03T09:15:00Z",
    "last_used_at": "2025-06-03T09:30:00Z",
    "secrets": [
        {
            "hint": "GbZQ",
            "created_at": "2025-06-03T09:00:00Z",
            "last_used_at": None,
            "expires_at": None,
        },
        {
            "hint": "7Kq2",
            "created_at": "2025-06-01T10:00:00Z",
            "last_used_at": "2025-06-03T09:30:00Z",
            "expires_at": "2025-06-04T09:00:00Z",
        },
    ],
}

VERIFIED_CREDENTIAL = {name: value for name, value in CREDENTIAL.items() if name != "created_at"}

CREDENTIAL_UPDATE = {"trust_upstream_consent": True, "name": "CRM backend (EMEA)"}

ROTATION = {"overlap_seconds": 86400}

EVENTS: list[dict[str, Any]] = [
    {
        "event": "rotated",
        "actor": "ada@example.com",
        "at": "2025-06-03T09:00:00Z",
        "request_id": "1f0c5b1e-6d0a-4f43-9f57-3f3b6a1d9a11",
        "detail": {"overlap_seconds": 86400},
    },
    {
        "event": "updated",
        "actor": "ada@example.com",
        "at": "2025-06-02T08:00:00Z",
        "request_id": "5b0f3c9e-2f64-4be3-8c3c-0a7f1b8e4d22",
        "detail": {"trust_upstream_consent": {"from": False, "to": True}},
    },
    {
        "event": "issued",
        "actor": "ada@example.com",
        "at": "2025-06-01T10:00:00Z",
        "request_id": "821d546f-574f-4c77-b480-f4530d166e7d",
        "detail": {"client_id": "lv_ci_jfnjsbeideu9dzc68z5v", "name": "CRM backend"},
    },
]

STATUS = {"status": "ok"}
