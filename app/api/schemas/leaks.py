"""Schemas of leak reports. Others define their members too, so unknown ones are ignored."""

import re
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate

from app.credentials.model import PLACE_MAX_LENGTH
from app.identifiers import FORBIDDEN_CHARACTERS, LONE_SURROGATES

_STORABLE = re.compile(f"[^{FORBIDDEN_CHARACTERS}{LONE_SURROGATES}]*")


class _PlaceField(fields.String):
    """Where a client secret was found. It is shown in the audit trail, so it must be plain text."""

    def __init__(self, description: str) -> None:
        super().__init__(
            allow_none=True,
            validate=validate.Length(max=PLACE_MAX_LENGTH),
            metadata={"description": description, "pattern": f"^[^{FORBIDDEN_CHARACTERS}]*$"},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if not _STORABLE.fullmatch(text):
            raise self.make_error("invalid")
        return text


class _PlaceSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    url = _PlaceField("Where it was found. The trail shows it.")
    source = _PlaceField("In what it was found, such as `content`. The trail shows it.")


class LeakReportSchema(_PlaceSchema):
    """A client secret that somebody has found."""

    client_secret = fields.String(
        required=True, metadata={"description": "The client secret.", "format": "password"}
    )


class ScannerFindingSchema(_PlaceSchema):
    """A client secret that a scanner has found, in the words of GitHub's secret scanning."""

    token = fields.String(
        required=True,
        attribute="client_secret",
        metadata={"description": "What matched: the client secret.", "format": "password"},
    )
