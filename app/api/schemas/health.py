"""The answers to probes."""

from marshmallow import fields

from app.api.schemas.fields import AnswerSchema


class HealthSchema(AnswerSchema):
    """All is well."""

    status = fields.String(
        required=True,
        metadata={"description": "`ok`. The HTTP status says the same.", "pattern": "^[a-z]+$"},
    )
