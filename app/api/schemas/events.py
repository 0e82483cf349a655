"""Schemas of the audit trail."""

from collections.abc import Sequence
from typing import get_args

from marshmallow import fields, validate

from app.api.schemas.fields import (
    ResponseSchema,
    TimestampField,
    identifier_field,
    place_field,
    restriction_field,
    shown_name_field,
    text_field,
)
from app.credentials.model import (
    EVENT_NAMES,
    MAX_OVERLAP_SECONDS,
    UPDATED_FIELDS,
    Channel,
    EventName,
)

_EVENT = "What happened."
_EXPIRES_AT = "When the new client secret expires. Absent if it does not."


class IssuedDetailSchema(ResponseSchema):
    """The credential as it was issued."""

    client_id = text_field("The client ID.")
    name = shown_name_field("The name.")
    expires_at = TimestampField(_EXPIRES_AT, required=False)
    scopes = restriction_field("Its scopes. Absent if it has none.", required=False)
    addresses = restriction_field("Its addresses. Absent if it has none.", required=False)


class NameChangeSchema(ResponseSchema):
    """A change of the name."""

    before = shown_name_field("The old name.", data_key="from")
    after = shown_name_field("The new name.", data_key="to")


class ConsentChangeSchema(ResponseSchema):
    """A change of `trust_upstream_consent`."""

    before = fields.Boolean(
        required=True, data_key="from", metadata={"description": "The old value."}
    )
    after = fields.Boolean(required=True, data_key="to", metadata={"description": "The new value."})


class ScopesChangeSchema(ResponseSchema):
    """A change of `scopes`."""

    before = restriction_field("The old scopes.", data_key="from")
    after = restriction_field("The new scopes.", data_key="to")


class AddressesChangeSchema(ResponseSchema):
    """A change of `addresses`."""

    before = restriction_field("The old addresses.", data_key="from")
    after = restriction_field("The new addresses.", data_key="to")


class ReappliedSchema(ResponseSchema):
    """The event of the trail that was applied again after a restore."""

    event = fields.String(required=True, metadata={"description": _EVENT})
    actor = identifier_field("Who did it originally.")
    at = TimestampField("When it originally happened.")
    request_id = text_field("The X-Request-Id of the request that did it.")


def _reapplied() -> fields.Nested:
    return fields.Nested(
        ReappliedSchema,
        metadata={"description": "After a restore: the earlier event that was applied again."},
    )


class FirstUsedDetailSchema(ResponseSchema):
    """Which client secret was used."""

    hint = text_field("Its last four characters.")


class UpdatedDetailSchema(ResponseSchema):
    """The fields that changed."""

    class Meta(ResponseSchema.Meta):
        fields = (*UPDATED_FIELDS, "reapplied")

    name = fields.Nested(NameChangeSchema, metadata={"description": "The name, if it changed."})
    trust_upstream_consent = fields.Nested(
        ConsentChangeSchema, metadata={"description": "`trust_upstream_consent`, if it changed."}
    )
    scopes = fields.Nested(
        ScopesChangeSchema, metadata={"description": "`scopes`, if they changed."}
    )
    addresses = fields.Nested(
        AddressesChangeSchema, metadata={"description": "`addresses`, if they changed."}
    )
    reapplied = _reapplied()


class RotatedDetailSchema(ResponseSchema):
    """How the client secret was rotated."""

    overlap_seconds = fields.Integer(
        required=True,
        validate=validate.Range(0, MAX_OVERLAP_SECONDS),
        metadata={"description": "How many seconds the previous client secret keeps working."},
    )
    expires_at = TimestampField(_EXPIRES_AT, required=False)


class SecretEndedDetailSchema(ResponseSchema):
    """Which client secret ended."""

    hint = text_field("Its last four characters.")
    expires_at = TimestampField(
        "When it ends, if that is later: a rotation's overlap was applied again.", required=False
    )
    reapplied = _reapplied()


class LeakedDetailSchema(ResponseSchema):
    """Which client secret has leaked, and where it was found, if the report says so."""

    hint = text_field("Its last four characters.")
    ended = fields.Boolean(
        required=True, metadata={"description": "Whether it was ended, or only recorded."}
    )
    url = place_field("Where it was found, as the report says. Nobody has verified it.")
    source = place_field("In what it was found, as the report says, such as `content`.")


class UnitWideDetailSchema(ResponseSchema):
    """Whether it was done to the whole unit."""

    all = fields.Boolean(
        metadata={"description": "True if it was done to the whole unit. Absent if it was not."}
    )
    reapplied = _reapplied()


class EventMembersSchema(ResponseSchema):
    """What every event has: who did it, when and in which request."""

    actor = identifier_field("Who did it: the `sub` of the token; for `first_used` the client ID.")
    at = TimestampField("When it happened.")
    request_id = text_field("The X-Request-Id of the request that did it.")


class UnitEventMembersSchema(ResponseSchema):
    """Additional fields in a unit's trail: the credential, the channel and the client address."""

    secret_id = text_field("The credential.")
    client_id = text_field("Its client ID.", allow_none=True)
    name = shown_name_field("Its name at that time.", allow_none=True)
    via = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "Whether it was done through the API (`api`), the operators' command "
            "line (`cli`), a verification (`verify`) or a leak report (`leak_report`). New values "
            "may be added. Null in events from before this was recorded.",
            "x-extensible-enum": get_args(Channel),
        },
    )
    address = identifier_field(
        "The client address of the request; null if it is unknown, for the command line, and in "
        "events from before this was recorded.",
        allow_none=True,
    )


# The kinds only describe events in the OpenAPI document: the stored `detail` is sent unchanged.


def _kind(event: EventName) -> fields.String:
    return fields.String(required=True, metadata={"description": _EVENT, "const": event})


def _detail(schema: type[ResponseSchema]) -> fields.Nested:
    return fields.Nested(schema, required=True, metadata={"description": schema.__doc__})


class IssuedEventSchema(EventMembersSchema):
    """A credential was issued."""

    event = _kind("issued")
    detail = _detail(IssuedDetailSchema)


class FirstUsedEventSchema(EventMembersSchema):
    """A client secret was verified for the first time."""

    event = _kind("first_used")
    detail = _detail(FirstUsedDetailSchema)


class UpdatedEventSchema(EventMembersSchema):
    """Fields of the credential changed: those in `detail`."""

    event = _kind("updated")
    detail = _detail(UpdatedDetailSchema)


class DisabledEventSchema(EventMembersSchema):
    """A credential was disabled."""

    event = _kind("disabled")
    detail = _detail(UnitWideDetailSchema)


class EnabledEventSchema(EventMembersSchema):
    """A credential was enabled."""

    event = _kind("enabled")
    detail = _detail(UnitWideDetailSchema)


class RotatedEventSchema(EventMembersSchema):
    """A credential got a new client secret."""

    event = _kind("rotated")
    detail = _detail(RotatedDetailSchema)


class SecretEndedEventSchema(EventMembersSchema):
    """One client secret was ended."""

    event = _kind("secret_ended")
    detail = _detail(SecretEndedDetailSchema)


class RevokedEventSchema(EventMembersSchema):
    """A credential was revoked."""

    event = _kind("revoked")
    detail = _detail(UnitWideDetailSchema)


class LeakedEventSchema(EventMembersSchema):
    """A client secret was reported as leaked."""

    event = _kind("leaked")
    detail = _detail(LeakedDetailSchema)


class OtherEventSchema(EventMembersSchema):
    """An event of a kind that is newer than this document."""

    event = fields.String(
        required=True,
        metadata={"description": _EVENT, "not": {"enum": EVENT_NAMES}},
    )
    detail = fields.Dict(
        keys=fields.String(), required=True, metadata={"description": "More about it."}
    )


_KINDS: Sequence[type[EventMembersSchema]] = (
    IssuedEventSchema,
    FirstUsedEventSchema,
    UpdatedEventSchema,
    DisabledEventSchema,
    EnabledEventSchema,
    RotatedEventSchema,
    SecretEndedEventSchema,
    RevokedEventSchema,
    LeakedEventSchema,
    OtherEventSchema,  # last: some clients take the first that fits
)


def _in_unit(kind: type[EventMembersSchema]) -> type[EventMembersSchema]:
    """Return the schema of an event of this kind in the trail of a unit."""
    name = kind.__name__.replace("EventSchema", "UnitEventSchema")
    return type(name, (kind, UnitEventMembersSchema), {"__doc__": kind.__doc__})


class AuditEventSchema(EventMembersSchema):
    """An entry of a credential's audit trail."""

    one_of = _KINDS

    event = fields.String()
    detail = fields.Dict()

    class Meta(ResponseSchema.Meta):
        fields = ("event", "actor", "at", "request_id", "detail")


class UnitEventSchema(AuditEventSchema, UnitEventMembersSchema):
    """An entry of a unit's audit trail."""

    one_of = tuple(map(_in_unit, _KINDS))

    class Meta(ResponseSchema.Meta):
        fields = (
            "secret_id", "client_id", "name", "event", "actor", "via", "address", "at",
            "request_id", "detail",
        )  # fmt: skip
