"""The shapes that come in and go out, described for the OpenAPI document."""

from marshmallow import RAISE, Schema, fields, validate

from app.api.fields import NameField, StrictBooleanField, StrictSecondsField, TimestampField
from app.credentials.model import NAME_MAX_LENGTH
from app.credentials.service import DEFAULT_OVERLAP_SECONDS, MAX_OVERLAP_SECONDS

# JSON Schema's patterns are ECMAScript's; these mean the same there and in Python.
_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_FORBIDDEN_IN_NAME = _CONTROL + r"\u202a-\u202e\u2066-\u2069"
_NAME_SENT = (
    rf"^\s*[^\s{_FORBIDDEN_IN_NAME}]"
    rf"([^{_FORBIDDEN_IN_NAME}]{{0,{NAME_MAX_LENGTH - 2}}}[^\s{_FORBIDDEN_IN_NAME}])?\s*$"
)
_NAME_SHOWN = rf"^[^{_FORBIDDEN_IN_NAME}]+$"
_IDENTIFIER = rf"^[^{_CONTROL}]+$"
_TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"


class _ClosedSchema(Schema):
    """A schema with these members and no others."""

    class Meta:
        unknown = RAISE


def _text(description: str, *, pattern: str, low: int = 1, high: int = 255) -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Length(low, high),
        metadata={"description": description, "pattern": pattern},
    )


def _code(description: str, pattern: str) -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Regexp(pattern),
        metadata={"description": description},
    )


def _timestamp(description: str, *, allow_none: bool = False) -> TimestampField:
    return TimestampField(
        required=True,
        allow_none=allow_none,
        metadata={"description": description, "format": "date-time", "pattern": _TIMESTAMP},
    )


def _secret_id() -> fields.String:
    return _code("Identifies the credential in URLs.", r"^sec_[0-9a-z]{20}$")


def _unit_id() -> fields.String:
    return _text("The Organizational Unit that owns the credential.", pattern=_IDENTIFIER)


def _client_id() -> fields.String:
    return _code("The public login name that goes with the client secret.", r"^lv_ci_[0-9a-z]{20}$")


def _name() -> fields.String:
    return _text("What people call the credential.", pattern=_NAME_SHOWN, high=NAME_MAX_LENGTH)


def _new_name(*, required: bool) -> NameField:
    return NameField(
        required=required,
        metadata={
            "description": f"What people call the credential: 1-{NAME_MAX_LENGTH} characters after "
            "surrounding white space is stripped; no control characters, no bidirectional "
            "overrides. Two credentials may share a name.",
            "pattern": _NAME_SENT,
        },
    )


_CONSENT = (
    "Whether the platform believes the consent status sent along with events that arrive through "
    "this credential."
)


def _trust_upstream_consent() -> fields.Boolean:
    return fields.Boolean(required=True, metadata={"description": _CONSENT})


def _created_at() -> TimestampField:
    return _timestamp("When it was made.")


def _last_used_at() -> TimestampField:
    return _timestamp(
        "When it last verified an event, to the minute; null if it never did.", allow_none=True
    )


class CredentialSchema(_ClosedSchema):
    """A credential, without its client secret."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()
    created_at = _created_at()


class VerifiedCredentialSchema(_ClosedSchema):
    """Whose credential a good pair is, and what the platform believes of its events."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()


class IssuedCredentialSchema(_ClosedSchema):
    """A credential with its new client secret, which is shown this once."""

    secret_id = _secret_id()
    unit_id = _unit_id()
    client_id = _client_id()
    client_secret = _code(
        "Keep it: it is stored nowhere and cannot be shown again. The last six characters are the "
        "CRC-32 of what precedes them, in base62, so that a typo is told without asking.",
        r"^lv_cs_[0-9A-Za-z]{49}$",
    )
    name = _name()
    trust_upstream_consent = _trust_upstream_consent()
    created_at = _created_at()


class NewCredentialSchema(_ClosedSchema):
    """What a credential is made of."""

    name = _new_name(required=True)


class CredentialUpdateSchema(_ClosedSchema):
    """What can be changed of a credential."""

    trust_upstream_consent = StrictBooleanField(required=True, metadata={"description": _CONSENT})
    name = _new_name(required=False)


class RotationSchema(_ClosedSchema):
    """How to rotate."""

    overlap_seconds = StrictSecondsField(
        load_default=DEFAULT_OVERLAP_SECONDS,
        validate=validate.Range(0, MAX_OVERLAP_SECONDS),
        metadata={
            "description": "How long the former client secret goes on working: at most 30 days, "
            "and never longer than it would have. 0 ends it at once.",
        },
    )


class ClientSecretSchema(_ClosedSchema):
    """What can be told of a client secret after it was handed out."""

    hint = _code("Its last four characters.", r"^[0-9A-Za-z]{4}$")
    created_at = _created_at()
    last_used_at = _last_used_at()
    expires_at = _timestamp("When it ends, after a rotation; null if it does not.", allow_none=True)


class DetailedCredentialSchema(CredentialSchema):
    """A credential with its live client secrets, newest first."""

    updated_at = _timestamp("When its name or `trust_upstream_consent` last changed.")
    last_used_at = _last_used_at()
    secrets = fields.List(
        fields.Nested(ClientSecretSchema),
        required=True,
        validate=validate.Length(1, 2),
        metadata={"description": "Its live client secrets: two while a rotation overlaps."},
    )


class AuditEventSchema(_ClosedSchema):
    """An entry of the audit trail."""

    event = fields.String(
        required=True,
        validate=validate.OneOf(["issued", "updated", "rotated", "revoked"]),
        metadata={"description": "What happened."},
    )
    actor = _text("Who did it: the `sub` of the token.", pattern=_IDENTIFIER)
    at = _timestamp("When.")
    request_id = _code("The X-Request-Id of the request that did it.", r"^[A-Za-z0-9._-]{1,128}$")
    detail = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "issued: `client_id` and `name`; updated: each changed field, `from` "
            "what `to` what; rotated: `overlap_seconds`; revoked: nothing.",
        },
    )


class InputErrorSchema(_ClosedSchema):
    """What is wrong with one member of the request body."""

    pointer = fields.String(
        required=True,
        validate=validate.Regexp(r"^(/([^~/]|~[01])*)*$"),
        metadata={
            "description": "The member, as a JSON pointer (RFC 6901) into the request body.",
            "format": "json-pointer",
        },
    )
    detail = _text("What is wrong with it.", pattern=_IDENTIFIER)


class ProblemSchema(_ClosedSchema):
    """An error (RFC 9457)."""

    type = fields.String(
        required=True,
        validate=validate.Equal("about:blank"),
        metadata={
            "description": "The status is all that there is to know of the kind of problem.",
            "format": "uri-reference",
        },
    )
    title = _text("The status phrase.", pattern=_IDENTIFIER)
    status = fields.Integer(
        required=True,
        validate=validate.Range(400, 599),
        metadata={"description": "The status."},
    )
    detail = _text("What went wrong.", pattern=_IDENTIFIER)
    errors = fields.List(
        fields.Nested(InputErrorSchema),
        validate=validate.Length(min=1),
        metadata={"description": "For an invalid body: what is wrong with each member."},
    )


class HealthSchema(_ClosedSchema):
    """That all is well."""

    status = fields.String(
        required=True, validate=validate.Equal("ok"), metadata={"description": "Always `ok`."}
    )
