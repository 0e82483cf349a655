"""Schemas of credentials, in requests and responses."""

import dataclasses
from typing import Any

from marshmallow import Schema, fields, validate

from app.api.schemas.fields import (
    NameField,
    QueryIntegerField,
    RequestSchema,
    RequestTimeField,
    ResponseSchema,
    RestrictionField,
    SecondsField,
    StrictBooleanField,
    TimestampField,
    identifier_field,
    restriction_field,
    shown_name_field,
    text_field,
)
from app.credentials.model import (
    CHANGEABLE_FIELDS,
    DEFAULT_OVERLAP_SECONDS,
    MAX_LIVE_SECRETS,
    MAX_OVERLAP_SECONDS,
    MAX_UNUSED_SECONDS,
    MIN_UNUSED_SECONDS,
    RESTRICTIONS,
    Credential,
    DetailedCredential,
    IssuedCredential,
    VerifiedCredential,
)
from app.credentials.restrictions import MAX_ADDRESSES, MAX_SCOPES, SCOPE_PATTERN

_CONSENT = (
    "Whether the platform trusts the consent status sent along with events that arrive through "
    "this credential."
)
_EXPIRES_AT = (
    "When the new client secret expires: in the future, at most 10 years ahead. Left out: never, "
    "unless the operator has set a limit."
)
_SCOPES = (
    "What it may do: receivers ask for one of these scopes. Null: everything, and receivers may "
    "ask without a scope."
)
_ADDRESSES = (
    "Where it may be used from: IPv4 and IPv6 addresses and networks. A valid pair from elsewhere "
    "is refused like an invalid one. Null: everywhere."
)
_LAST_USED_AT = "When a verification last succeeded with it, to the minute; null if none has."


class ClientSecretSchema(ResponseSchema):
    """A client secret, without its value."""

    hint = text_field("Its last four characters. They identify it when you end it.")
    created_at = TimestampField("When it was created.")
    last_used_at = TimestampField(_LAST_USED_AT, allow_none=True)
    last_used_from = identifier_field(
        "The address of that use; null if there is none, or if it is unknown.", allow_none=True
    )
    expires_at = TimestampField("When it expires; null if it does not.", allow_none=True)


class LastRefusalSchema(ResponseSchema):
    """When and why a sender with the credential's client ID was last refused."""

    at = TimestampField("When a verification last failed, to the minute.")
    reason = fields.String(
        required=True,
        metadata={
            "description": "Why. `wrong`: the client secret was never the credential's, or ended "
            "more than 90 days ago. `ended`: it was the credential's, and a rotation or somebody "
            "ended it. `expired`: it has expired, also at the end of a rotation's overlap. "
            "`disabled`, `address`, `scope`: it is right, but the credential is disabled, must not "
            "be used from that address, or lacks the scope. New values may be added.",
            "x-extensible-enum": ["wrong", "ended", "expired", "disabled", "address", "scope"],
        },
    )
    address = identifier_field(
        "The address of the sender; null if it is unknown.", data_key="from", allow_none=True
    )
    hint = text_field(
        "The last four characters of the client secret, if it is or was the credential's; null "
        "for any other.",
        allow_none=True,
    )


class _CredentialFields(ResponseSchema):
    """Every field of a credential in a response, in the contract's order.

    The schemas below inherit from each other as their models do, and show the fields of their
    models. So add a new field to the model and here.
    """

    secret_id = text_field("Identifies the credential in URLs.")
    unit_id = identifier_field("The Organizational Unit that owns the credential.")
    client_id = text_field("The public login name that goes with the client secret.")
    client_secret = text_field(
        "Store it now: the service keeps only a hash and cannot show it again. The last six "
        "characters are a base62 CRC-32 checksum of the rest, so a typo can be detected offline.",
    )
    name = shown_name_field("The credential's display name.")
    trust_upstream_consent = fields.Boolean(required=True, metadata={"description": _CONSENT})
    created_at = TimestampField("When it was created.")
    created_by = identifier_field(
        "Who issued it; null if that part of the audit trail was deleted.", allow_none=True
    )
    updated_at = TimestampField("When it was last updated, disabled or enabled.")
    last_used_at = TimestampField(_LAST_USED_AT, allow_none=True)
    disabled_at = TimestampField("When it was disabled; null while enabled.", allow_none=True)
    last_refused = fields.Nested(
        LastRefusalSchema,
        required=True,
        allow_none=True,
        metadata={"description": "The last refusal of a sender; null if there was none."},
    )
    scopes = restriction_field(_SCOPES)
    addresses = restriction_field(_ADDRESSES)
    secrets = fields.List(
        fields.Nested(ClientSecretSchema),
        required=True,
        validate=validate.Length(0, MAX_LIVE_SECRETS),
        metadata={
            "description": "Its live client secrets: two while a rotation overlaps, none once all "
            "have expired."
        },
    )


_ORDER = list(_CredentialFields().fields)


def _fields_of(model: type[VerifiedCredential]) -> list[str]:
    return sorted((each.name for each in dataclasses.fields(model)), key=_ORDER.index)


class VerifiedCredentialSchema(_CredentialFields):
    """The credential that a valid pair belongs to, and whether to trust its consent flags."""

    class Meta(ResponseSchema.Meta):
        fields = _fields_of(VerifiedCredential)


class CredentialSchema(VerifiedCredentialSchema):
    """A credential, without its client secret."""

    class Meta(ResponseSchema.Meta):
        fields = _fields_of(Credential)


class IssuedCredentialSchema(CredentialSchema):
    """A credential with its new client secret, which is shown only once."""

    class Meta(ResponseSchema.Meta):
        fields = _fields_of(IssuedCredential)


class DetailedCredentialSchema(CredentialSchema):
    """A credential with its live client secrets, newest first."""

    class Meta(ResponseSchema.Meta):
        fields = _fields_of(DetailedCredential)


class ListedCredentialSchema(CredentialSchema):
    """A credential in a list. Only with `detailed=true`, it has all these members."""

    class Meta(ResponseSchema.Meta):
        fields = _fields_of(DetailedCredential)

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Let the members of a detailed credential be missing."""
        field_obj.required = field_name in CredentialSchema.Meta.fields

    def to_json(self, obj: Any) -> bytes:
        """Return the list as JSON, each credential with the members of its model."""
        is_detailed = bool(obj) and isinstance(obj[0], DetailedCredential)
        return (_DETAILED if is_detailed else _PLAIN).to_json(obj)


_PLAIN = CredentialSchema(many=True)
_DETAILED = DetailedCredentialSchema(many=True)


def _scopes_sent(left_out: str) -> RestrictionField:
    description = f"{_SCOPES} {left_out} Only if the operator has configured scopes."
    return RestrictionField(f"^{SCOPE_PATTERN}$", 0, MAX_SCOPES, description=description)


def _addresses_sent(left_out: str) -> RestrictionField:
    return RestrictionField(
        "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", 1, MAX_ADDRESSES, description=f"{_ADDRESSES} {left_out}"
    )


class CredentialInputSchema(RequestSchema):
    """A credential to issue."""

    name = NameField(required=True)
    expires_at = RequestTimeField(_EXPIRES_AT)
    scopes = _scopes_sent("Left out: the operator's default, usually null.")
    addresses = _addresses_sent("Left out: everywhere.")


class CredentialPatchSchema(RequestSchema):
    """The fields of a credential to change. What is left out stays as it is."""

    class Meta(RequestSchema.Meta):
        fields = CHANGEABLE_FIELDS

    trust_upstream_consent = StrictBooleanField(metadata={"description": _CONSENT})
    name = NameField()
    enabled = StrictBooleanField(
        metadata={
            "description": "Whether the credential can be verified. Left out: no change. While "
            "disabled, it is refused like an unknown one; enabled again, it works as before."
        }
    )
    scopes = _scopes_sent("Left out: no change.")
    addresses = _addresses_sent("Left out: no change.")


class CredentialUpdateSchema(CredentialPatchSchema):
    """The fields of a credential to set: always `trust_upstream_consent`, and any of the others."""

    class Meta(CredentialPatchSchema.Meta):
        fields = tuple(each for each in CHANGEABLE_FIELDS if each not in RESTRICTIONS)

    trust_upstream_consent = StrictBooleanField(required=True, metadata={"description": _CONSENT})


class RevocationSchema(Schema):
    """The condition under which a credential is revoked."""

    unused_for = QueryIntegerField(
        MIN_UNUSED_SECONDS,
        MAX_UNUSED_SECONDS,
        description="Revoke it only if it has not been used, and got no client secret, for this "
        "many seconds, from a minute to a year. A use up to a minute earlier counts too, because "
        "uses are recorded to the minute.",
    )


class EndingSchema(Schema):
    """The condition under which a client secret is ended."""

    unused_for = QueryIntegerField(
        MIN_UNUSED_SECONDS,
        MAX_UNUSED_SECONDS,
        description="End it only if it has not been used for this many seconds, and is older. "
        "Otherwise as when you revoke a credential.",
    )


class RotationSchema(RequestSchema):
    """How to rotate."""

    overlap_seconds = SecondsField(
        0,
        MAX_OVERLAP_SECONDS,
        load_default=DEFAULT_OVERLAP_SECONDS,
        metadata={
            "description": "How many seconds the previous client secret keeps working: up to 30 "
            "days, but never beyond an expiry that it already has. 0 ends all previous ones "
            "immediately.",
        },
    )
    expires_at = RequestTimeField(_EXPIRES_AT)
