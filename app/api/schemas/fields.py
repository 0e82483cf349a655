"""Fields that are as strict as the contract.

A field's `error_detail` becomes the `detail` of the problem document if the value is invalid.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, ClassVar, cast

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from app.credentials.errors import InvalidName
from app.credentials.model import NAME_MAX_LENGTH, PLACE_MAX_LENGTH, parse_name
from app.identifiers import (
    FORBIDDEN_CHARACTERS,
    IDENTIFIER_MAX_LENGTH,
    IDENTIFIER_RULE,
    is_identifier,
)
from app.json_bytes import json_bytes
from app.times import TIME_RULE, format_time, parse_time

_STORED_TEXT = f"^[^{FORBIDDEN_CHARACTERS}]+$"
_NAME_SENT = (
    rf"^\s*[^\s{FORBIDDEN_CHARACTERS}]"
    rf"([^{FORBIDDEN_CHARACTERS}]{{0,{NAME_MAX_LENGTH - 2}}}[^\s{FORBIDDEN_CHARACTERS}])?\s*$"
)

_NAME = (
    f"The credential's display name: 1-{NAME_MAX_LENGTH} characters, after surrounding white space "
    "is removed. Control characters and bidirectional overrides are not allowed. Two credentials "
    "may have the same name."
)


class RequestSchema(Schema):
    """A request body. It rejects members that it does not have."""

    class Meta:
        unknown = RAISE


class ResponseSchema(Schema):
    """A response. It may gain members, so the OpenAPI document forbids none.

    In the document, a schema that inherits from others refers to them (`allOf`), and a schema with
    `one_of` lists them (`oneOf`).

    `to_json` writes an object that has an attribute for every field, as our models do.
    """

    one_of: ClassVar[Sequence[type[Schema]]] = ()

    class Meta:
        unknown = EXCLUDE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        shown = self.dump_fields
        self._members = [field.data_key or name for name, field in shown.items()]
        self._values_of = _getter(list(shown))
        conversions = zip(self._members, map(_conversion_of, shown.values()), strict=True)
        self._conversions = [(member, convert) for member, convert in conversions if convert]

    def to_json(self, obj: Any) -> bytes:
        """Return what `dump` returns, as JSON, in a tenth of the time."""
        return json_bytes(
            [self.members_of(each) for each in obj] if self.many else self.members_of(obj)
        )

    def members_of(self, obj: Any) -> dict[str, Any]:
        """Return the object's members, whose times are still times."""
        members = dict(zip(self._members, self._values_of(obj), strict=True))
        for member, convert in self._conversions:
            members[member] = convert(members[member])
        return members


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda obj: tuple(getattr(obj, name) for name in names)


def _conversion_of(field: fields.Field[Any]) -> Callable[[Any], Any] | None:
    """Return what makes JSON's values of the field's, or None if they are already.

    Raises TypeError for a kind of field that no response has had so far.
    """
    if isinstance(field, TimestampField):
        return _in_utc
    if isinstance(field, fields.Nested):
        members_of = cast("ResponseSchema", field.schema).members_of
        return lambda obj: None if obj is None else members_of(obj)
    if isinstance(field, fields.List):
        convert = _conversion_of(field.inner)
        return convert and (lambda values: [convert(each) for each in values])
    if isinstance(field, fields.String | fields.Boolean | fields.Integer | fields.Dict):
        return None
    raise TypeError(field)


def _in_utc(time: datetime | None) -> datetime | None:
    """Return the time in UTC: Postgres sends it in the session's time zone."""
    return None if time is None else time.astimezone(UTC)


class NameField(fields.String):
    """The name of a credential in a request, as `parse_name` accepts it."""

    error_detail = f"Name must be 1-{NAME_MAX_LENGTH} characters"

    def __init__(self, *, required: bool = False, description: str = _NAME) -> None:
        super().__init__(
            required=required, metadata={"description": description, "pattern": _NAME_SENT}
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return parse_name(text)
        except InvalidName as error:
            raise ValidationError(str(error)) from None


class StrictBooleanField(fields.Boolean):
    """A JSON boolean: no "true", 1 or "yes"."""

    error_detail = "{name} must be true or false"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class RestrictionField(fields.List[str]):
    """Scopes or addresses in a request: null or strings. The domain judges each string."""

    error_detail = "{name} must be null or a list of strings"

    def __init__(self, item: str, low: int, high: int, *, description: str) -> None:
        super().__init__(
            fields.String(metadata={"pattern": item}),
            allow_none=True,
            metadata={
                "description": description,
                "minItems": low,
                "maxItems": high,
                "uniqueItems": True,
            },
        )


class SecondsField(fields.Integer):
    """A duration in whole seconds. 60.0 is valid too: in JSON Schema, it is an integer."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(low, high), **kwargs)
        self.error_detail = f"{{name}} must be {low}-{high}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class TimestampField(fields.String):
    """A time in a response: RFC 3339, UTC, whole seconds."""

    def __init__(
        self, description: str, *, required: bool = True, allow_none: bool = False
    ) -> None:
        super().__init__(
            required=required,
            allow_none=allow_none,
            metadata={"description": description},
        )

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if isinstance(value, datetime):
            value = format_time(value)
        return super()._serialize(value, attr, obj, **kwargs)


class RequestTimeField(fields.String):
    """A time in a request: any RFC 3339 date-time."""

    error_detail = f"{{name}} must be {TIME_RULE}"

    def __init__(self, description: str) -> None:
        super().__init__(metadata={"description": description})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        try:
            return parse_time(text)
        except ValueError:
            raise ValidationError(f"Must be {TIME_RULE}") from None


class QueryTimeField(RequestTimeField):
    """A time in a query, where the `+` of its offset need not be encoded."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # A URI may have a plain "+" (RFC 3986, 3.4), but Werkzeug decodes a form (WHATWG URL, 5.1).
        return super()._deserialize(value.replace(" ", "+"), attr, data, **kwargs)


class QueryPatternField(fields.String):
    """Text in a query that matches the pattern from end to end."""

    def __init__(self, description: str, pattern: str) -> None:
        super().__init__(
            validate=validate.Regexp(f"^{pattern}$"), metadata={"description": description}
        )
        self.error_detail = "{name} has the wrong format"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if text.endswith("\n"):  # which $ would allow
            raise self.make_error("invalid")
        return text


class QueryChoiceField(fields.String):
    """One of several words."""

    def __init__(self, description: str, words: Iterable[str], **kwargs: Any) -> None:
        words = list(words)
        super().__init__(
            validate=validate.OneOf(words), metadata={"description": description}, **kwargs
        )
        self.error_detail = f"{{name}} must be one of: {', '.join(words)}"


class QueryBooleanField(fields.String):
    """`true` or `false` in a query."""

    error_detail = "{name} must be true or false"

    def __init__(self, description: str) -> None:
        super().__init__(metadata={"description": description, "enum": ["true", "false"]})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if text not in ("true", "false"):
            raise self.make_error("invalid")
        return text == "true"


class QueryIdentifierField(fields.String):
    """An identifier in a query, as `is_identifier` accepts it."""

    error_detail = f"{{name}} must be {IDENTIFIER_RULE}"

    def __init__(self, description: str) -> None:
        super().__init__(
            validate=validate.Length(1, IDENTIFIER_MAX_LENGTH),
            metadata={"description": description, "pattern": _STORED_TEXT},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if not is_identifier(text):
            raise self.make_error("invalid")
        return text


class QueryIntegerField(fields.Integer):
    """A whole number in a query, in plain digits."""

    def __init__(self, low: int, high: int, *, description: str, **kwargs: Any) -> None:
        super().__init__(
            validate=validate.Range(low, high), metadata={"description": description}, **kwargs
        )
        self.error_detail = f"{{name}} must be {low}-{high}"
        self._digits = len(str(high))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # int() would accept "+1", " 1", "1_0" and digits of other scripts
        if not re.fullmatch(f"[0-9]{{1,{self._digits}}}", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


def identifier_field(description: str, **kwargs: Any) -> fields.String:
    """Return a field for an identifier in a response, as `is_identifier` accepts it."""
    return _stored_text(description, IDENTIFIER_MAX_LENGTH, **kwargs)


def shown_name_field(description: str, **kwargs: Any) -> fields.String:
    """Return a field for the name of a credential in a response."""
    return _stored_text(description, NAME_MAX_LENGTH, **kwargs)


def place_field(description: str) -> fields.String:
    """Return a field for where a leak was found, in a response."""
    return _stored_text(description, PLACE_MAX_LENGTH, required=False)


def text_field(description: str, *, allow_none: bool = False) -> fields.String:
    """Return a field for text in a response that the service wrote.

    No member of a response has a pattern: clients of some generators then reject valid responses.
    """
    return fields.String(
        required=True,
        allow_none=allow_none,
        metadata={"description": description},
    )


def restriction_field(
    description: str, *, required: bool = True, **kwargs: Any
) -> fields.List[str]:
    """Return a field for the scopes or the addresses of a credential in a response."""
    return fields.List(
        fields.String(),
        required=required,
        allow_none=True,
        metadata={"description": description},
        **kwargs,
    )


def _stored_text(
    description: str, max_length: int, *, required: bool = True, **kwargs: Any
) -> fields.String:
    return fields.String(
        required=required,
        **kwargs,
        validate=validate.Length(1, max_length),
        metadata={"description": description},
    )
