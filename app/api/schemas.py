"""The shapes that come in and go out, with the words and examples of the OpenAPI document."""

from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from app.credentials.errors import InvalidName
from app.credentials.model import NAME_MAX_LENGTH, parse_name
from app.credentials.service import DEFAULT_OVERLAP_SECONDS, MAX_OVERLAP_SECONDS


class NameField(fields.String):
    """A credential's name, as `parse_name` has it."""

    problem = "Name must be 1-50 characters"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return parse_name(text)
        except InvalidName as error:
            raise ValidationError(str(error)) from None


class StrictBooleanField(fields.Boolean):
    """`true` or `false`, and nothing that Python or people would take for it."""

    problem = "trust_upstream_consent must be true or false"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class StrictSecondsField(fields.Integer):
    """A duration, as a JSON number without a fraction."""

    problem = f"overlap_seconds must be 0-{MAX_OVERLAP_SECONDS}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class TimestampField(fields.String):
    """RFC 3339, UTC, whole seconds."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if isinstance(value, datetime):
            value = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return super()._serialize(value, attr, obj, **kwargs)


def _secret_id() -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Regexp(r"^sec_[0-9a-z]{20}$"),
        metadata={
            "description": "Identifies the credential in URLs.",
            "example": "sec_3k9x0v7t2m5q8w1z4b6n",
        },
    )


def _unit_id() -> fields.String:
    return fields.String(
        required=True,
        metadata={
            "description": "The Organizational Unit that owns the credential.",
            "example": "unit_emea",
        },
    )


def _client_id() -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Regexp(r"^lv_ci_[0-9a-z]{20}$"),
        metadata={
            "description": "The public login name that goes with the client secret.",
            "example": "lv_ci_7h2j5d8f1s4a6g9k3l0p",
        },
    )


def _name() -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Length(1, NAME_MAX_LENGTH),
        metadata={"description": "What people call the credential.", "example": "CRM backend"},
    )


def _new_name(*, required: bool) -> NameField:
    return NameField(
        required=required,
        validate=validate.Length(1, NAME_MAX_LENGTH),
        metadata={
            "description": "What people call the credential: 1-50 characters after surrounding "
            "white space is stripped; no control characters, no bidirectional overrides. Two "
            "credentials may share a name.",
            "example": "CRM backend",
        },
    )


def _trust_upstream_consent() -> fields.Boolean:
    return fields.Boolean(
        required=True,
        metadata={
            "description": "Whether the platform believes the consent status sent along with "
            "events that arrive through this credential.",
            "example": False,
        },
    )


def _created_at() -> TimestampField:
    return TimestampField(
        required=True,
        metadata={"format": "date-time", "example": "2025-06-01T10:00:00Z"},
    )


def _last_used_at() -> TimestampField:
    return TimestampField(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "When it was last used to verify, to the minute; null if it never was.",
            "example": "2025-06-02T08:30:00Z",
        },
    )


class CredentialSchema(Schema):
    """A credential, without its client secret."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()
    created_at = _created_at()


class VerifiedCredentialSchema(Schema):
    """Whose credential a good pair is, and what the platform believes of its events."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()


class IssuedCredentialSchema(Schema):
    """A new credential with its client secret, which is shown this once."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    client_secret = fields.String(
        required=True,
        validate=validate.Regexp(r"^lv_cs_[0-9A-Za-z]{49}$"),
        metadata={
            "description": "Keep it: it is stored nowhere and cannot be shown again. The last six "
            "characters are the CRC-32 of what precedes them, in base62.",
            "example": "lv_cs_Vw3xJ8kQ2mN7pR5tB1yD6fH9gL4zC0sA8eU2iO5aEXAMPLE",
        },
    )
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()
    created_at = _created_at()


class NewCredentialSchema(Schema):
    """What a credential is made of."""

    name = _new_name(required=True)


class CredentialUpdateSchema(Schema):
    """What can be changed of a credential."""

    trust_upstream_consent = StrictBooleanField(
        required=True,
        metadata={
            "description": "Whether the platform believes the consent status sent along with "
            "events that arrive through this credential.",
            "example": True,
        },
    )
    name = _new_name(required=False)


class RotationSchema(Schema):
    """How to rotate."""

    overlap_seconds = StrictSecondsField(
        load_default=DEFAULT_OVERLAP_SECONDS,
        validate=validate.Range(0, MAX_OVERLAP_SECONDS),
        metadata={
            "description": "How long the former client secret goes on working: at most 30 days, "
            "and never longer than it would have. 0 ends it at once.",
            "example": 3600,
        },
    )


class ClientSecretSchema(Schema):
    """What can be told of a client secret after it was handed out."""

    hint = fields.String(
        required=True,
        validate=validate.Regexp(r"^[0-9A-Za-z]{4}$"),
        metadata={"description": "Its last four characters.", "example": "MPLE"},
    )
    created_at = _created_at()
    last_used_at = _last_used_at()
    expires_at = TimestampField(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "When it ends, after a rotation; null if it does not.",
            "example": None,
        },
    )


class DetailedCredentialSchema(CredentialSchema):
    """A credential with its live client secrets, newest first."""

    updated_at = TimestampField(
        required=True,
        metadata={
            "format": "date-time",
            "description": "When its name or trust_upstream_consent last changed.",
            "example": "2025-06-01T10:00:00Z",
        },
    )
    last_used_at = _last_used_at()
    secrets = fields.List(fields.Nested(ClientSecretSchema), required=True)


class EventSchema(Schema):
    """An entry of the audit trail."""

    event = fields.String(
        required=True,
        validate=validate.OneOf(["issued", "updated", "rotated", "revoked"]),
        metadata={"example": "updated"},
    )
    actor = fields.String(
        required=True,
        metadata={"description": "Who did it: the `sub` of the token.", "example": "ada"},
    )
    at = TimestampField(
        required=True, metadata={"format": "date-time", "example": "2025-06-01T10:00:00Z"}
    )
    request_id = fields.String(
        required=True,
        metadata={
            "description": "The X-Request-Id of the request that did it.",
            "example": "821d546f-574f-4c77-b480-f4530d166e7d",
        },
    )
    detail = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "issued: `client_id` and `name`; updated: each changed field, `from` "
            "what `to` what; rotated: `overlap_seconds`; revoked: nothing.",
            "example": {"trust_upstream_consent": {"from": False, "to": True}},
        },
    )


class InputErrorSchema(Schema):
    """What is wrong with one member of the request body."""

    pointer = fields.String(
        required=True,
        metadata={
            "format": "json-pointer",
            "description": "The member, as a JSON pointer (RFC 6901) into the request body.",
            "example": "/name",
        },
    )
    detail = fields.String(required=True, metadata={"example": "Must be 1-50 characters"})


class ProblemSchema(Schema):
    """An error (RFC 9457)."""

    type = fields.String(
        required=True, metadata={"format": "uri-reference", "example": "about:blank"}
    )
    title = fields.String(required=True, metadata={"description": "The status phrase."})
    status = fields.Integer(
        required=True, validate=validate.Range(400, 599), metadata={"description": "The status."}
    )
    detail = fields.String(required=True, metadata={"description": "What went wrong."})
    errors = fields.List(
        fields.Nested(InputErrorSchema),
        metadata={"description": "For invalid input: what is wrong with each member."},
    )


class StatusSchema(Schema):
    """That all is well."""

    status = fields.String(required=True, validate=validate.Equal("ok"))
