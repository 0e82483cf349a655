"""The audit trail, as it goes out."""

from typing import get_args

from marshmallow import fields, validate

from app.api.schemas.fields import (
    ClosedSchema,
    TimestampField,
    code_field,
    identifier_field,
    shown_name_field,
)
from app.credentials.generator import CLIENT_ID_PATTERN, SECRET_ID_PATTERN
from app.credentials.model import Channel, EventName
from app.identifiers import REQUEST_ID_PATTERN

EVENT_NAMES: tuple[str, ...] = get_args(EventName)


class AuditEventSchema(ClosedSchema):
    """An entry of a credential's audit trail."""

    event = fields.String(
        required=True,
        validate=validate.OneOf(EVENT_NAMES),
        metadata={"description": "What happened."},
    )
    actor = identifier_field("Who did it: the `sub` of the token.")
    at = TimestampField("When it happened.")
    request_id = code_field("The X-Request-Id of the request that did it.", REQUEST_ID_PATTERN)
    detail = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "issued: `client_id`, `name`, and `expires_at` if the client secret "
            "expires; updated: the old and new value (`from`, `to`) of each changed field; rotated:"
            " `overlap_seconds`, and `expires_at` as above; secret_ended: its `hint`; disabled, "
            "enabled, revoked: `all` if it was done to the whole unit. `reapplied` names the event "
            "that was applied again after a restore.",
        },
    )


class UnitEventSchema(AuditEventSchema):
    """An entry of a unit's audit trail."""

    secret_id = code_field("The credential.", SECRET_ID_PATTERN)
    client_id = code_field("Its client ID.", CLIENT_ID_PATTERN, allow_none=True)
    name = shown_name_field("Its name at that time.", allow_none=True)
    via = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf([*get_args(Channel), None]),
        metadata={
            "description": "Whether it was done through the API or the operators' command line. "
            "Null in events from before this was recorded."
        },
    )
    address = identifier_field(
        "The client address of the request; null for the command line, and in events from before "
        "this was recorded.",
        allow_none=True,
    )

    class Meta(ClosedSchema.Meta):
        fields = (
            "secret_id", "client_id", "name", "event", "actor", "via", "address", "at",
            "request_id", "detail",
        )  # fmt: skip
