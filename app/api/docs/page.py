"""`/docs`: a short guide, with Swagger UI for the OpenAPI document below it, and the errors."""

import json
from pathlib import Path
from typing import Any

import flask_swagger_ui
from flask import Blueprint, Response, make_response, render_template, send_from_directory

from app.api.http.problem_types import PROBLEM_TYPES
from app.api.openapi import examples

# Swagger UI's files come from a wheel, so the page makes no request to any other host.
_SWAGGER_UI_DIRECTORY = Path(flask_swagger_ui.__file__).parent / "dist"

_STATIC_DIRECTORY = Path(__file__).parent / "static"
_MAX_AGE_SECONDS = 60 * 60

# Scripts and styles are our files or the wheel's; the page itself contains none.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

docs = Blueprint(
    "docs",
    __name__,
    url_prefix="/docs",
    template_folder="templates",
)


@docs.get("")
def page() -> Response:
    answers = {
        "issued": json.dumps(examples.ISSUED_CREDENTIAL, indent=2),
        "verified": json.dumps(examples.VERIFIED_CREDENTIAL, indent=2),
    }
    return _page("docs.html", **answers)


@docs.get("/errors")
def errors() -> Response:
    return _page("errors.html", problem_types=PROBLEM_TYPES)


def _page(template: str, **values: Any) -> Response:
    response = make_response(render_template(template, **values))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    return response


@docs.get("/static/<name>")
def static_file(name: str) -> Response:
    return _send(_STATIC_DIRECTORY, name)


@docs.get("/swagger-ui/<name>")
def swagger_ui(name: str) -> Response:
    return _send(_SWAGGER_UI_DIRECTORY, name)


def _send(directory: Path, name: str) -> Response:
    # not conditional: an If-Modified-Since in the far future makes werkzeug raise OverflowError
    return send_from_directory(directory, name, conditional=False, max_age=_MAX_AGE_SECONDS)
