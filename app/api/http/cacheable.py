"""Responses that are the same for everybody: compressed, and cacheable with revalidation."""

import gzip
from functools import lru_cache

from flask import Response
from werkzeug.http import generate_etag

from app.api.http.application import request

_MIN_COMPRESSED_BYTES = 1024  # compressing less is not worth it


def cacheable_response(content: bytes, media_type: str) -> Response:
    """Return the content, compressed if the request allows it, or 304 if the client has it.

    A cache may store it, but must revalidate it before each use (RFC 9111, 5.2.2.4).
    """
    response = compressed_response(content, media_type)
    response.headers["Cache-Control"] = "no-cache"
    etag = generate_etag(content)
    if response.content_encoding:
        etag += "-gzip"
    response.set_etag(etag)
    if request.if_none_match.contains_weak(etag):
        response.status_code = 304
        response.data = b""
    return response


def compressed_response(content: bytes, media_type: str) -> Response:
    """Return the content, compressed if the request allows it."""
    response = Response(content, mimetype=media_type)
    response.vary.add("Accept-Encoding")
    if len(content) >= _MIN_COMPRESSED_BYTES and request.accept_encodings["gzip"]:
        response.data = _compressed(content)
        response.content_encoding = "gzip"
    return response


@lru_cache(maxsize=32)
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
