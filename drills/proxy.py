"""A TCP proxy in front of Postgres: it can refuse or drop traffic, or lose a client's host."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread


class Proxy:
    """Forwards a port of 127.0.0.1 to a Unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._forwarding = Event()
        self._forwarding.set()
        self._last_words: bytes | None = None
        self._lock = Lock()
        self._connections: set[socket.socket] = set()
        self._lost: set[socket.socket] = set()
        self._listen(0)

    def close(self) -> None:
        """Close the port and cut every connection. New ones are refused."""
        self._forwarding.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def reopen(self) -> None:
        """Listen on the same port again."""
        self._listen(self.port)

    @property
    def is_silent(self) -> bool:
        """Tell whether it forwards nothing now."""
        return not self._forwarding.is_set()

    @contextmanager
    def black_hole(self, *, after: bytes | None = None) -> Iterator[None]:
        """Forward nothing, not even the end of a connection, as if one of the hosts were gone.

        A new connection is accepted and never answered. With `after`, it begins when a client has
        sent these bytes, which are still forwarded.
        """
        self._last_words = after
        if after is None:
            self._forwarding.clear()
        try:
            yield
        finally:
            self._last_words = None
            self._forwarding.set()

    def lose_client(self) -> None:
        """Drop everything on the present connections, and leave Postgres' ends open.

        To Postgres, it looks as if the client's host had lost its power.
        """
        with self._lock:
            self._lost |= self._connections
            self._connections.clear()

    def end_lost(self) -> None:
        """Cut Postgres' ends of the lost connections, as its keepalives would after a while."""
        with self._lock:
            lost, self._lost = self._lost, set()
        for connection in lost:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = Thread(target=self._accept, args=[self._listener], daemon=True)
        self._accepting.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # closed
                Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            self._forwarding.wait()
            try:
                server.connect(str(self._target))
            except OSError:
                return
            with self._lock:
                self._connections |= {client, server}
            back = Thread(target=self._pump, args=[server, client], daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
            with self._lock:
                self._connections -= {client, server}

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(65536):
                self._forwarding.wait()
                if self._last_words is not None and self._last_words in received:
                    self._forwarding.clear()
                if source not in self._lost:
                    target.sendall(received)
        self._forwarding.wait()
        if source not in self._lost:
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
