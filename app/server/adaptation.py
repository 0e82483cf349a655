"""Changes to gunicorn that hold for every worker. gunicorn.conf.py installs them."""

import gunicorn.glogging
import gunicorn.util
from gunicorn.http import message, parser, wsgi
from gunicorn.http.message import Message

from app.api.http.headers import IDEMPOTENCY_KEY
from app.server.malformed_http import write_problem
from app.server.parsing import BoundedChunks, BoundedRequest
from app.server.unreader import RequestUnreader

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
