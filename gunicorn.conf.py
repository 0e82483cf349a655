"""gunicorn's settings, from the service's own: `gunicorn wsgi:app` in this directory reads them."""

import json
import socket
import sys
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

import gunicorn.util

from app import logs
from app.api.errors import PROBLEM_JSON, problem
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

try:
    settings = Settings.from_environment()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201  no log is set up yet
    sys.exit(2)

host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{host}:{settings.port}"
workers = settings.web_concurrency
worker_class = "gthread"
threads = settings.threads
preload_app = True  # a fault shows before any worker starts, and workers share the code's memory
control_socket_disable = True
forwarder_headers = ""  # by default a header SCRIPT_NAME from this host would move our addresses
logconfig_dict = logs.configuration(settings.log_level)


def post_worker_init(worker: "Worker") -> None:
    """Connect to the database: a connection must not cross the fork."""
    worker.wsgi.extensions["database"].open()


def worker_exit(_: "Arbiter", worker: "Worker") -> None:
    worker.wsgi.extensions["usage"].flush()
    worker.wsgi.extensions["database"].close()


def write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    """Answer what is no HTTP with a problem document.

    gunicorn's own answer is HTML, and quotes the line at fault.
    """
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "The request cannot be served" if is_ours else "The request is not valid HTTP"
    document = problem(status, detail)
    body = json.dumps(document)
    head = (
        f"HTTP/1.1 {status} {document['title']}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {PROBLEM_JSON}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {uuid.uuid4()}\r\n"
        "Cache-Control: no-store\r\n\r\n"
    )
    gunicorn.util.write_nonblock(client, (head + body).encode("latin-1"))


gunicorn.util.write_error = write_problem
