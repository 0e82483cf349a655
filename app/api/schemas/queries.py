"""Schemas of queries for a list: its page and its filters."""

from collections.abc import Callable
from typing import Any, get_args

from marshmallow import Schema, ValidationError, fields, post_load

from app.api.http.pagination import (
    Position,
    belongs_to_list,
    decode_cursor,
    read_credential_position,
    read_event_id,
    read_trail_position,
)
from app.api.schemas.fields import (
    NameField,
    QueryBooleanField,
    QueryChoiceField,
    QueryIdentifierField,
    QueryIntegerField,
    QueryPatternField,
    QueryTimeField,
)
from app.credentials.generator import CLIENT_ID_PATTERN, SECRET_ID_PATTERN
from app.credentials.management import MAX_ITEMS
from app.credentials.model import EVENT_NAMES, Order


def limit_field() -> QueryIntegerField:
    """Return the field for the size of a page."""
    return QueryIntegerField(
        1,
        MAX_ITEMS,
        load_default=MAX_ITEMS,
        description=f"The maximum number of items; {MAX_ITEMS} if it is absent.",
    )


class CursorField(fields.String):
    """An opaque position in a list, with the list's fingerprint. `read_position` parses it."""

    error_detail = "{name} is not valid for this list"

    def __init__(self, read_position: Callable[[str], Position]) -> None:
        super().__init__(
            metadata={
                "minLength": 1,
                "maxLength": 100,
                "description": "Where the page starts: opaque, from the previous page's `Link`.",
                "pattern": "^[A-Za-z0-9_-]+={0,2}$",
            }
        )
        self._read_place = read_position

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return decode_cursor(text, self._read_place)
        except ValueError:
            raise ValidationError(self.error_detail) from None


class _PageSchema(Schema):
    """Which part of a list to show. A cursor is valid only for its own list and its filters."""

    limit = limit_field()

    @post_load
    def check_cursor(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "cursor" in query:
            position, fingerprint = query["cursor"]
            if not belongs_to_list(fingerprint, query):
                raise ValidationError(CursorField.error_detail, "cursor")
            query["cursor"] = position
        return query


class CredentialPageSchema(_PageSchema):
    """Which credentials to list."""

    cursor = CursorField(read_credential_position)
    client_id = QueryPatternField("Only the credential with this client ID.", CLIENT_ID_PATTERN)
    name = NameField(
        description="Only credentials with this text in their name, in upper or lower case."
    )
    enabled = QueryBooleanField("Only credentials that are enabled (`true`) or disabled (`false`).")
    expiring_before = QueryTimeField(
        "Only credentials that will have no live client secret by this time, or have none now."
    )
    unused_since = QueryTimeField(
        "Only credentials that were last used before this time, or never, and whose client secrets "
        "were all created before it. `last_used_at` is exact to a minute."
    )
    refused_since = QueryTimeField(
        "Only credentials of which a sender was last refused at this time or later."
    )
    unrestricted = QueryBooleanField("Only credentials without scopes (`true`) or with (`false`).")
    detailed = QueryBooleanField(
        "Whether each credential is shown as by *Get a credential*, with its state and its live "
        "client secrets. Default `false`."
    )


class EventPageSchema(_PageSchema):
    """Which part of a credential's trail to show."""

    cursor = CursorField(read_event_id)


class UnitEventPageSchema(_PageSchema):
    """Which events of a unit to show."""

    cursor = CursorField(read_trail_position)
    order = QueryChoiceField(
        "`desc`: newest first. `asc`: oldest first, with a `Link` on every page, to follow the "
        "trail.",
        get_args(Order),
        load_default="desc",
    )
    event = QueryChoiceField("Only events of this kind.", EVENT_NAMES)
    actor = QueryIdentifierField("Only what this actor did.")
    secret_id = QueryPatternField("Only what happened to this credential.", SECRET_ID_PATTERN)
    since = QueryTimeField("Only events from this time on.")
    until = QueryTimeField("Only events before this time.")
