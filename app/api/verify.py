"""`/verify`: the hot path, called for every event.

There are three entrances. The Flask views below can serve every request. The WSGI middleware in
verify_middleware.py (ADR 8) and the loop in app/server/fast_worker.py (ADR 24) serve plain requests
(plain_verification.py). All get their response from `verification_response`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from flask import Response
from marshmallow.fields import Boolean
from werkzeug.http import HTTP_STATUS_CODES

from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.input import Blueprint
from app.api.http.problems import scope_missing
from app.api.openapi import examples
from app.api.openapi.components import SCOPE_PARAMETER, header, problem_response
from app.api.schemas.credentials import VerifiedCredentialSchema
from app.bulkheads import BulkheadFull
from app.credentials.errors import TooManyFailures, VerificationRefused
from app.credentials.generator import find_client_id
from app.credentials.model import Verification, VerifiedCredential
from app.database.errors import DatabaseUnavailable
from app.json_bytes import json_bytes
from app.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from app.api.http.access_log import AccessRecord
    from app.api.http.problems import Problem
    from app.metrics.requests import Outcome

    Verify = Callable[..., Verification]

ROUTE = "/verify"
SCOPE_ROUTE = f"{ROUTE}/<scope:scope>"

_MEMBERS = [each.name for each in fields(VerifiedCredential)]
_values_of = attrgetter(*_MEMBERS)  # `asdict` copies, and takes ten times as long

# The fields that proxies find in headers too. A name may contain anything, so it is not one.
_HEADERS = {
    name: f"X-LeadVibe-{name.replace('_', '-').title()}" for name in _MEMBERS if name != "name"
}

_EXPIRES_AT_HEADER = "X-LeadVibe-Secret-Expires-At"

# What a header's value may contain as it is. Everything else is percent-encoded, so that no two
# units look alike to a backend behind a proxy.
_HEADER_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_VISIBLE = re.compile(f"[{re.escape(_HEADER_SAFE)}]*")

blueprint = Blueprint("Verification", __name__, description="For services that receive events.")


@dataclass(frozen=True, slots=True)
class VerifyResponse:
    """The response to a verification, through either entrance."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status_line(self) -> str:
        """The status with its phrase, as WSGI wants it."""
        return f"{self.status} {HTTP_STATUS_CODES[self.status]}"

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the response that reports the problem."""
        body = problem.body()
        return cls(
            problem.status, [*problem.header_items(), ("Content-Length", str(len(body)))], body
        )


def plain_paths(scopes: Iterable[str]) -> Mapping[str, str | None]:
    """Return the paths of verifications, each with the scope that it asks for."""
    return {ROUTE: None} | {f"{ROUTE}/{scope}": scope for scope in scopes}


def verification_response(
    client_id: str, client_secret: str, record: AccessRecord, verify: Verify
) -> VerifyResponse:
    """Verify the pair, and add its client and unit to the record.

    `verify` is `Verifier.verify`, or stands for it. Raises what it raises.
    """
    try:
        verification = verify(
            client_id=client_id,
            client_secret=client_secret,
            address=record.address,
            scope=record.scope,
            request_id=record.request_id,
        )
    except Exception as error:
        record.outcome = _outcome_of(error)
        record.client_id = find_client_id(client_id)
        raise
    verified = verification.credential
    record.outcome = "accepted"
    record.client_id = record.actor = verified.client_id
    record.unit_id = verified.unit_id
    return _accepted(verification)


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, VerificationRefused):
        return error.reason
    if isinstance(error, TooManyFailures):
        return "limited"
    return "unavailable" if isinstance(error, BulkheadFull | DatabaseUnavailable) else "failed"


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Return the user ID and password of `Authorization: Basic` (RFC 7617).

    Both are empty if the header is malformed: it is refused like an invalid pair.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        pair = b64decode(encoded.lstrip(" "), validate=True).decode("utf-8")
    except ValueError:
        return "", ""
    user_id, _, password = pair.partition(":")
    return user_id, password


def _accepted(verification: Verification) -> VerifyResponse:
    members = dict(zip(_MEMBERS, _values_of(verification.credential), strict=True))
    body = json_bytes(members) + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    headers += [(name, _header_value(members[field])) for field, name in _HEADERS.items()]
    headers.append((_EXPIRES_AT_HEADER, _expires_at_value(verification.secret_expires_at)))
    return VerifyResponse(200, headers, body)


def _header_value(member: str | bool) -> str:  # noqa: FBT001  a member is a string or a boolean
    if isinstance(member, bool):
        return "true" if member else "false"
    return member if _VISIBLE.fullmatch(member) else quote(member, safe=_HEADER_SAFE)


def _expires_at_value(secret_expires_at: datetime | None) -> str:
    # never absent: some proxies leave the sender's own header where the response has none
    return "none" if secret_expires_at is None else format_time(secret_expires_at)


def _documented_header(field: str) -> dict[str, Any]:
    """Describe the header that carries the field, from the field in the schema."""
    described = VerifiedCredentialSchema().fields[field]
    schema: dict[str, Any] = {"type": "string"}
    text = f"As `{field}`."
    if isinstance(described, Boolean):
        schema["enum"] = ["true", "false"]
    elif described.validators:  # text that the service did not write
        text = f"As `{field}`, with everything but visible ASCII percent-encoded."
    return header(text, schema, _header_value(examples.VERIFIED_CREDENTIAL[field]))


_document = blueprint.doc(
    security=[{"basicAuth": []}],
    responses={
        401: problem_response(refused=problems.INVALID_PAIR),
        403: problem_response(no_scope=scope_missing(None)),
        429: "TooManyRequests",
        503: "ServiceUnavailable",
    },
)
_respond = blueprint.response(
    200,
    VerifiedCredentialSchema,
    headers={
        **{name: _documented_header(field) for field, name in _HEADERS.items()},
        _EXPIRES_AT_HEADER: header(
            "When the client secret expires, or `none`. Pass it on to the sender, who can then ask "
            "for a new one in time.",
            {"type": "string"},
            _expires_at_value(examples.EXPIRES_AT),
        ),
    },
    example=examples.VERIFIED_CREDENTIAL,
)


@blueprint.route(ROUTE)
@_document
@blueprint.doc(operationId="verify")
@_respond
def verify() -> Response:
    """Verify a credential

    Identifies the credential behind a client ID and client secret. Ask about every event, with the
    Authorization header exactly as the sender sent it, and accept the event only on 200. Unknown,
    wrong, revoked, disabled and expired pairs all get the same response. The fields are in headers
    too, for proxies, and so is the time when the client secret expires. A credential with scopes
    gets 403: ask for the scope that the event needs.
    """
    return _verified(None)


def _verified(scope: str | None) -> Response:
    request.record.scope = scope
    client_id, client_secret = basic_credentials(request.environ.get("HTTP_AUTHORIZATION", ""))
    verify_pair = current_app.services.verifier.verify
    response = verification_response(client_id, client_secret, request.record, verify_pair)
    return Response(response.body, response.status_line, response.headers)


@blueprint.route(ROUTE, methods=["POST"])
@_document
@blueprint.doc(operationId="verifyByPost", responses={413: "ContentTooLarge"})
@_respond
def verify_by_post() -> Any:
    """Verify a credential by POST

    Like GET, for proxies that keep the method of the event. The body is ignored.
    """
    return _verified(None)


_document_scope = blueprint.doc(
    responses={
        403: problem_response(no_scope=scope_missing(examples.SCOPE)),
        404: problem_response(unknown=problems.NOT_FOUND),
    }
)


@blueprint.route(SCOPE_ROUTE, parameters=SCOPE_PARAMETER)
@_document
@_document_scope
@blueprint.doc(operationId="verifyScope")
@_respond
def verify_scope(scope: str) -> Response:
    """Verify a credential for a scope

    Like `/verify`, and asks whether the credential may do this too. A valid pair whose credential
    is restricted to other scopes gets 403. A credential without restriction may do everything. A
    scope that the operator has not configured gets 404, so that no mistake lets an event in.
    """
    return _verified(scope)


@blueprint.route(SCOPE_ROUTE, parameters=SCOPE_PARAMETER, methods=["POST"])
@_document
@_document_scope
@blueprint.doc(operationId="verifyScopeByPost", responses={413: "ContentTooLarge"})
@_respond
def verify_scope_by_post(scope: str) -> Any:
    """Verify a credential for a scope by POST

    Like GET, for proxies that keep the method of the event. The body is ignored.
    """
    return _verified(scope)
