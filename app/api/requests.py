"""What holds for every request and every response."""

from __future__ import annotations

import logging
import uuid
from time import perf_counter
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, abort, g, request
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge

from app.identifiers import is_request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from app.api.auth import Caller

MAX_BODY_BYTES = 16 * 1024

COMMON_HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]

_logger = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Identify each request and read its body whole; keep answers out of caches, and log them."""
    app.before_request(_begin)
    app.after_request(_end)


def request_id_of(environ: WSGIEnvironment) -> str:
    """Return the caller's own X-Request-Id if it is a good one, else a new one."""
    offered = environ.get("HTTP_X_REQUEST_ID", "")
    return offered if is_request_id(offered) else str(uuid.uuid4())


def log_request(  # noqa: PLR0913  each is a field of the line
    *,
    request_id: str,
    method: str,
    route: str | None,
    status: int,
    started_at: float,
    caller: Caller | None,
) -> None:
    """Log an answered request. `started_at` is by `perf_counter`."""
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round((perf_counter() - started_at) * 1000, 1),
        "actor": caller.actor if caller else None,
        "unit": caller.unit_id if caller else None,
    }
    _logger.info("request", extra={"fields": fields})


def _begin() -> None:
    g.started_at = perf_counter()
    g.request_id = request_id_of(request.environ)
    g.caller = None
    if "HTTP_HOST" not in request.environ:
        raise BadRequest("The Host header is missing")  # RFC 9112, 3.2; gunicorn lets it pass
    if "\0" in request.path:
        raise NotFound  # no address of ours has a NUL, and Postgres would take offence at one
    g.body = read_body(request)


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    for name, value in COMMON_HEADERS:
        response.headers.setdefault(name, value)
    log_request(
        request_id=g.request_id,
        method=request.method,
        # the pattern, never the path: what a client puts there may be a secret
        route=request.url_rule.rule if request.url_rule else None,
        status=response.status_code,
        started_at=g.started_at,
        caller=g.caller,
    )
    return response


def read_body(message: Request) -> bytes:
    """Return the whole body, or raise 413 for one over 16 KiB, 400 for one shorter than it says.

    Werkzeug's MAX_CONTENT_LENGTH would cut a chunked body off in silence.
    """
    length = message.content_length
    if length is None and "Transfer-Encoding" not in message.headers:
        return b""
    if message.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        abort(501, "The Transfer-Encoding must be chunked")  # RFC 9112, 6.1
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
