"""Flask's application and request, with what this service adds to them.

Import `current_app` and `request` from here: they are Flask's own proxies, with our types.
"""

from __future__ import annotations

import logging
import re
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from io import BytesIO
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, cast

import flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.routing import BaseConverter, UnicodeConverter
from werkzeug.utils import cached_property

from app.addresses import client_address
from app.api.http.access_log import AccessRecord
from app.api.http.bodies import read_body
from app.api.http.problems import MAX_BODY_BYTES
from app.identifiers import is_request_id, new_request_id
from app.json_bytes import json_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.routing import Map, MapAdapter

    from app.services import Services


_WARNING_SECONDS = 60

_logger = logging.getLogger(__name__)


def request_id_of(offered: str) -> str:
    """Return the caller's own X-Request-Id if it is valid, else a new one."""
    return offered if is_request_id(offered) else new_request_id()


def address_of(environ: WSGIEnvironment) -> str | None:
    """Return the client's address, which the application has set; None if it is unknown."""
    return environ.get("REMOTE_ADDR") or None


class Request(flask.Request):
    """A request that knows its ID and its log record, and reads its body once, within limits."""

    def __init__(self, environ: WSGIEnvironment, *args: Any, **kwargs: Any) -> None:
        super().__init__(environ, *args, **kwargs)
        self.id = request_id_of(environ.get("HTTP_X_REQUEST_ID", ""))
        # for the log and the metrics; authentication adds the caller
        self.record = AccessRecord(
            request_id=self.id, method=self.method, address=address_of(environ)
        )

        self.max_body_bytes = MAX_BODY_BYTES
        # what is released once the request is answered, such as its slot (app/bulkheads.py)
        self.exit_stack = ExitStack()
        # to be entered by whoever waits, so that others get the slot meanwhile
        self.while_waiting: Callable[[], AbstractContextManager[object]] = nullcontext

    # Before Python 3.12, functools.cached_property would hold one lock for all requests while a
    # client sends its body.
    @cached_property
    def body(self) -> bytes:
        """Return the whole body. Raises HTTPProblem (see `read_body`)."""
        return read_body(self, self.max_body_bytes)

    @property
    def has_unread_body(self) -> bool:
        """Whether the client sends a body that has not been read to its end."""
        has_body = bool(self.content_length) or "Transfer-Encoding" in self.headers
        return has_body and "body" not in vars(self)

    @cached_property
    def stream(self) -> IO[bytes]:  # so that Werkzeug's own readers see the body too
        return BytesIO(self.body)


class _PathVariable(UnicodeConverter):
    """A variable part of a path, such as `<secret_id>`.

    It never matches `events`. Otherwise `DELETE /secrets/events` would look for a credential with
    that `secret_id`, instead of answering 405.
    """

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = f"(?!events$){self.regex}"


class _ScopeVariable(BaseConverter):
    """A variable part of a path that matches the known scopes. Any other one is an unknown path."""

    def __init__(self, scopes: Iterable[str], url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = f"(?:{'|'.join(map(re.escape, scopes)) or '(?!)'})"


class _JsonProvider(DefaultJSONProvider):
    """Writes JSON as the rest of the service does."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return json_bytes(obj).decode()


class Application(flask.Flask):
    """The Flask application, with the services that its views use."""

    request_class = Request
    json_provider_class = _JsonProvider

    def __init__(self, services: Services, trusted_proxies: int) -> None:
        super().__init__("app", static_folder=None)
        self.url_map.converters["default"] = _PathVariable
        scope_variable = partial(_ScopeVariable, services.verifier.scopes)
        self.url_map.converters["scope"] = scope_variable  # type: ignore[assignment]  # it makes one
        self.services = services
        self._trusted_proxies = trusted_proxies
        self._warns_again_at = 0.0  # monotonic time
        # returns a token for the docs page, or None; `make run` replaces it
        self.development_token: Callable[[], str | None] = lambda: None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Serve a request, with its client's address instead of its peer's."""
        peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", "")
        environ["REMOTE_ADDR"] = self.client_address(peer, forwarded) or ""
        return super().__call__(environ, start_response)

    def client_address(self, peer: str, forwarded: str) -> str | None:
        """Return the client's address, given its peer's and X-Forwarded-For (see `addresses`).

        If the header does not have it, log that, at most once a minute. Requests that come past the
        proxies, such as probes, have no such header.
        """
        address = client_address(peer, forwarded, proxies=self._trusted_proxies)
        if address is None and forwarded and monotonic() >= self._warns_again_at:
            self._warns_again_at = monotonic() + _WARNING_SECONDS
            _logger.warning("client address unknown: is TRUSTED_PROXIES right?")
        return address

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Match a request by its method and path alone.

        Flask itself would also look at the Host, and would match nothing if the client offers to
        upgrade to a WebSocket. A server may ignore that offer (RFC 9110, 7.8).
        """
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind("", default_method=request.method, path_info=request.path)


current_app = cast("Application", flask.current_app)
request = cast("Request", flask.request)
