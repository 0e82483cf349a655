"""Keyset pagination: `limit`, an opaque `cursor`, and the Link to the next page (RFC 8288).

A cursor grants nothing: the caller's unit still limits what is shown.
"""

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from app.api.http.application import request
from app.credentials.generator import SECRET_ID_PATTERN
from app.credentials.model import CredentialPosition, Page, TrailPosition
from app.times import format_time

# A position in a list of credentials, in a unit's trail, or (an event ID) in a credential's trail.
Position = CredentialPosition | TrailPosition | int


class Cursor(NamedTuple):
    """A position in a list, and the list's fingerprint."""

    position: Position
    fingerprint: str


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CREDENTIAL_POSITION = re.compile(f"([0-9]{{1,16}})\\.({SECRET_ID_PATTERN})")
_EVENT_ID = re.compile("[0-9]{1,18}")
_TRAIL_POSITION = re.compile("([0-9]{1,18})-([0-9]{1,18})")


def link_header(page: Page[Any, Any], query: Mapping[str, Any]) -> dict[str, str]:
    """Return the Link header to the next page, or no header if there is none."""
    if page.next is None:
        return {}
    return {"Link": next_link(query, page.next, _scope())}


def next_link(
    query: Mapping[str, Any], position: Position, scope: Mapping[str, str] | None = None
) -> str:
    """Return the value of a Link to the page of this list that starts after the position.

    It is only a query (RFC 3986, 5.2.2), so that it is right behind a proxy that changes the
    scheme, the host or the path.
    """
    cursor = encode_cursor(Cursor(position, fingerprint_of(query, scope)))
    parameters = urlencode({**_filters(query), "limit": query["limit"], "cursor": cursor})
    return f'<?{parameters}>; rel="next"'


def encode_cursor(cursor: Cursor) -> str:
    """Return the cursor as opaque text."""
    position, fingerprint = cursor
    if isinstance(position, CredentialPosition):
        text = f"{(position.created_at - _EPOCH) // _MICROSECOND}.{position.secret_id}"
    elif isinstance(position, TrailPosition):
        text = f"{position.transaction_id}-{position.event_id}"
    else:
        text = str(position)
    if fingerprint:
        text += f"~{fingerprint}"
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii")


def decode_cursor(text: str, read_position: Callable[[str], Position]) -> Cursor:
    """Return the cursor that the text encodes. Raises ValueError."""
    position, _, fingerprint = (
        urlsafe_b64decode(text.encode("ascii")).decode("ascii").partition("~")
    )
    cursor = Cursor(read_position(position), fingerprint)
    if encode_cursor(cursor) != text:  # the decoder skips characters that are not base64
        raise ValueError(text)
    return cursor


def belongs_to_list(fingerprint: str, query: Mapping[str, Any]) -> bool:
    """Tell whether the request asks for the list of this fingerprint.

    In cursors of earlier releases, the fingerprint does not include the unit. They stay valid,
    because followers keep them.
    """
    return fingerprint in {
        fingerprint_of(query, _scope()),
        fingerprint_of(query, request.view_args),
    }


def fingerprint_of(query: Mapping[str, Any], scope: Mapping[str, str] | None = None) -> str:
    """Return a hash of the query's filters and the scope, which together identify the list.

    It is an empty string if there are none.
    """
    identity = {**(scope or {}), **_filters(query)}
    if not identity:
        return ""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _scope() -> dict[str, str]:
    """Return what limits the list besides its filters: the path's parameters and the unit."""
    return {**(request.view_args or {}), "unit_id": request.record.unit_id or ""}


def _filters(query: Mapping[str, Any]) -> dict[str, str]:
    """Return the query's filters as text: everything but `limit` and `cursor`."""
    return {name: _text(value) for name, value in query.items() if name not in ("limit", "cursor")}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_credential_position(text: str) -> CredentialPosition:
    """Return the position in a list of credentials. Raises ValueError."""
    match = _CREDENTIAL_POSITION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    microseconds, secret_id = match.groups()
    return CredentialPosition(_EPOCH + int(microseconds) * _MICROSECOND, secret_id)


def read_event_id(text: str) -> int:
    """Return the position in a credential's trail. Raises ValueError."""
    if not _EVENT_ID.fullmatch(text):
        raise ValueError(text)
    return int(text)


def read_trail_position(text: str) -> TrailPosition:
    """Return the position in a unit's trail. Raises ValueError."""
    match = _TRAIL_POSITION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    transaction_id, event_id = match.groups()
    return TrailPosition(int(transaction_id), int(event_id))
