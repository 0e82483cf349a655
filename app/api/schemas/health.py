"""The schema of responses to probes."""

from marshmallow import fields

from app.api.schemas.fields import ResponseSchema


class HealthSchema(ResponseSchema):
    """The check succeeded."""

    status = fields.String(
        required=True,
        metadata={"description": "`ok`. The HTTP status says the same.", "pattern": "^[a-z]+$"},
    )
