"""gunicorn's own answers, made like ours. gunicorn.conf.py installs them."""

import re
import socket
import uuid
from http import HTTPStatus
from weakref import WeakKeyDictionary

import gunicorn.util
from gunicorn.http import parser
from gunicorn.http.unreader import SocketUnreader

from app.api.http.hooks import COMMON_HEADERS
from app.api.http.problems import Problem
from app.identifiers import REQUEST_ID_PATTERN

_REQUEST_ID = re.compile(
    rf"^X-Request-Id:[ \t]*({REQUEST_ID_PATTERN})[ \t]*\r?$".encode(), re.MULTILINE | re.IGNORECASE
)

# The last bytes that each connection read: gunicorn forgets the request that it cannot parse.
_last_read: WeakKeyDictionary[socket.socket, bytes] = WeakKeyDictionary()


class _RememberingUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn ships no types
    def chunk(self, size_hint: int | None = None) -> bytes:
        data: bytes = super().chunk(size_hint)
        _last_read[self.sock] = data
        return data


def install() -> None:
    """Replace gunicorn's answer to malformed HTTP: it is HTML, and quotes the invalid line."""
    parser.SocketUnreader = _RememberingUnreader
    gunicorn.util.write_error = _write_problem


def _write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "The request cannot be served" if is_ours else "The request is not valid HTTP"
    problem = Problem(status, detail)
    body = problem.body()
    headers = [
        *problem.header_items(),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Request-Id", _request_id(_last_read.get(client, b""))),
        *COMMON_HEADERS,
    ]
    head = f"HTTP/1.1 {status} {problem.title}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + b"\r\n" + body)


def _request_id(message: bytes) -> str:
    """Return the caller's own X-Request-Id if the message has a valid one, else a new one."""
    offered = _REQUEST_ID.search(message)
    return offered[1].decode() if offered else str(uuid.uuid4())
