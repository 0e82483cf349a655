"""gunicorn's settings, from the service's. `gunicorn wsgi:app` reads them in this directory."""

import socket
import sys
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

import gunicorn.util

from app import logs
from app.api.http.problems import Problem
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

try:
    settings = Settings.from_environment()
except SettingsError as error:
    print(error, file=sys.stderr)  # noqa: T201  logging is not set up yet
    sys.exit(2)

host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{host}:{settings.port}"
workers = settings.web_concurrency
worker_class = "gthread"
threads = settings.threads
preload_app = True  # errors show before a worker starts, and workers share the code's memory
control_socket_disable = True
forwarder_headers = ""  # by default, a SCRIPT_NAME header from this host would move our URLs
logconfig_dict = logs.configuration(settings.log_level)


def post_worker_init(worker: "Worker") -> None:
    """Open the services after the fork."""
    worker.wsgi.services.open()


def worker_exit(_: "Arbiter", worker: "Worker") -> None:
    """Close the services when the worker stops."""
    worker.wsgi.services.close()


def write_problem(client: socket.socket, status: int, _reason: str, _message: str) -> None:
    """Answer malformed HTTP with a problem document.

    gunicorn's own answer is HTML, and quotes the invalid line.
    """
    is_ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "The request cannot be served" if is_ours else "The request is not valid HTTP"
    problem = Problem(status, detail)
    body = problem.body()
    headers = [
        *problem.header_items(),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Request-Id", str(uuid.uuid4())),
        ("Cache-Control", "no-store"),
    ]
    head = f"HTTP/1.1 {status} {problem.title}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + b"\r\n" + body)


gunicorn.util.write_error = write_problem
