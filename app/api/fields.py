"""marshmallow's fields, as strict as the contract. A `problem` is the detail of a refused value."""

import re
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields

from app.credentials.errors import InvalidName
from app.credentials.model import parse_name
from app.credentials.service import MAX_OVERLAP_SECONDS

MAX_LIMIT = 1000


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
    """A duration, as a JSON number without a fraction: to JSON Schema 60.0 is an integer too."""

    problem = f"overlap_seconds must be 0-{MAX_OVERLAP_SECONDS}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class LimitField(fields.Integer):
    """The size of a page, in plain digits."""

    problem = f"limit must be 1-{MAX_LIMIT}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # int() would take "+1", " 1", "1_0" and digits of other scripts
        if not re.fullmatch("[0-9]{1,4}", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class TimestampField(fields.String):
    """RFC 3339, UTC, whole seconds."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if isinstance(value, datetime):
            value = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return super()._serialize(value, attr, obj, **kwargs)
