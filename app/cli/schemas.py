"""Schemas of what only the command line prints."""

from app.api.schemas.fields import (
    ResponseSchema,
    TimestampField,
    shown_name_field,
    text_field,
)


class FinishedRotationSchema(ResponseSchema):
    """A client secret that a rotation has replaced."""

    secret_id = text_field("The credential.")
    client_id = text_field("Its client ID.")
    name = shown_name_field("Its name.")
    hint = text_field("The last four characters of the client secret.")
    last_used_at = TimestampField("When it was last used.", allow_none=True)
