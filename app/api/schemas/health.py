"""The schema of responses to probes."""

from app.api.schemas.fields import ResponseSchema, text_field


class HealthSchema(ResponseSchema):
    """The check succeeded."""

    status = text_field("`ok`. The HTTP status says the same.")
