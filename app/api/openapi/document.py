"""`/openapi.json`: the OpenAPI document."""

from functools import cache
from importlib.metadata import version

import flask_smorest
from apispec import APISpec
from flask import Blueprint, Flask, Response

from app.api.http.cacheable import cacheable_response
from app.api.openapi.components import SharedPartsPlugin, add_components
from app.api.openapi.converter import SchemaPlugin
from app.api.schemas.problems import ProblemSchema
from app.json_bytes import json_bytes

VERSION = version("leadvibe-credentials")

# No name or address is right for every installation.
_CONTACT = {"name": "The operator of this service"}
_LICENSE = {"name": "MIT", "identifier": "MIT"}

_DESCRIPTION = """
Issues the API credentials (client ID and client secret) with which backends and partners send
events into the lead platform.

People manage credentials with a bearer token (**Credentials**). Services that receive events verify
the pair that came with each event (**Verification**).

Every error is a problem document (RFC 9457). Any operation may respond with 500, if the service
itself is at fault. Every response carries `X-Request-Id`, which repeats yours if you sent one. All
times in responses are UTC. A `secret_id` identifies a credential and is not secret.
"""

# The docs page shows it too.
POLICY = """
**Versions.** This document and the service have the same version (Semantic Versioning). Until the
next major version, nothing that is documented is removed, renamed or changed in meaning, and no
valid request becomes invalid. This holds for 0.x too.

**Additions** may come with any version: operations, optional parameters, optional members of
requests, members of responses, response headers, kinds of events, types of problems, and values of
members marked `x-extensible-enum`. Ignore what you do not know, and treat an unknown type of
problem by its HTTP status. Requests stay strict: an undocumented member of a body is rejected, and
so is an undocumented query parameter of a call that changes something.

**Deprecation.** Anything that a major version will remove is marked `deprecated` here at least six
months earlier. Until then, the responses of a deprecated operation carry the headers `Deprecation`
(RFC 9745) and `Sunset` (RFC 8594), which say since when it is deprecated and when it may end.
"""


class _Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest ships no types
    DEFAULT_ERROR_RESPONSE_NAME = None
    ERROR_SCHEMA = ProblemSchema


def init_app(app: Flask) -> flask_smorest.Api:
    """Serve the document. Blueprints are registered with the API that this returns."""
    app.config.update(
        API_TITLE="LeadVibe Credentials",
        API_VERSION=VERSION,
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {
                "description": f"{_DESCRIPTION}{POLICY}".strip(),
                "contact": _CONTACT,
                "license": _LICENSE,
            },
            # relative to the address of this document, so that it is right behind a path prefix
            "servers": [{"url": ".", "description": "The service that serves this document."}],
        },
    )
    api = _Api(
        app,
        spec_kwargs={
            "marshmallow_plugin": SchemaPlugin(),
            "extra_plugins": [SharedPartsPlugin()],
        },
    )
    add_components(api.spec.components)
    del api.spec.components.schemas["PaginationMetadata"]  # flask-smorest's own, unused here
    app.register_blueprint(_blueprint(api.spec))
    return api


def _blueprint(spec: APISpec) -> Blueprint:
    blueprint = Blueprint("openapi", __name__)

    @cache
    def content() -> bytes:
        return json_bytes(spec.to_dict())

    @blueprint.get("/openapi.json")
    def document() -> Response:
        return cacheable_response(content(), "application/json")

    return blueprint
