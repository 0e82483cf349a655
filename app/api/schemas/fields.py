"""Fields that are as strict as the contract.

A field's `detail` is what the problem document says about an invalid value.
"""

from datetime import UTC, datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from app.credentials.errors import InvalidName
from app.credentials.model import NAME_MAX_LENGTH, parse_name
from app.identifiers import (
    BIDIRECTIONAL_OVERRIDES,
    CONTROL_CHARACTERS,
    IDENTIFIER_MAX_LENGTH,
)

_IDENTIFIER = f"^[^{CONTROL_CHARACTERS}]+$"
_TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"

_FORBIDDEN_IN_NAME = CONTROL_CHARACTERS + BIDIRECTIONAL_OVERRIDES
_NAME_SHOWN = f"^[^{_FORBIDDEN_IN_NAME}]+$"
_NAME_SENT = (
    rf"^\s*[^\s{_FORBIDDEN_IN_NAME}]"
    rf"([^{_FORBIDDEN_IN_NAME}]{{0,{NAME_MAX_LENGTH - 2}}}[^\s{_FORBIDDEN_IN_NAME}])?\s*$"
)


class ClosedSchema(Schema):
    """A schema that accepts no member besides its own."""

    class Meta:
        unknown = RAISE


class NameField(fields.String):
    """A credential's new name, as `parse_name` accepts it."""

    detail = f"Name must be 1-{NAME_MAX_LENGTH} characters"

    def __init__(self, *, required: bool) -> None:
        super().__init__(
            required=required,
            metadata={
                "description": f"The credential's display name: 1-{NAME_MAX_LENGTH} characters, "
                "after surrounding white space is removed. Control characters and bidirectional "
                "overrides are not allowed. Two credentials may have the same name.",
                "pattern": _NAME_SENT,
            },
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return parse_name(text)
        except InvalidName as error:
            raise ValidationError(str(error)) from None


class StrictBooleanField(fields.Boolean):
    """A JSON boolean: no "true", 1 or "yes"."""

    detail = "{name} must be true or false"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class SecondsField(fields.Integer):
    """A duration in whole seconds. In JSON Schema, 60.0 is an integer too."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(low, high), **kwargs)
        self.detail = f"{{name}} must be {low}-{high}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class TimestampField(fields.String):
    """RFC 3339, UTC, whole seconds."""

    def __init__(self, description: str, *, allow_none: bool = False) -> None:
        super().__init__(
            required=True,
            allow_none=allow_none,
            metadata={"description": description, "format": "date-time", "pattern": _TIMESTAMP},
        )

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if isinstance(value, datetime):
            value = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return super()._serialize(value, attr, obj, **kwargs)


def identifier_field(description: str) -> fields.String:
    """Return a field for text that others chose and that `is_identifier` accepts."""
    return _text(description, _IDENTIFIER, IDENTIFIER_MAX_LENGTH)


def shown_name_field(description: str) -> fields.String:
    """Return a field for the name of a credential in an answer."""
    return _text(description, _NAME_SHOWN, NAME_MAX_LENGTH)


def code_field(description: str, pattern: str) -> fields.String:
    """Return a field for text that matches the pattern from end to end."""
    return fields.String(
        required=True,
        validate=validate.Regexp(f"^{pattern}$"),
        metadata={"description": description},
    )


def _text(description: str, pattern: str, max_length: int) -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Length(1, max_length),
        metadata={"description": description, "pattern": pattern},
    )
