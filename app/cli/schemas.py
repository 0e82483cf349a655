"""Schemas of what only the command line prints."""

from app.api.schemas.fields import (
    ResponseSchema,
    TimestampField,
    pattern_field,
    shown_name_field,
)
from app.credentials.generator import CLIENT_ID_PATTERN, HINT_PATTERN, SECRET_ID_PATTERN


class FinishedRotationSchema(ResponseSchema):
    """A client secret that a rotation has replaced."""

    secret_id = pattern_field("The credential.", SECRET_ID_PATTERN)
    client_id = pattern_field("Its client ID.", CLIENT_ID_PATTERN)
    name = shown_name_field("Its name.")
    hint = pattern_field("The last four characters of the client secret.", HINT_PATTERN)
    last_used_at = TimestampField("When it was last used.", allow_none=True)
