"""Flask's hooks: what happens before and after each request."""

from flask import Flask, Response

from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.headers import COMMON_HEADERS, is_host
from app.api.http.input import Blueprint
from app.api.http.problems import HTTPProblem, status_line

# What Werkzeug reads item by item. Several headers of one name are joined.
_LISTS = ("CONTENT_TYPE", "HTTP_ACCEPT_ENCODING", "HTTP_IF_NONE_MATCH")
_MAX_LIST_LENGTH = 1024


def init_app(app: Flask) -> None:
    """Check each request and read its body; complete each response and log it."""
    app.before_request(_before)
    app.after_request(_after)
    app.teardown_request(lambda _: request.exit_stack.close())


def _before() -> None:
    _check_lengths()
    _check_host()
    if "\0" in request.path:
        raise HTTPProblem(problems.NOT_FOUND)  # no path has a NUL, and Postgres rejects it
    if "//" in request.environ["PATH_INFO"]:
        raise HTTPProblem(problems.NOT_FOUND)  # Werkzeug would ignore leading slashes
    blueprint = current_app.blueprints.get(request.blueprint or "")
    if isinstance(blueprint, Blueprint):
        request.max_body_bytes = blueprint.max_body_bytes
        if blueprint.authenticates_first:
            return  # the view reads the body itself: a stranger's is never waited for
    if request.url_rule is not None:
        request.get_data()  # so that every endpoint rejects a body that breaks the rules


def _check_lengths() -> None:
    """Raise HTTPProblem for a list that would take longer than all the rest of the request."""
    for name in _LISTS:
        if len(request.environ.get(name, "")) > _MAX_LIST_LENGTH:
            raise HTTPProblem(problems.HEADER_TOO_LONG)


def _check_host() -> None:
    """Raise HTTPProblem as RFC 9112, 3.2 demands. gunicorn accepts a missing or invalid Host."""
    host = request.environ.get("HTTP_HOST")
    if host is None and request.environ["SERVER_PROTOCOL"] != "HTTP/1.0":
        raise HTTPProblem(problems.NO_HOST)
    if host is not None and not is_host(host):
        raise HTTPProblem(problems.INVALID_HOST)


def _after(response: Response) -> Response:
    response.status = status_line(response.status_code)
    response.headers["X-Request-Id"] = request.id
    for name, value in COMMON_HEADERS:
        response.headers.setdefault(name, value)
    if request.has_unread_body:  # the next request would begin behind it
        response.headers["Connection"] = "close"
    record = request.record
    record.route = request.url_rule.rule if request.url_rule else None
    record.finish(response.status_code, current_app.services.request_durations)
    return response
