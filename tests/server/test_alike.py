"""Both workers answer the same bytes with the same bytes."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from app.credentials.generator import generate_client_id, generate_client_secret
from app.settings import WORKER_CLASSES
from tests.conftest import environment
from tests.helpers import caller
from tests.running_server import HANG_SECONDS, running_server
from tests.server.requests_at_random import Author

CLIENTS = 4

CHANGING = re.compile(
    rb"^(Date: ).*?\r$"
    rb"|^(X-Request-Id: )[0-9a-f]{32}\r$",
    re.MULTILINE,
)


class Client:
    """A connection that sends each message after the answer to the one before."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def hold(self, conversation):
        """Return every answer, and finally the bytes that came before the connection ended."""
        answers = []
        with self._socket, suppress(EOFError):
            for message in conversation:
                self._send(message)
                if message.is_final:
                    break
                for _ in range(message.requests):
                    answer = self._answer(has_body=not message.wants_no_body)
                    answers.append(answer)
            with suppress(OSError):  # it has already been closed
                self._socket.shutdown(socket.SHUT_WR)
            answers.append(self._rest())
        return [comparable(answer) for answer in [*answers, self._received]]

    def _send(self, message):
        with suppress(BrokenPipeError, ConnectionResetError):  # it has already been closed
            for piece in message.pieces:
                self._socket.sendall(piece)

    def _answer(self, *, has_body):
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head = self._take(self._received.index(b"\r\n\r\n") + 4)
        length = re.search(rb"Content-Length: (\d+)", head)
        size = int(length[1]) if has_body and length else 0
        while len(self._received) < size:
            self._receive()
        return head + self._take(size)

    def _rest(self):
        with suppress(EOFError):
            while True:
                self._receive()
        return self._take(len(self._received))

    def _receive(self):
        with suppress(ConnectionResetError):
            if data := self._socket.recv(65536):
                self._received += data
                return
        raise EOFError

    def _take(self, size):
        taken, self._received = self._received[:size], self._received[size:]
        return taken


def comparable(answer):
    """Remove the parts that differ between two runs.

    How much of a malformed head the server has read depends on timing, and so does its request ID.
    """
    if b"/docs/errors#malformed-http" in answer:
        answer = re.sub(rb"X-Request-Id: .*\r\n", b"", answer)
    return CHANGING.sub(rb"\1\2", answer)


def conversations(author, requests):
    """Let the author write until there are `requests` requests."""
    written = 0
    while written < requests:
        conversation = list(author.conversation())
        written += sum(message.requests for message in conversation)
        yield conversation


@pytest.mark.parametrize("requests", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_both_workers_answer_alike(settings, service, issuer, requests):
    issued = [service.issue(caller(), name="x") for _ in range(3)]
    issued.append(service.issue(caller(), name="x", scopes=["ingest"], addresses=["127.0.0.1"]))
    issued.append(service.issue(caller(), name="x", addresses=["127.0.0.2"]))
    pairs = [(each.client_id, each.client_secret) for each in issued]
    pairs.append((generate_client_id(), generate_client_secret()))
    token = issuer.sign()

    def compare(seed):
        for conversation in conversations(Author(seed, pairs, token), requests // CLIENTS):
            fast, slow = (Client(server.port).hold(conversation) for server in servers)
            assert fast == slow, conversation[len(fast) - 3 :]

    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        servers = [
            stack.enter_context(
                running_server(
                    environment(
                        settings, worker_class=each, verify_failure_limit=0, log_level="error"
                    )
                )
            )
            for each in WORKER_CLASSES
        ]
        list(pool.map(compare, range(CLIENTS)))
