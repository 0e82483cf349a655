"""The document's components: responses, headers, parameters, security schemes."""

from collections.abc import Mapping
from typing import Any

from apispec import BasePlugin

from app.api.http import problems
from app.api.http.headers import IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED
from app.api.http.pagination import next_link
from app.api.http.problems import (
    MEDIA_TYPE,
    Problem,
    too_many_changes,
    too_many_failures,
    too_many_issues,
    too_many_reports,
    unsupported_patch,
)
from app.api.openapi import examples
from app.api.openapi.converter import REQUEST_TIME, TIMESTAMP
from app.api.schemas.problems import ProblemSchema
from app.credentials.generator import HINT_PATTERN, SECRET_ID_PATTERN
from app.credentials.restrictions import SCOPE_PATTERN
from app.identifiers import FORBIDDEN_CHARACTERS, IDENTIFIER_MAX_LENGTH

ACTIVE_UNIT_COOKIE = "activeOu"
# An identifier that a Cookie header can carry as it is (RFC 6265, 4.1.1).
_COOKIE_PATTERN = rf'^[^{FORBIDDEN_CHARACTERS}\s;,"\\]{{1,{IDENTIFIER_MAX_LENGTH}}}$'


def header(
    description: str, schema: dict[str, Any], example: object, *, required: bool = True
) -> dict[str, Any]:
    """Return the description of a response header."""
    return {
        "description": description,
        "required": required,
        "schema": schema,
        "example": example,
    }


LINK_HEADER = {
    "Link": header(
        "If there are more items: the next page (RFC 8288), relative to the address of this one.",
        {"type": "string"},
        next_link({"limit": 100}, examples.POSITION),
        required=False,
    )
}

REPLAYED_HEADER = {
    IDEMPOTENCY_REPLAYED: header(
        f"Sent if this is the response to an earlier request with the same {IDEMPOTENCY_KEY}.",
        {"type": "string", "enum": ["true"]},
        "true",
        required=False,
    )
}

SECRET_ID_PARAMETER = [
    {
        "name": "secret_id",
        "in": "path",
        "description": "The credential's identifier.",
        "schema": {"type": "string", "pattern": f"^{SECRET_ID_PATTERN}$"},
        "example": examples.CREDENTIAL["secret_id"],
    }
]

HINT_PARAMETER = [
    {
        "name": "hint",
        "in": "path",
        "description": "The client secret's last four characters.",
        "schema": {"type": "string", "pattern": f"^{HINT_PATTERN}$"},
        "example": examples.DETAILED_CREDENTIAL["secrets"][1]["hint"],
    }
]

SCOPE_PARAMETER = [
    {
        "name": "scope",
        "in": "path",
        "description": "What the credential must be allowed to do: one of the scopes that the "
        "operator has configured.",
        "schema": {"type": "string", "pattern": f"^{SCOPE_PATTERN}$"},
        "example": examples.SCOPE,
    }
]

# The description and the schema of each header that a problem may have.
_PROBLEM_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Accept-Patch": ("The media types that a PATCH may have (RFC 5789).", {"type": "string"}),
    "Link": ("Where to go on (RFC 8288), relative to this address.", {"type": "string"}),
    "Retry-After": ("Seconds to wait.", {"type": "string"}),
    "WWW-Authenticate": ("The authentication challenge.", {"type": "string"}),
}


def problem_response(**named_problems: Problem) -> dict[str, Any]:
    """Return the OpenAPI response of problems that share a status, each as a named example."""
    all_problems = list(named_problems.values())
    response: dict[str, Any] = {
        "description": all_problems[0].title,
        "content": {
            MEDIA_TYPE: {
                "schema": ProblemSchema,
                "examples": {
                    name: {"value": each.document()} for name, each in named_problems.items()
                },
            }
        },
    }
    headers = {name: value for each in all_problems for name, value in each.headers.items()}
    if headers:
        response["headers"] = {
            name: header(
                *_PROBLEM_HEADERS[name],
                value,
                required=all(name in each.headers for each in all_problems),
            )
            for name, value in headers.items()
        }
    return response


class SharedPartsPlugin(BasePlugin):
    """Adds what operations share, also to those added later.

    These are an example for each query parameter and header, the cookie of the active unit where a
    bearer token is taken, and X-Request-Id on requests and responses.
    """

    def operation_helper(
        self,
        path: str | None = None,  # noqa: ARG002  apispec's signature
        operations: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        for operation in (operations or {}).values():
            parameters = operation.setdefault("parameters", [])
            for parameter in parameters:
                # not the parameter's own example, which consoles such as Swagger UI would send
                parameter["schema"]["examples"] = [examples.PARAMETERS[parameter["name"]]]
            if {"bearerAuth": []} in operation.get("security", []):
                parameters.append("ActiveUnit")
            parameters.append("RequestId")
            for response in operation["responses"].values():
                if isinstance(response, dict):
                    self.response_helper(response)

    def response_helper(self, response: dict[str, Any], **_: Any) -> dict[str, Any]:
        response.setdefault("headers", {})["X-Request-Id"] = "RequestId"
        return response


_RESPONSES: Mapping[str, dict[str, Any]] = {
    "Forbidden": problem_response(foreign_unit=problems.FOREIGN_UNIT),
    "ChangeForbidden": problem_response(
        foreign_unit=problems.FOREIGN_UNIT, role_missing=problems.ROLE_MISSING
    ),
    "CredentialNotFound": problem_response(unknown=problems.CREDENTIAL_NOT_FOUND),
    "ClientSecretNotFound": problem_response(
        unknown_credential=problems.CREDENTIAL_NOT_FOUND,
        unknown_secret=problems.CLIENT_SECRET_NOT_FOUND,
    ),
    "ContentTooLarge": problem_response(too_large=problems.BODY_TOO_LARGE),
    "UnsupportedMediaType": problem_response(not_json=problems.MEDIA_TYPE_NOT_JSON),
    "UnsupportedPatch": problem_response(not_json=unsupported_patch(problems.MEDIA_TYPE_NOT_JSON)),
    "TooManyRequests": problem_response(too_many=too_many_failures(42)),
    "TooManyChanges": problem_response(too_many=too_many_changes(42)),
    "TooManyIssues": problem_response(too_many=too_many_issues(42)),
    "TooManyReports": problem_response(too_many=too_many_reports(42)),
    "ServiceUnavailable": problem_response(unavailable=problems.UNAVAILABLE),
}


def add_components(components: Any) -> None:
    """Add the components that operations refer to by name."""
    components.schema("Timestamp", TIMESTAMP)
    components.schema("RequestTime", REQUEST_TIME)
    components.header(
        "RequestId",
        header(
            "Identifies the request; repeats yours if it is valid.",
            {"type": "string"},
            examples.REQUEST_ID,
        ),
    )
    components.parameter(
        "RequestId",
        "header",
        {
            "name": "X-Request-Id",
            "description": "Identifies the request in the response, the log and the audit trail: "
            "1-128 characters of `[A-Za-z0-9._-]`. Any other value is replaced.",
            "schema": {"type": "string", "examples": [examples.REQUEST_ID]},
        },
    )
    components.parameter(
        "ActiveUnit",
        "cookie",
        {
            "name": ACTIVE_UNIT_COOKIE,
            "description": "The unit that you act for: one of those that the token lists. Without "
            "the cookie, it is the token's `unit_id`.",
            "schema": {
                "type": "string",
                "pattern": _COOKIE_PATTERN,
                "examples": [examples.CREDENTIAL["unit_id"]],
            },
        },
    )
    components.security_scheme(
        "bearerAuth",
        {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "For people: a token from your identity provider. The active unit is "
            f"its `unit_id`, or the one of its `unit_ids` that the cookie `{ACTIVE_UNIT_COOKIE}` "
            "names. The operator may have chosen other names for these claims.",
        },
    )
    components.security_scheme(
        "basicAuth",
        {
            "type": "http",
            "scheme": "basic",
            "description": "For backends: the client ID and the client secret (RFC 7617).",
        },
    )
    for name, response in _RESPONSES.items():
        components.response(name, response)
