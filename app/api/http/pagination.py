"""Keyset pagination: `limit`, an opaque `cursor`, and the Link to the next page (RFC 8288).

A cursor grants nothing: the caller's unit still limits what is shown.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from marshmallow import Schema, ValidationError, fields, validate

from app.api.http.application import request
from app.credentials.generator import SECRET_ID_PATTERN
from app.credentials.model import Page, Position
from app.credentials.service import MAX_ITEMS

Place = Position | int  # in a list of credentials, or an event in a trail


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_POSITION = re.compile(f"([0-9]{{1,16}})\\.({SECRET_ID_PATTERN})")
_EVENT_ID = re.compile("[0-9]{1,18}")


class LimitField(fields.Integer):
    """The size of a page, in plain digits."""

    detail = f"{{name}} must be 1-{MAX_ITEMS}"

    def __init__(self) -> None:
        super().__init__(
            validate=validate.Range(1, MAX_ITEMS),
            load_default=MAX_ITEMS,
            metadata={"description": f"The maximum number of items; {MAX_ITEMS} if it is absent."},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # int() would accept "+1", " 1", "1_0" and digits of other scripts
        if not re.fullmatch("[0-9]{1,4}", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class CursorField(fields.String):
    """An opaque place in a list. `read` parses it, and raises ValueError if it cannot."""

    detail = "{name} is not valid for this list"

    def __init__(self, read: Callable[[str], Any]) -> None:
        super().__init__(
            metadata={
                "minLength": 1,
                "maxLength": 100,
                "description": "Where the page starts: opaque, from the previous page's `Link`.",
                "pattern": "^[A-Za-z0-9_-]+={0,2}$",
            }
        )
        self._read = read

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            place = urlsafe_b64decode(text.encode("ascii")).decode("ascii")
            read = self._read(place)
        except ValueError:
            raise ValidationError(self.detail) from None
        if _encode(place) != text:  # the decoder skips characters that are not base64
            raise ValidationError(self.detail)
        return read


def link_to_next(page: Page[Any, Position] | Page[Any, int], limit: int) -> dict[str, str]:
    """Return the headers of a page: a Link if more items follow."""
    return {} if page.next is None else {"Link": next_link(request.path, limit, page.next)}


def next_link(path: str, limit: int, place: Place) -> str:
    """Return the value of a Link to the page that starts behind the place.

    It is relative, so that no proxy's idea of host and scheme can make it wrong.
    """
    query = urlencode({"limit": limit, "cursor": cursor_of(place)})
    return f'<{path}?{query}>; rel="next"'


def cursor_of(place: Place) -> str:
    """Return the opaque form of the place."""
    if isinstance(place, int):
        return _encode(str(place))
    microseconds = (place.created_at - _EPOCH) // _MICROSECOND
    return _encode(f"{microseconds}.{place.secret_id}")


def _encode(text: str) -> str:
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii")


def _read_position(text: str) -> Position:
    match = _POSITION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    microseconds, secret_id = match.groups()
    return Position(_EPOCH + int(microseconds) * _MICROSECOND, secret_id)


def _read_event_id(text: str) -> int:
    if not _EVENT_ID.fullmatch(text):
        raise ValueError(text)
    return int(text)


class CredentialPageSchema(Schema):
    """Which part of the list of credentials to show."""

    limit = LimitField()
    cursor = CursorField(_read_position)


class EventPageSchema(Schema):
    """Which part of a trail to show."""

    limit = LimitField()
    cursor = CursorField(_read_event_id)
