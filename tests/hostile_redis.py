"""A TCP server in Redis' place, which answers as the test tells it."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice

# MULTI and its three commands are answered as by Redis; then comes EXEC's answer.
_QUEUED = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n"
_DRIP_BYTES = 200
_DRIP_PAUSE_SECONDS = 0.05


@dataclass
class HostileRedis:
    """It answers each question with `answer`, or closes the connection if that is None.

    If it `drips`, it sends the answer byte by byte, again and again.
    """

    answer: bytes | None
    drips: bool
    url: str = ""
    questions: int = 0
    ended_drips: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)


@contextmanager
def hostile_redis(answer: bytes | None, *, drips: bool = False) -> Iterator[HostileRedis]:
    """Run the server."""
    state = HostileRedis(answer, drips)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while data := self.request.recv(65536):
                    if b"EXEC" not in data:  # the client introduces itself
                        self.request.sendall(b"+OK\r\n" * data.count(b"*"))
                        continue
                    state.questions += 1
                    if state.answer is None:
                        return
                    if state.drips:
                        self._drip(state.answer)
                    else:
                        self.request.sendall(state.answer)

        def _drip(self, answer: bytes) -> None:
            for byte in islice(cycle(answer), _DRIP_BYTES):
                if state.stopping.wait(_DRIP_PAUSE_SECONDS):
                    return
                self.request.sendall(bytes([byte]))
            state.ended_drips += 1

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            state.stopping.set()
            server.shutdown()
            thread.join()


def executed(count: bytes, seconds: bytes) -> bytes:
    """Return what Redis answers to the question, with these results of INCRBY and TTL."""
    return _QUEUED + b"*3\r\n+OK\r\n" + count + seconds
