"""The least that the service's loop can do: its worker, with a fixed response to `/verify`."""

from math import inf

from app.server.fast_worker import FastWorker

_HELLO = (
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nConnection: keep-alive\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
)


class HelloWorker(FastWorker):
    """Responds to a plain request as soon as it is parsed."""

    def _begin(self, connection, _):
        connection.received = b""
        connection.timeout = inf
        self._responses.append((connection, _HELLO, False))
