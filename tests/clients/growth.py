"""Imitate a later version of the service, whose answers have everything that a version may add."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.running_server import Server

# They belong to one connection, or to the body as it was.
_NOT_PASSED_ON = ("connection", "content-length", "transfer-encoding")


@contextmanager
def later_version(service: Server) -> Iterator[str]:
    """Run a proxy in front of the service that adds to its answers. Yield the proxy's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = service.request(self.command, self.path, body, **dict(self.headers))
            content = json.dumps(grown(answer.json())).encode() if answer.body else b""
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("X-Added", "in a later version")
            if answer.status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815  http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            thread.join()


def grown(answer: Any) -> Any:
    """Add a member to every object, a kind to events and problems, and a value to `via`."""
    if isinstance(answer, list):
        grown_list = [grown(each) for each in answer]
        if grown_list and "event" in answer[0]:
            grown_list.insert(0, {**grown_list[0], "event": "archived", "detail": {"after": 90}})
        return grown_list
    if not isinstance(answer, dict):
        return answer
    members = {name: grown(value) for name, value in answer.items()}
    if "via" in members:
        members["via"] = "console"
    if "type" in members:
        members["type"] = "/docs/errors#added"
    return {**members, "added": {"in": "a later version"}}
