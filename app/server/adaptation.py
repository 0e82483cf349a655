"""Changes to gunicorn that hold for every worker. gunicorn.conf.py installs them."""

import resource
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import gunicorn.glogging
import gunicorn.util
from gunicorn.errors import AppImportError
from gunicorn.http import message, parser, wsgi
from gunicorn.http.message import Message

from app.api.http.headers import IDEMPOTENCY_KEY
from app.server.malformed_http import write_problem
from app.server.parsing import BoundedChunks, BoundedRequest
from app.server.unreader import RequestUnreader

if TYPE_CHECKING:
    from gunicorn.config import Config

_MAX_CONNECTIONS = 1000
_MIN_CONNECTIONS = 16
# Beside two for each thread, a process has at most so many other files: connections to Postgres,
# Redis and the JWKS URL, listeners, pipes, the metrics, and what is opened for a moment.
_OTHER_FILES = 64

_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.upper()  # as gunicorn's parser writes names


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's logger, without the access log that `logconfig_dict` would turn on."""

    access_log_enabled = False


class _Response(wsgi.Response):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's response, which the application may tell to close the connection."""

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        super().process_headers(headers)
        if ("Connection", "close") in headers:  # gunicorn itself ignores it
            self.force_close()


def adapt_gunicorn() -> None:
    """Replace the parts of gunicorn that work differently here, for every worker."""
    wsgi.Response = _Response
    parser.SocketUnreader = RequestUnreader
    parser.RequestParser.mesg_class = BoundedRequest
    message.ChunkedReader = BoundedChunks
    gunicorn.util.write_error = write_problem


def raise_limit_of_files() -> None:
    """Allow this process and its workers as many open files as the system lets them have.

    Shells and containers begin with 1,024, for the sake of programs that use `select`.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then the limit stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def max_connections(threads: int) -> int:
    """Return how many clients a worker may serve at once, so that it never runs out of files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(_MIN_CONNECTIONS, min(_MAX_CONNECTIONS, files - _OTHER_FILES - 2 * threads))


def require_adapted_gunicorn() -> None:
    """Raise AppImportError if gunicorn runs this process, but has not read gunicorn.conf.py.

    Without it, nobody opens the services: every call that needs the database would get 503.
    """
    if "gunicorn.arbiter" in sys.modules and wsgi.Response is not _Response:
        raise AppImportError(
            "gunicorn has not read the service's gunicorn.conf.py. "
            "Start the service with `credentials serve`, which works in any directory."
        )


def require_no_tls(cfg: "Config") -> None:
    """End the process if gunicorn should decrypt TLS: it hides the kind of a request (ADR 10)."""
    if cfg.is_ssl:
        print(  # noqa: T201  logging is not set up yet
            "Remove --certfile and --keyfile: TLS must end at a proxy in front of the service.",
            file=sys.stderr,
        )
        sys.exit(2)


def join_repeated_keys(request: Message) -> None:
    """Join several Idempotency-Key headers with a comma and a space, so that they are not a key.

    gunicorn would join them with a comma alone, which a key may contain.
    """
    if not request.path.startswith("/secrets"):
        return
    keys = [value for name, value in request.headers if name == _IDEMPOTENCY_KEY]
    if len(keys) > 1:
        others = [each for each in request.headers if each[0] != _IDEMPOTENCY_KEY]
        request.headers = [*others, (_IDEMPOTENCY_KEY, ", ".join(keys))]
