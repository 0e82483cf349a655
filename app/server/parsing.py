"""Bound what reading a request may cost, however a sender writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize, LimitRequestHeaders
from gunicorn.http.message import Request

if TYPE_CHECKING:
    from gunicorn.http.unreader import Unreader

_MAX_HEADER_BYTES = 16 * 1024  # of all headers together
_MAX_CHUNKS = 256
_MAX_CHUNK_LINE_BYTES = 66  # with its CRLF


class BoundedRequest(Request):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's request, with a limit for all headers together.

    gunicorn would accept 100 of 8 KB each, and take 60 ms for them.
    """

    def read_into(self, unreader: Unreader, buf: bytearray, stop: bool = False) -> None:  # noqa: FBT001, FBT002  gunicorn's
        super().read_into(unreader, buf, stop)
        if len(buf) > 2 * _MAX_HEADER_BYTES:  # the beginning of the body included
            raise LimitRequestHeaders("the headers are too long")

    def parse_headers(self, data: bytes, from_trailer: bool = False) -> list[tuple[str, str]]:  # noqa: FBT001, FBT002  gunicorn's
        if len(data) > _MAX_HEADER_BYTES:
            raise LimitRequestHeaders("the headers are too long")
        headers: list[tuple[str, str]] = super().parse_headers(data, from_trailer)
        return headers


class BoundedChunks(ChunkedReader):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's reader of chunked bodies, with limits for all that is not the body."""

    def __init__(self, req: Request, unreader: Unreader) -> None:
        super().__init__(req, unreader)
        self._chunks = 0

    def parse_chunk_size(self, unreader: Unreader, data: bytes | None = None) -> tuple[int, bytes]:
        self._chunks += 1
        line = data or b""
        while len(line) < _MAX_CHUNK_LINE_BYTES and b"\r\n" not in line:
            received = unreader.read()
            if not received:
                break  # gunicorn reports it
            line += received
        start = line[:_MAX_CHUNK_LINE_BYTES]
        is_long = len(start) == _MAX_CHUNK_LINE_BYTES and b"\r\n" not in start
        if is_long or self._chunks > _MAX_CHUNKS:
            raise InvalidChunkSize(start)
        size_and_rest: tuple[int, bytes] = super().parse_chunk_size(unreader, line)
        return size_and_rest
