"""Parse plain requests to `/verify`, and write their responses.

A request is plain if gunicorn would read it in the same way: only visible ASCII, single spaces, no
body, no repeated header, and no header that gunicorn treats specially. One regular expression
decides this; gunicorn handles everything that it does not match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING

from gunicorn import SERVER, util

from app.api.http.headers import is_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.api.verify import VerifyResponse

# Below gunicorn's limits of a request line (4094) and of the number of headers (100).
_MAX_BYTES = 4000
_MAX_HEADERS = 64

# The quantifiers are possessive, so that a request that does not match fails in linear time.
_REQUEST = re.compile(
    rf"(GET|HEAD|POST) (/verify(?:/[a-z0-9._-]++)?) HTTP/1\.1\r\n"
    rf"((?:[A-Za-z0-9-]++: [!-~]++(?: ++[!-~]++)*+\r\n){{1,{_MAX_HEADERS}}}+)\r\n"
)
_HEADER = re.compile(r"([^:]+): ([^\r]+)\r\n")

# Headers that frame the message or change the connection.
_SPECIAL_HEADERS = frozenset(
    ("content-length", "content-type", "transfer-encoding", "expect", "upgrade")
)
_CONNECTION_OPTIONS = frozenset(("keep-alive", "close"))


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A plain request: its method, its path, and its headers by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection to be closed after the response."""
        return self.headers.get("connection", "").lower() == "close"


def parse_request(message: bytes) -> PlainRequest | None:
    """Return the request, or None if it is not plain."""
    if len(message) > _MAX_BYTES:
        return None
    request = _REQUEST.fullmatch(message.decode("latin-1"))
    if request is None:
        return None
    names, values = zip(*_HEADER.findall(request[3]), strict=True)
    lower = _lower(names)
    if lower is None:
        return None
    headers = dict(zip(lower, values, strict=True))
    if headers.get("connection", "close").lower() not in _CONNECTION_OPTIONS:
        return None
    if not is_host(headers.get("host", " ")):
        return None
    return PlainRequest(request[1], request[2], headers)


@lru_cache(maxsize=256)
def _lower(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the names in lower case, or None if a request with them is not plain."""
    lower = tuple(name.lower() for name in names)
    is_plain = len(set(lower)) == len(lower) and _SPECIAL_HEADERS.isdisjoint(lower)
    return lower if is_plain else None


def write_response(response: VerifyResponse, *, is_head: bool, closes: bool) -> bytes:
    """Return the message as gunicorn would send it."""
    block = "".join([f"{name}: {value}\r\n" for name, value in response.headers])
    head = (
        f"HTTP/1.1 {response.status_line}\r\nServer: {SERVER}\r\nDate: {_date(int(time()))}\r\n"
        f"Connection: {'close' if closes else 'keep-alive'}\r\n{block}\r\n"
    ).encode("latin-1")
    return head if is_head else head + response.body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    date: str = util.http_date(second)
    return date
