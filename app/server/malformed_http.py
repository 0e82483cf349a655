"""Answer with a problem document what the application never sees.

gunicorn's own answer to malformed HTTP is HTML and quotes the bad line.
"""

import logging
import re
import socket
from http import HTTPStatus

import gunicorn.util

from app.api.http.headers import COMMON_HEADERS
from app.api.http.problems import NOT_SERVED, UNAVAILABLE, Problem, malformed_http
from app.identifiers import REQUEST_ID_PATTERN, new_request_id
from app.server.unreader import bytes_read

_REQUEST_ID = re.compile(
    rf"^X-Request-Id:[ \t]*({REQUEST_ID_PATTERN})[ \t]*\r?$".encode(), re.MULTILINE | re.IGNORECASE
)

_logger = logging.getLogger(__name__)


def write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    """Send the problem and log it. It replaces gunicorn's `write_error`."""
    is_our_fault = status == HTTPStatus.INTERNAL_SERVER_ERROR
    problem = (
        NOT_SERVED if is_our_fault else malformed_http(status, "The request is not valid HTTP")
    )
    _write(client, problem, message=bytes_read(client))


def write_unavailable(client: socket.socket, message: bytes) -> None:
    """Send 503 and log it. The message is what has arrived of the request."""
    _write(client, UNAVAILABLE, message=message)


def _write(client: socket.socket, problem: Problem, *, message: bytes) -> None:
    request_id = _request_id(message)
    fields = {"request_id": request_id, "status": problem.status}
    _logger.warning("request not handled", extra={"fields": fields})
    body = problem.body()
    headers = [
        *problem.header_items(),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Request-Id", request_id),
        *COMMON_HEADERS,
    ]
    head = f"HTTP/1.1 {problem.status_line}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + b"\r\n" + body)


def _request_id(message: bytes) -> str:
    """Return the caller's own X-Request-Id if the message has a valid one, else a new one."""
    offered = _REQUEST_ID.findall(message)  # the last one: others may belong to earlier requests
    return offered[-1].decode() if offered else new_request_id()
