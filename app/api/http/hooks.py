"""Flask's hooks: what happens before and after each request."""

from flask import Flask, Response

from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.problems import Rejected

COMMON_HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def init_app(app: Flask) -> None:
    """Check each request and read its body; complete each response and log it."""
    app.before_request(_before)
    app.after_request(_after)
    app.teardown_request(lambda _: request.held.close())


def _before() -> None:
    if "HTTP_HOST" not in request.environ:
        raise Rejected(problems.NO_HOST)  # RFC 9112, 3.2; gunicorn accepts it
    if "\0" in request.path:
        raise Rejected(problems.NOT_FOUND)  # no path has a NUL, and Postgres rejects it
    if "//" in request.environ["PATH_INFO"]:
        raise Rejected(problems.NOT_FOUND)  # Werkzeug would ignore leading slashes
    request.get_data()  # so that every endpoint rejects a body that breaks the rules


def _after(response: Response) -> Response:
    response.headers["X-Request-Id"] = request.id
    for name, value in COMMON_HEADERS:
        response.headers.setdefault(name, value)
    record = request.record
    record.route = request.url_rule.rule if request.url_rule else None
    record.close(response.status_code, current_app.services.requests)
    return response
