"""Turn every error into the problem document that the caller gets."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from app.api.http import problems
from app.api.http.application import request
from app.api.http.problems import HTTPProblem, Problem, malformed_http, problem_of_domain_error

# HTTP errors that get our wording. For all others, Werkzeug's description is good enough.
_HTTP_ERRORS: Mapping[int, Problem] = {
    problem.status: problem
    for problem in (problems.NOT_FOUND, problems.METHOD_NOT_ALLOWED, problems.UNEXPECTED)
}

_logger = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Answer every error with a problem document.

    It replaces flask-smorest's handler for HTTPException, which drops the exception's headers.
    """
    for error in (HTTPException, Exception):
        app.register_error_handler(error, _respond)


def problem_of(error: Exception, *, request_id: str) -> Problem:
    """Return the problem to answer the error with. An unexpected error is logged."""
    if isinstance(error, HTTPProblem):
        return error.problem
    if isinstance(error, HTTPException):
        return _problem_of_http_error(error)
    problem = problem_of_domain_error(error)
    if problem is not None:
        return problem
    _logger.error("unexpected error", exc_info=error, extra={"fields": {"request_id": request_id}})
    return problems.UNEXPECTED


def _problem_of_http_error(error: HTTPException) -> Problem:
    status = error.code or problems.UNEXPECTED.status
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    if "Allow" in headers:  # made from a set, so its order differs between processes
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    known = _HTTP_ERRORS.get(status)
    if known is None:
        return malformed_http(status, error.description or error.name, headers)
    return replace(known, headers=headers)


def _respond(error: Exception) -> Response:
    problem = problem_of(error, request_id=request.id)
    return Response(problem.body(), problem.status_line, problem.header_items())
