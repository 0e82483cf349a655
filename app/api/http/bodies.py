"""Rules for a request body: its size, its media type, its JSON."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import flask

from app.api.http import problems
from app.api.http.problems import (
    JSON_MEDIA_TYPE,
    MAX_BODY_BYTES,
    PATCH_MEDIA_TYPES,
    HTTPProblem,
    Problem,
    body_too_large,
    unsupported_patch,
)


def read_body(request: flask.Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the whole body.

    Raises HTTPProblem: 413 if it exceeds `max_bytes`, 400 if it is shorter than its Content-Length.
    (Werkzeug's MAX_CONTENT_LENGTH would silently truncate a chunked body.)
    """
    length = request.content_length
    if length is None and "Transfer-Encoding" not in request.headers:
        return b""
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise HTTPProblem(problems.NOT_CHUNKED)  # RFC 9112, 6.1
    if length is not None and length > max_bytes:
        raise HTTPProblem(body_too_large(max_bytes))
    try:
        body: bytes = request.environ["wsgi.input"].read(max_bytes + 1)
    except Exception:  # noqa: BLE001  each server has its own errors for a malformed body
        raise HTTPProblem(problems.BODY_UNREADABLE) from None
    if len(body) > max_bytes:
        raise HTTPProblem(body_too_large(max_bytes))
    if length is not None and len(body) < length:
        raise HTTPProblem(problems.BODY_TOO_SHORT)
    return body


def require_plain_json(request: flask.Request) -> None:
    """Raise HTTPProblem (415) unless the body is declared as JSON, without an encoding.

    The body of a PATCH is a JSON Merge Patch (RFC 7396), and may say so. A charset means nothing
    for JSON (RFC 8259, 11): the body must be UTF-8, whatever it says.
    """
    is_patch = request.method == "PATCH"
    problem = _media_type_problem(request, PATCH_MEDIA_TYPES if is_patch else (JSON_MEDIA_TYPE,))
    if problem is not None:
        raise HTTPProblem(unsupported_patch(problem) if is_patch else problem)


def _media_type_problem(request: flask.Request, media_types: Sequence[str]) -> Problem | None:
    if request.mimetype not in media_types:
        return problems.MEDIA_TYPE_NOT_JSON
    return problems.BODY_ENCODED if "Content-Encoding" in request.headers else None


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the bytes, as `parse_json` does, or raise HTTPProblem (400)."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise HTTPProblem(problems.BODY_NOT_AN_OBJECT)
    return document


def parse_json(body: bytes) -> Any:
    """Return the JSON value (RFC 8259) in the bytes, or raise HTTPProblem (400).

    Unlike `json`, it rejects invalid UTF-8, NaN, Infinity and duplicate keys.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_reject_constant,
        )
    except (ValueError, RecursionError):
        # also UnicodeDecodeError, JSONDecodeError and an integer of thousands of digits
        raise HTTPProblem(problems.BODY_NOT_JSON) from None


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)
