"""`/secrets`: the credentials of the caller's active unit."""

from typing import Any

from app.api.auth import bearer_auth
from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.input import Blueprint, invalid_field
from app.api.http.pagination import CredentialPageSchema, EventPageSchema, link_to_next
from app.api.http.problems import Rejected, too_many_issues
from app.api.openapi import examples
from app.api.openapi.components import LINK_HEADER, SECRET_ID_PARAMETER, problem_response
from app.api.schemas.credentials import (
    CredentialSchema,
    CredentialUpdateSchema,
    DetailedCredentialSchema,
    IssuedCredentialSchema,
    NewCredentialSchema,
    RotationSchema,
)
from app.api.schemas.events import AuditEventSchema
from app.credentials.model import (
    Caller,
    Credential,
    DetailedCredential,
    Event,
    IssuedCredential,
)
from app.credentials.service import CredentialService

blueprint = Blueprint(
    "Credentials",
    __name__,
    url_prefix="/secrets",
    description="The credentials with which backends and partners send events.",
)

_INVALID_PAGE = problem_response(
    bad_limit=invalid_field(CredentialPageSchema(), "limit"),
    bad_cursor=invalid_field(CredentialPageSchema(), "cursor"),
)
_INVALID_NAME = problem_response(bad_name=invalid_field(NewCredentialSchema(), "name"))
_INVALID_UPDATE = problem_response(
    bad_consent=invalid_field(CredentialUpdateSchema(), "trust_upstream_consent")
)
_INVALID_ROTATION = problem_response(bad_overlap=invalid_field(RotationSchema(), "overlap_seconds"))
_BODY_ERRORS = {413: "ContentTooLarge", 415: "UnsupportedMediaType"}
_NOT_FOUND = {404: "NotFound"}


def _credentials() -> CredentialService:
    return current_app.services.credentials


@blueprint.before_request
def _take_place() -> None:
    """Hold a management place for the whole request. Raises NoPlace."""
    request.held.enter_context(current_app.services.workload.management.places.take())


def _limit_issues(caller: Caller) -> None:
    """Count an issue or a rotation of the unit. Raises Rejected (429) beyond the limit."""
    retry_after = current_app.services.issues.count(caller.unit_id)
    if retry_after is not None:
        raise Rejected(too_many_issues(retry_after))


@blueprint.route("")
@bearer_auth
@blueprint.doc(operationId="listCredentials", responses={400: _INVALID_PAGE})
@blueprint.arguments(CredentialPageSchema, location="query")
@blueprint.response(
    200, CredentialSchema(many=True), headers=LINK_HEADER, example=[examples.CREDENTIAL]
)
def list_credentials(
    caller: Caller, query: dict[str, Any]
) -> tuple[list[Credential], dict[str, str]]:
    """List credentials

    The credentials of your active unit, newest first, without their client secrets. Follow the
    `Link` header to the next page until there is none.
    """
    page = _credentials().list(caller, limit=query["limit"], after=query.get("cursor"))
    return page.items, link_to_next(page, query["limit"])


@blueprint.route("", methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="issueCredential",
    responses={
        400: _INVALID_NAME,
        409: problem_response(limit=problems.CREDENTIAL_LIMIT),
        **_BODY_ERRORS,
        429: "TooManyIssues",
    },
)
@blueprint.arguments(NewCredentialSchema, example=examples.NEW_CREDENTIAL)
@blueprint.response(200, IssuedCredentialSchema, example=examples.ISSUED_CREDENTIAL)
def issue_credential(caller: Caller, new: dict[str, Any]) -> IssuedCredential:
    """Issue a credential

    Makes a credential for your active unit. Issue one for each backend or partner that will send
    events. Only this response ever shows the client secret: give it to the sender and store it
    nowhere else.
    """
    _limit_issues(caller)
    return _credentials().issue(caller, **new)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="getCredential", responses=_NOT_FOUND)
@blueprint.response(200, DetailedCredentialSchema, example=examples.DETAILED_CREDENTIAL)
def get_credential(caller: Caller, secret_id: str) -> DetailedCredential:
    """Get a credential

    A credential with its live client secrets: two while a rotation overlaps, otherwise one. Use it
    to see when each was last used, and so whether the previous one is still needed.
    """
    return _credentials().get(caller, secret_id)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["PUT"])
@bearer_auth
@blueprint.doc(
    operationId="updateCredential",
    responses={400: _INVALID_UPDATE, **_NOT_FOUND, **_BODY_ERRORS},
)
@blueprint.arguments(CredentialUpdateSchema, example=examples.CREDENTIAL_UPDATE)
@blueprint.response(204)
def update_credential(caller: Caller, update: dict[str, Any], secret_id: str) -> None:
    """Update a credential

    Sets `trust_upstream_consent` and, if given, the name. A request that changes nothing is not
    recorded in the audit trail.
    """
    _credentials().update(caller, secret_id, **update)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["DELETE"])
@bearer_auth
@blueprint.doc(operationId="revokeCredential", responses=_NOT_FOUND)
@blueprint.response(204)
def revoke_credential(caller: Caller, secret_id: str) -> None:
    """Revoke a credential

    Ends the credential and its client secrets: once you have the response, no instance verifies
    it. Use it when a sender leaves or a secret has leaked. The audit trail stays.
    """
    _credentials().revoke(caller, secret_id)


@blueprint.route("/<secret_id>/rotate", parameters=SECRET_ID_PARAMETER, methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="rotateCredential",
    responses={400: _INVALID_ROTATION, **_NOT_FOUND, **_BODY_ERRORS, 429: "TooManyIssues"},
)
@blueprint.arguments(RotationSchema, required=False, example=examples.ROTATION)
@blueprint.response(200, IssuedCredentialSchema, example=examples.ISSUED_CREDENTIAL)
def rotate_credential(caller: Caller, rotation: dict[str, Any], secret_id: str) -> IssuedCredential:
    """Rotate a credential's client secret

    Makes a new client secret for the same client ID. The previous one works until the overlap
    ends, so that every sender can switch without an outage. At most two are live: rotating again
    during an overlap ends the oldest immediately.
    """
    _limit_issues(caller)
    return _credentials().rotate(caller, secret_id, **rotation)


@blueprint.route("/<secret_id>/events", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="listEvents", responses={400: _INVALID_PAGE, **_NOT_FOUND})
@blueprint.arguments(EventPageSchema, location="query")
@blueprint.response(200, AuditEventSchema(many=True), headers=LINK_HEADER, example=examples.EVENTS)
def list_events(
    caller: Caller, query: dict[str, Any], secret_id: str
) -> tuple[list[Event], dict[str, str]]:
    """List a credential's audit trail

    What happened to the credential, who did it and in which request, newest first. It is still
    there after the credential was revoked. Follow the `Link` header to the next page until there is
    none.
    """
    page = _credentials().events(
        caller, secret_id, limit=query["limit"], before=query.get("cursor")
    )
    return page.items, link_to_next(page, query["limit"])
