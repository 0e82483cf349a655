"""A real HTTP server for the issuer's keys, with an answer that the test chooses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from tests.running_server import HANG_SECONDS


@dataclass
class JwksServer:
    body: bytes
    status: int = 200
    requests: int = 0
    content_type: str = "application/json"  # and 406 for a caller who does not accept it
    # the server waits for this event before it answers
    may_answer: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def serving_keys(body: bytes) -> Iterator[JwksServer]:
    state = JwksServer(body)
    state.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = state.body
            state.requests += 1
            state.may_answer.wait(HANG_SECONDS)
            is_accepted = state.content_type in parse_accept_header(
                self.headers["Accept"], MIMEAccept
            )
            self.send_response(state.status if is_accepted else HTTPStatus.NOT_ACCEPTABLE)
            self.send_header("Content-Type", state.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            state.may_answer.set()
            server.shutdown()
            thread.join()
