"""Pages of a list: `limit`, an opaque `cursor`, and the Link to the next page (RFC 8288).

A cursor is a place in a list and no permission: whatever it says, the caller's unit limits what is
shown.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import request
from marshmallow import Schema, ValidationError, fields, validate

from app.api.fields import MAX_LIMIT, LimitField
from app.credentials.model import Credential, Event, Page, Position, T

_CURSOR = "[A-Za-z0-9_-]+={0,2}"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_POSITION = re.compile(r"([0-9]{1,16})\.(sec_[0-9a-z]{20})")
_EVENT_ID = re.compile(r"[0-9]{1,18}")


class CursorField(fields.String):
    """An opaque place in a list, which `read` understands; it raises ValueError for another."""

    problem = "cursor is none that this list gave"

    def __init__(self, read: Callable[[str], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._read = read

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            place = urlsafe_b64decode(text.encode("ascii")).decode("ascii")
            read = self._read(place)
        except ValueError:
            raise ValidationError(self.problem) from None
        if _encode(place) != text:  # the decoder passes over what is no base64
            raise ValidationError(self.problem)
        return read


def position_of(credential: Credential) -> str:
    """Return the cursor of the list behind the credential."""
    microseconds = (credential.created_at - _EPOCH) // _MICROSECOND
    return _encode(f"{microseconds}.{credential.secret_id}")


def event_id_of(event: Event) -> str:
    """Return the cursor of the trail behind the event."""
    return _encode(str(event.event_id))


def link_to_next(page: Page[T], limit: int | None, cursor_of: Callable[[T], str]) -> dict[str, str]:
    """Return the headers of a page: a Link where more follow.

    The link is relative, so that no proxy's idea of host and scheme can make it wrong.
    """
    if not page.more:
        return {}
    query = urlencode({"limit": limit, "cursor": cursor_of(page.items[-1])})
    return {"Link": f'<{request.path}?{query}>; rel="next"'}


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


def _limit() -> LimitField:
    return LimitField(
        validate=validate.Range(1, MAX_LIMIT),
        metadata={"description": "How many to show at most; without it, all."},
    )


def _cursor(read: Callable[[str], Any]) -> CursorField:
    return CursorField(
        read,
        metadata={
            "minLength": 1,
            "maxLength": 100,
            "description": "Where to go on: opaque, from the `Link` of the page before.",
            "pattern": f"^{_CURSOR}$",
        },
    )


class CredentialPageSchema(Schema):
    """Which part of the list of credentials to show."""

    limit = _limit()
    cursor = _cursor(_read_position)


class EventPageSchema(Schema):
    """Which part of a trail to show."""

    limit = _limit()
    cursor = _cursor(_read_event_id)
