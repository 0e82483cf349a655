"""The answers to probes."""

from marshmallow import fields, validate

from app.api.schemas.fields import ClosedSchema


class HealthSchema(ClosedSchema):
    """All is well."""

    status = fields.String(
        required=True, validate=validate.Equal("ok"), metadata={"description": "Always `ok`."}
    )
