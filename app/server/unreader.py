"""How gunicorn's parser reads a request: within a deadline, and remembering what it has read."""

import socket
from dataclasses import dataclass
from math import inf
from time import monotonic
from weakref import WeakKeyDictionary

from gunicorn.http.unreader import SocketUnreader

CLIENT_SECONDS = 5  # how long a client may send nothing, send one request, or read nothing

_REMEMBERED_BYTES = 16 * 1024


@dataclass(slots=True)
class _Receiving:
    """The request that a connection receives: its first bytes, and when it must be whole."""

    deadline: float = inf  # monotonic time
    read: bytes = b""


# By socket, because gunicorn discards the parser of a request that it cannot parse.
_receiving: WeakKeyDictionary[socket.socket, _Receiving] = WeakKeyDictionary()


def expect_request(client: socket.socket) -> None:
    """Give the client five seconds to send its whole request, however it does."""
    _receiving.setdefault(client, _Receiving()).deadline = monotonic() + CLIENT_SECONDS


def bytes_read(client: socket.socket) -> bytes:
    """Return what has been read of the client's request: at most its last 16 KiB."""
    return _receiving.setdefault(client, _Receiving()).read


class RequestUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's source of a request's bytes, with a deadline and a memory."""

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive more. Raises TimeoutError if the client has taken too long for the request."""
        if monotonic() > self._receiving.deadline:
            raise TimeoutError
        data: bytes = super().chunk(size_hint)
        return data

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        data: bytes = super().read(size, read_ahead)
        self._receiving.read = (self._receiving.read + data)[-_REMEMBERED_BYTES:]
        return data

    def unread(self, data: bytes) -> None:
        """Take back bytes of the next request, and so forget the previous one."""
        self._receiving.read = b""
        super().unread(data)

    @property
    def _receiving(self) -> _Receiving:
        return _receiving.setdefault(self.sock, _Receiving())
