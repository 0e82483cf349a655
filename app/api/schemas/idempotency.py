"""The header of an idempotent request."""

from marshmallow import Schema, fields, validate

from app.api.http.headers import IDEMPOTENCY_KEY
from app.identifiers import IDEMPOTENCY_KEY_PATTERN, IDEMPOTENCY_KEY_RULE


class _KeyField(fields.String):
    error_detail = f"{{name}} must be {IDEMPOTENCY_KEY_RULE}"


IdempotencyKeySchema = Schema.from_dict(
    {
        IDEMPOTENCY_KEY: _KeyField(
            validate=validate.Regexp(f"^{IDEMPOTENCY_KEY_PATTERN}$"),
            metadata={
                "description": "A key of your choice for this request, such as a UUID. If the "
                "response is lost, send the same request with the same key again: you get the same "
                "response, and nothing else changes. The response is kept for 24 hours, or until "
                "the client secret is first used."
            },
        )
    },
    name="IdempotencyKeySchema",
)
