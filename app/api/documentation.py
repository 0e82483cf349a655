"""`/openapi.json`, and `/docs`, the page that shows it."""

from pathlib import Path
from typing import Any

import flask_smorest
import flask_swagger_ui
from flask import Blueprint, Flask, Response, make_response, render_template, send_from_directory

from app.api.errors import NOT_FOUND, PROBLEM_JSON, RETRY_AFTER_SECONDS, problem
from app.api.schemas import ProblemSchema

VERSION = "0.1.0"

# Swagger UI's files come out of a wheel: the page asks nothing of any other host.
_SWAGGER_UI_DIRECTORY = Path(flask_swagger_ui.__file__).parent / "dist"

# Swagger UI sets style attributes; scripts are files of ours alone.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_DESCRIPTION = """
Issues the API credentials (client ID and client secret) with which backends and partners send
events into the lead platform.

Every error is a problem document (RFC 9457). Every response carries `X-Request-Id`: your own, if
you sent one.
"""

LINK_HEADER = {
    "Link": {
        "description": "With more to come: the address of the next page (RFC 8288), relative to "
        "this one's.",
        "schema": {"type": "string"},
        "example": '</secrets?limit=100&cursor=MTc0OD>; rel="next"',
    }
}

docs = Blueprint(
    "docs",
    __name__,
    url_prefix="/docs",
    template_folder="templates",
    static_folder="static",
    static_url_path="/static",
)


class _Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest ships no types
    DEFAULT_ERROR_RESPONSE_NAME = None
    ERROR_SCHEMA = ProblemSchema


def init_app(app: Flask) -> flask_smorest.Api:
    """Serve the document and the page; return what blueprints are registered with."""
    app.config.update(
        API_TITLE="LeadVibe Credentials",
        API_VERSION=VERSION,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        API_SPEC_OPTIONS={"info": {"description": _DESCRIPTION.strip()}},
    )
    api = _Api(app)
    app.register_blueprint(docs)
    _add_components(api.spec.components)
    return api


def problem_response(status: int, **details: str) -> dict[str, Any]:
    """Return the OpenAPI response of a problem, with an example for each detail."""
    examples = {name: {"value": problem(status, detail)} for name, detail in details.items()}
    return {
        "description": problem(status, "")["title"],
        "content": {PROBLEM_JSON: {"schema": ProblemSchema, "examples": examples}},
    }


def _add_components(components: Any) -> None:
    components.security_scheme(
        "bearerAuth",
        {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "For people: a token of your identity provider.",
        },
    )
    components.security_scheme(
        "basicAuth",
        {
            "type": "http",
            "scheme": "basic",
            "description": "For backends: the client ID and the client secret.",
        },
    )
    components.response(
        "Unauthorized",
        problem_response(401, refused="Check authentication credentials")
        | {"headers": {"WWW-Authenticate": _header("The scheme to use, and what is wrong.")}},
    )
    components.response(
        "Forbidden", problem_response(403, foreign_unit="The active OU is none of yours")
    )
    components.response("NotFound", problem_response(404, unknown=NOT_FOUND))
    components.response(
        "ContentTooLarge",
        problem_response(413, too_large="The request body is over 16384 bytes"),
    )
    components.response(
        "UnsupportedMediaType",
        problem_response(415, not_json="The request body must be application/json"),
    )
    components.response(
        "TooManyRequests",
        problem_response(429, too_many="Too many refused verifications")
        | {"headers": {"Retry-After": _header("Seconds to wait.", "42")}},
    )
    components.response(
        "ServiceUnavailable",
        problem_response(503, unavailable="The service is unavailable for the moment")
        | {"headers": {"Retry-After": _header("Seconds to wait.", str(RETRY_AFTER_SECONDS))}},
    )


def _header(description: str, example: str | None = None) -> dict[str, Any]:
    header: dict[str, Any] = {"description": description, "schema": {"type": "string"}}
    return header if example is None else header | {"example": example}


@docs.get("")
def page() -> Response:
    response = make_response(render_template("docs.html"))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    return response


@docs.get("/swagger-ui/<name>")
def swagger_ui(name: str) -> Response:
    return send_from_directory(_SWAGGER_UI_DIRECTORY, name)
