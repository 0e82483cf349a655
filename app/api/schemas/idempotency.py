"""The headers of requests that may be repeated, and of repeated answers."""

from marshmallow import Schema, fields, validate

IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENCY_REPLAYED = "Idempotency-Replayed"


class _KeyField(fields.String):
    error_detail = "{name} must be 16-128 visible ASCII characters"


IdempotencyKeySchema = Schema.from_dict(
    {
        IDEMPOTENCY_KEY: _KeyField(
            validate=validate.Regexp("^[!-~]{16,128}$"),
            metadata={
                "description": "A key of your choice for this request, such as a UUID. If the "
                "answer is lost, send the same request with the same key again: you get the same "
                "answer, and nothing else changes. The answer is kept for 24 hours, or until the "
                "client secret is first used."
            },
        )
    },
    name="IdempotencyKeySchema",
)
