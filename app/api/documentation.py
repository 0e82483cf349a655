"""`/openapi.json`, and `/docs`, the page that shows it."""

from pathlib import Path

import flask_smorest
import flask_swagger_ui
from flask import Blueprint, Flask, Response, make_response, render_template, send_from_directory

from app.api.components import RequestIdPlugin, add_components
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

_LICENSE = {"name": "MIT", "identifier": "MIT"}

_DESCRIPTION = """
Issues the API credentials (client ID and client secret) with which backends and partners send
events into the lead platform.

People manage credentials with a bearer token, under **Credentials**; whoever receives events checks
the pair that came with them, under **Verification**.

Every error is a problem document (RFC 9457). Every response carries `X-Request-Id`: your own, if
you sent one. Times are UTC.
"""

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
        API_SPEC_OPTIONS={
            "info": {"description": _DESCRIPTION.strip(), "license": _LICENSE},
            "servers": [{"url": "/", "description": "The service that shows this document."}],
        },
    )
    api = _Api(app, spec_kwargs={"extra_plugins": [RequestIdPlugin()]})
    app.register_blueprint(docs)
    add_components(api.spec.components)
    del api.spec.components.schemas["PaginationMetadata"]  # flask-smorest's own, unused here
    return api


@docs.get("")
def page() -> Response:
    response = make_response(render_template("docs.html"))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    return response


@docs.get("/swagger-ui/<name>")
def swagger_ui(name: str) -> Response:
    return send_from_directory(_SWAGGER_UI_DIRECTORY, name)
