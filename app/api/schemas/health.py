"""The answers to probes."""

from marshmallow import fields

from app.api.schemas.fields import AnswerSchema


class HealthSchema(AnswerSchema):
    """All is well."""

    status = fields.String(
        required=True,
        metadata={"description": "`ok`, as the HTTP status is.", "pattern": "^[a-z]+$"},
    )
