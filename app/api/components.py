"""What the operations of the OpenAPI document share: responses, headers, parameters, security."""

from collections.abc import Mapping
from typing import Any

from apispec import BasePlugin

from app.api.errors import (
    NOT_FOUND,
    PROBLEM_JSON,
    RETRY_AFTER_SECONDS,
    UNAUTHENTICATED,
    UNAVAILABLE,
    problem,
)
from app.api.schemas import ProblemSchema

_REQUEST_ID = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}
_REQUEST_ID_EXAMPLE = "821d546f-574f-4c77-b480-f4530d166e7d"
_SECONDS = {"type": "string", "pattern": "^[0-9]{1,5}$"}


def header(
    description: str, schema: dict[str, Any], example: object, *, required: bool = True
) -> dict[str, Any]:
    return {
        "description": description,
        "required": required,
        "schema": schema,
        "example": example,
    }


LINK_HEADER = {
    "Link": header(
        "With more to come: the address of the next page (RFC 8288), relative to this one's.",
        {"type": "string", "pattern": '^<[^>]+>; rel="next"$'},
        '</secrets?limit=100&cursor=MTc0ODc3MjAwMDAwMDAwMC5zZWNfNnE%3D>; rel="next"',
        required=False,
    )
}

SECRET_ID_PARAMETER = [
    {
        "name": "secret_id",
        "in": "path",
        "description": "The credential's identifier.",
        "schema": {"type": "string", "pattern": "^sec_[0-9a-z]{20}$"},
        "example": "sec_6q1qrvd8cfz3k6apb04t",
    }
]


def problem_response(status: int, **details: str) -> dict[str, Any]:
    """Return the OpenAPI response of a problem, with an example for each detail."""
    examples = {name: {"value": problem(status, detail)} for name, detail in details.items()}
    return {
        "description": problem(status, "")["title"],
        "content": {PROBLEM_JSON: {"schema": ProblemSchema, "examples": examples}},
    }


def unauthorized_response(challenge: str) -> dict[str, Any]:
    """Return the OpenAPI response of 401 with its challenge (RFC 9110, 11.6.1)."""
    asked = header("How to authenticate, and what is wrong.", {"type": "string"}, challenge)
    return problem_response(401, refused=UNAUTHENTICATED) | {"headers": {"WWW-Authenticate": asked}}


class RequestIdPlugin(BasePlugin):
    """Document X-Request-Id with every operation and every response, those added later included."""

    def operation_helper(
        self,
        path: str | None = None,  # noqa: ARG002  apispec's signature
        operations: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        for operation in (operations or {}).values():
            operation.setdefault("parameters", []).append("RequestId")
            for response in operation["responses"].values():
                if isinstance(response, dict):
                    self.response_helper(response)

    def response_helper(self, response: dict[str, Any], **_: Any) -> dict[str, Any]:
        response.setdefault("headers", {})["X-Request-Id"] = "RequestId"
        return response


def add_components(components: Any) -> None:
    """Add what operations refer to by name."""
    components.header(
        "RequestId",
        header("Names the request: your own, if you sent one.", _REQUEST_ID, _REQUEST_ID_EXAMPLE),
    )
    components.parameter(
        "RequestId",
        "header",
        {
            "name": "X-Request-Id",
            "description": "Names the request in the answer, the log and the audit trail: 1-128 "
            "characters of `[A-Za-z0-9._-]`. Anything else is replaced.",
            "schema": {"type": "string"},
            "example": _REQUEST_ID_EXAMPLE,
        },
    )
    components.security_scheme(
        "bearerAuth",
        {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "For people: a token of your identity provider. Its `unit_id`, or the "
            "cookie `activeOu` among its `unit_ids`, is the active unit.",
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


def _retry_after(example: str) -> dict[str, Any]:
    return {"headers": {"Retry-After": header("Seconds to wait.", _SECONDS, example)}}


_RESPONSES: Mapping[str, dict[str, Any]] = {
    "Forbidden": problem_response(403, foreign_unit="The active OU is none of yours"),
    "NotFound": problem_response(404, unknown=NOT_FOUND),
    "ContentTooLarge": problem_response(413, too_large="The request body is over 16384 bytes"),
    "UnsupportedMediaType": problem_response(
        415, not_json="The request body must be application/json"
    ),
    "TooManyRequests": problem_response(429, too_many="Too many refused verifications")
    | _retry_after("42"),
    "ServiceUnavailable": problem_response(503, unavailable=UNAVAILABLE)
    | _retry_after(str(RETRY_AFTER_SECONDS)),
}
