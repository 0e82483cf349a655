"""Parse plain requests and write plain responses. Nearly every verification is such a request.

A request is plain if gunicorn would read it in the same way: only visible ASCII, single spaces, no
body, no repeated header, and no header that gunicorn treats specially. One regular expression
decides this; gunicorn handles everything that it does not match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from time import time
from typing import TYPE_CHECKING

from gunicorn import SERVER, util
from gunicorn.http import wsgi

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIEnvironment
    from gunicorn.config import Config

    from app.server.connection import Connection

# Below gunicorn's limits of a request line (4094) and of the number of headers (100).
_MAX_BYTES = 4000
_MAX_HEADERS = 64

# The quantifiers are possessive, so that a request that does not match fails in linear time.
_REQUEST = re.compile(
    r"(GET|HEAD|POST) (/(?!/)[A-Za-z0-9/_.~-]*+) HTTP/1\.1\r\n"
    rf"((?:[A-Za-z0-9-]++: [!-~]++(?: ++[!-~]++)*+\r\n){{1,{_MAX_HEADERS}}}+)\r\n"
)
_HEADER = re.compile(r"([^:]+): ([^\r]+)\r\n")

# Headers that frame the message, change the connection, or have their own name in WSGI.
_SPECIAL_HEADERS = frozenset(
    ("content-length", "content-type", "transfer-encoding", "expect", "upgrade", "script_name")
)
_CONNECTION_OPTIONS = frozenset(("keep-alive", "close"))

# Statuses of responses that have a body.
_STATUS = re.compile(r"(?!1|204|304)[1-9]\d\d [ -~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class PlainRequests:
    """Turns plain requests into WSGI environs, under gunicorn's settings."""

    def __init__(self, cfg: Config) -> None:
        self._base: WSGIEnvironment = wsgi.base_environ(cfg) | {
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
        }
        configured = {name.lower() for name in (*cfg.secure_scheme_headers, *cfg.forwarder_headers)}
        self._special_headers = _SPECIAL_HEADERS | configured
        self._variable = lru_cache(maxsize=256)(self._variable_of)

    def environ(self, connection: Connection) -> WSGIEnvironment | None:
        """Return the environ of the request that the connection has received; None if not plain."""
        head = connection.received
        if len(head) > _MAX_BYTES:
            return None
        request = _REQUEST.fullmatch(head.decode("latin-1"))
        if request is None:
            return None
        method, path, headers = request.groups()
        environ = self._base.copy()
        for name, value in _HEADER.findall(headers):
            variable = self._variable(name)
            if variable is None or variable in environ:
                return None
            environ[variable] = value
        if environ.get("HTTP_CONNECTION", "close").lower() not in _CONNECTION_OPTIONS:
            return None
        environ["REQUEST_METHOD"] = method
        environ["RAW_URI"] = environ["PATH_INFO"] = path
        environ["wsgi.input"] = BytesIO()
        environ["gunicorn.socket"] = connection.sock
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = connection.client_address
        environ["SERVER_NAME"], environ["SERVER_PORT"] = connection.server_address
        return environ

    def _variable_of(self, header: str) -> str | None:
        """Return the header's name in the environ, or None if gunicorn treats it specially."""
        name = header.lower()
        return None if name in self._special_headers else "HTTP_" + name.upper().replace("-", "_")


@dataclass(slots=True)
class PlainResponse:
    """The application's response to a plain request, and the HTTP message for it."""

    method: str
    closes: bool
    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    version = (1, 1)

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,  # noqa: ARG002  nothing is sent before the end
    ) -> Callable[[bytes], object]:
        """Store the status and the headers (PEP 3333)."""
        self.status, self.headers = status, headers
        return self.written.append

    def should_close(self) -> bool:
        """Tell gunicorn's own response whether to close the connection."""
        return self.closes

    def message(self, body: bytes) -> bytes | None:
        """Return the message as gunicorn would send it, or None if gunicorn has to write it.

        It does if a header is malformed or hop-by-hop, or if the length of the body is unknown.
        """
        is_head = self.method == "HEAD"
        names, values = zip(*self.headers, strict=True) if self.headers else ((), ())
        position = _length_position(names)
        if position is None or not (is_head or values[position] == str(len(body))):
            return None
        text = "".join(values)
        block = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        if not (text.isascii() and text.isprintable() and _STATUS.fullmatch(self.status)):
            return None
        if ":  " in block or " \r\n" in block:  # gunicorn would strip the value
            return None
        connection = "close" if self.closes else "keep-alive"
        head = (
            f"HTTP/1.1 {self.status}\r\nServer: {SERVER}\r\nDate: {_date(int(time()))}\r\n"
            f"Connection: {connection}\r\n{block}\r\n"
        ).encode("latin-1")
        return head if is_head else head + body


@lru_cache(maxsize=256)
def _length_position(names: tuple[str, ...]) -> int | None:
    """Return the index of Content-Length, or None if gunicorn has to write these headers."""
    lower = [name.lower() for name in names]
    if not all(map(_TOKEN.fullmatch, names)) or not util.hop_headers.isdisjoint(lower):
        return None
    return lower.index("content-length") if lower.count("content-length") == 1 else None


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    date: str = util.http_date(second)
    return date
