"""What holds for every request and every response."""

import re
import uuid

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge

MAX_BODY_BYTES = 16 * 1024

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def init_app(app: Flask) -> None:
    """Give each request an identifier and a body that is whole; keep answers out of caches."""
    app.before_request(_identify_request)
    app.before_request(_require_host)
    app.before_request(_refuse_nul)
    app.before_request(_read_body)
    app.after_request(_add_headers)


def _identify_request() -> None:
    offered = request.headers.get("X-Request-Id", "")
    g.request_id = offered if _REQUEST_ID.fullmatch(offered) else str(uuid.uuid4())


def _require_host() -> None:
    """RFC 9112, 3.2: gunicorn lets a request without Host pass."""
    if "HTTP_HOST" not in request.environ:
        raise BadRequest("The Host header is missing")


def _refuse_nul() -> None:
    """No address of ours has a NUL, and Postgres would take offence at one."""
    if "\0" in request.path:
        raise NotFound


def _read_body() -> None:
    g.body = read_body(request)


def read_body(message: Request) -> bytes:
    """Return the whole body, or raise 413 for one over 16 KiB, 400 for one shorter than it says.

    Werkzeug's MAX_CONTENT_LENGTH would cut a chunked body off in silence.
    """
    length = message.content_length
    if length is None and "Transfer-Encoding" not in message.headers:
        return b""
    if length is not None and length > MAX_BODY_BYTES:
        raise _too_large()
    try:
        body: bytes = message.environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    except Exception:  # noqa: BLE001  each server has its own errors for a broken body
        raise BadRequest("The request body could not be read") from None
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    if length is not None and len(body) < length:
        raise BadRequest("The request body is shorter than its Content-Length")
    return body


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"The request body is over {MAX_BODY_BYTES} bytes")


def _add_headers(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
