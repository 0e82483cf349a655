"""A client's connection, with the bytes of the next request that have been received."""

from __future__ import annotations

import re
import socket
from contextlib import suppress

from gunicorn.workers.gthread import TConn

from app.api.http.problems import MAX_BODY_BYTES

_RECEIVE_BYTES = 8192

_CONTENT_LENGTH = re.compile(
    rb"\A(?!.*\r\nexpect:).*\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r\n",
    re.DOTALL | re.IGNORECASE,
)
_VERIFICATION = re.compile(rb"(GET|HEAD|POST) /verify(?:/[^ ?]*)?[ ?]")
_REQUEST_LINE = re.compile(rb"(?:\r\n)?[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")


def forget_names(connection: TConn) -> None:
    """Replace the name of a Unix socket, at either end, by nothing.

    It is no address of a client, and gunicorn cannot read every name: an abstract one is bytes.
    """
    if not isinstance(connection.client, tuple):
        connection.client = ""
    if not isinstance(connection.server, tuple):
        connection.server = ""


class Connection(TConn):  # type: ignore[misc]  # gunicorn ships no types
    """A client's connection, with the bytes of the next request received so far."""

    received = b""

    @property
    def peer(self) -> str:
        """The address from which the client connects, or nothing if it is a Unix socket."""
        return self.client[0] if isinstance(self.client, tuple) else ""

    def receive(self) -> bool:
        """Receive what is there, without waiting. Return False if no more will come."""
        try:
            data = self.sock.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        return len(data) > 0

    def awaits_more(self) -> bool:
        """Tell whether the request is incomplete, but valid so far."""
        head, ended, body = self.received.partition(b"\r\n\r\n")
        if ended:
            if _VERIFICATION.match(head):  # its body is ignored
                return False
            length = _CONTENT_LENGTH.search(head + b"\r\n")
            return length is not None and len(body) < int(length[1]) <= MAX_BODY_BYTES
        if len(head) >= _RECEIVE_BYTES or head.count(b"\n") != head.count(b"\r\n"):
            return False
        return b"\r\n" not in head[2:] or _REQUEST_LINE.match(head) is not None

    def send(self, message: bytes) -> bool:
        """Send the message without waiting. Return False if the client does not accept it.

        Never blocks: the send buffer holds about a hundred such responses.
        """
        try:
            sent: int = self.sock.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return sent == len(message)

    def awaits_body(self) -> bool:
        """Tell whether the head of the request is there."""
        return b"\r\n\r\n" in self.received

    def end_input(self) -> None:
        """Let the rest of the request's body be missing, for whoever reads it."""
        with suppress(OSError):  # the client is gone
            self.sock.shutdown(socket.SHUT_RD)

    def unread(self) -> None:
        """Hand the received bytes to gunicorn's parser, which reads the rest."""
        self.init()
        self.parser.unreader.unread(self.received)
        self.received = b""

    def take_back(self) -> None:
        """Take back the bytes of the next request that gunicorn's parser has read."""
        if self.parser is not None:
            self.received += self.parser.unreader.take_buffered()
