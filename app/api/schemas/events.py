"""The audit trail, as it goes out."""

from marshmallow import fields, validate

from app.api.schemas.fields import ClosedSchema, TimestampField, code_field, identifier_field
from app.identifiers import REQUEST_ID_PATTERN


class AuditEventSchema(ClosedSchema):
    """An entry of the audit trail."""

    event = fields.String(
        required=True,
        validate=validate.OneOf(["issued", "updated", "rotated", "revoked"]),
        metadata={"description": "What happened."},
    )
    actor = identifier_field("Who did it: the `sub` of the token.")
    at = TimestampField("When it happened.")
    request_id = code_field("The X-Request-Id of the request that did it.", REQUEST_ID_PATTERN)
    detail = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "issued: `client_id` and `name`; updated: the old and new value (`from`,"
            " `to`) of each changed field; rotated: `overlap_seconds`; revoked: nothing.",
        },
    )
