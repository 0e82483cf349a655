"""`/secrets`: the credentials of the caller's active unit."""

from typing import Any

from flask import g

from app.api import examples
from app.api.auth import Caller, bearer_auth
from app.api.blueprint import Blueprint
from app.api.components import LINK_HEADER, SECRET_ID_PARAMETER, problem_response
from app.api.fields import LimitField, NameField, StrictBooleanField, StrictSecondsField
from app.api.pages import (
    CredentialPageSchema,
    CursorField,
    EventPageSchema,
    event_id_of,
    link_to_next,
    position_of,
)
from app.api.schemas import (
    AuditEventSchema,
    CredentialSchema,
    CredentialUpdateSchema,
    DetailedCredentialSchema,
    IssuedCredentialSchema,
    NewCredentialSchema,
    RotationSchema,
)
from app.api.wiring import credential_service
from app.credentials.model import (
    Credential,
    DetailedCredential,
    Event,
    IssuedCredential,
    Origin,
)

blueprint = Blueprint(
    "Credentials",
    __name__,
    url_prefix="/secrets",
    description="The credentials with which backends and partners send events.",
)

_BAD_PAGE = problem_response(400, bad_limit=LimitField.problem, bad_cursor=CursorField.problem)
_BODY_ERRORS = {413: "ContentTooLarge", 415: "UnsupportedMediaType"}
_NOT_FOUND = {404: "NotFound"}


@blueprint.route("")
@bearer_auth
@blueprint.doc(operationId="listCredentials", responses={400: _BAD_PAGE})
@blueprint.arguments(CredentialPageSchema, location="query")
@blueprint.response(
    200, CredentialSchema(many=True), headers=LINK_HEADER, example=[examples.CREDENTIAL]
)
def list_credentials(
    caller: Caller, page: dict[str, Any]
) -> tuple[list[Credential], dict[str, str]]:
    """List credentials

    The credentials of your active unit, newest first; never their client secrets. Use it to show
    people what there is. Without `limit` the list is whole; with it, follow the `Link` header to
    the next page until there is none.
    """
    limit = page.get("limit")
    credentials = credential_service().list(
        unit_id=caller.unit_id, limit=limit, after=page.get("cursor")
    )
    return credentials.items, link_to_next(credentials, limit, position_of)


@blueprint.route("", methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="issueCredential",
    responses={400: problem_response(400, bad_name=NameField.problem), **_BODY_ERRORS},
)
@blueprint.arguments(NewCredentialSchema, example=examples.NEW_CREDENTIAL)
@blueprint.response(200, IssuedCredentialSchema, example=examples.ISSUED_CREDENTIAL)
def issue_credential(caller: Caller, new: dict[str, Any]) -> IssuedCredential:
    """Issue a credential

    Makes a credential for your active unit, one for each backend or partner that will send events.
    The answer is the only one that ever shows the client secret: hand it to the sender and keep it
    nowhere else.
    """
    return credential_service().issue(
        unit_id=caller.unit_id, name=new["name"], origin=_origin(caller)
    )


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="getCredential", responses=_NOT_FOUND)
@blueprint.response(200, DetailedCredentialSchema, example=examples.DETAILED_CREDENTIAL)
def get_credential(caller: Caller, secret_id: str) -> DetailedCredential:
    """Get a credential

    A credential with what is known of its live client secrets: two while a rotation overlaps, else
    one. Use it to see when each was last used, and so whether a former one can go.
    """
    return credential_service().get(unit_id=caller.unit_id, secret_id=secret_id)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["PUT"])
@bearer_auth
@blueprint.doc(
    operationId="updateCredential",
    responses={
        400: problem_response(400, bad_consent=StrictBooleanField.problem),
        **_NOT_FOUND,
        **_BODY_ERRORS,
    },
)
@blueprint.arguments(CredentialUpdateSchema, example=examples.CREDENTIAL_UPDATE)
@blueprint.response(204)
def update_credential(caller: Caller, update: dict[str, Any], secret_id: str) -> None:
    """Update a credential

    Sets `trust_upstream_consent`, and the name if there is one. What is already as asked for is no
    change, and leaves no trace in the trail.
    """
    credential_service().update(
        unit_id=caller.unit_id,
        secret_id=secret_id,
        trust_upstream_consent=update["trust_upstream_consent"],
        name=update.get("name"),
        origin=_origin(caller),
    )


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["DELETE"])
@bearer_auth
@blueprint.doc(operationId="revokeCredential", responses=_NOT_FOUND)
@blueprint.response(204)
def revoke_credential(caller: Caller, secret_id: str) -> None:
    """Revoke a credential

    Ends the credential and its client secrets: from the moment of the answer on, no instance
    verifies it. Use it when a sender goes, or a secret has leaked. Its audit trail stays.
    """
    credential_service().revoke(unit_id=caller.unit_id, secret_id=secret_id, origin=_origin(caller))


@blueprint.route("/<secret_id>/rotate", parameters=SECRET_ID_PARAMETER, methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="rotateCredential",
    responses={
        400: problem_response(400, bad_overlap=StrictSecondsField.problem),
        **_NOT_FOUND,
        **_BODY_ERRORS,
    },
)
@blueprint.arguments(RotationSchema, required=False, example=examples.ROTATION)
@blueprint.response(200, IssuedCredentialSchema, example=examples.ISSUED_CREDENTIAL)
def rotate_credential(caller: Caller, rotation: dict[str, Any], secret_id: str) -> IssuedCredential:
    """Rotate a credential's client secret

    Hands out a new client secret under the same client ID. The former one works until the overlap
    ends, so that every sender can change over without an outage. At most two are live: rotating
    during an overlap ends the oldest at once.
    """
    return credential_service().rotate(
        unit_id=caller.unit_id,
        secret_id=secret_id,
        overlap_seconds=rotation["overlap_seconds"],
        origin=_origin(caller),
    )


@blueprint.route("/<secret_id>/events", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="listEvents", responses={400: _BAD_PAGE, **_NOT_FOUND})
@blueprint.arguments(EventPageSchema, location="query")
@blueprint.response(200, AuditEventSchema(many=True), headers=LINK_HEADER, example=examples.EVENTS)
def list_events(
    caller: Caller, page: dict[str, Any], secret_id: str
) -> tuple[list[Event], dict[str, str]]:
    """List a credential's audit trail

    What happened to the credential, who did it and in which request, newest first; also after it
    was revoked. Without `limit` the trail is whole.
    """
    limit = page.get("limit")
    events = credential_service().events(
        unit_id=caller.unit_id, secret_id=secret_id, limit=limit, before=page.get("cursor")
    )
    return events.items, link_to_next(events, limit, event_id_of)


def _origin(caller: Caller) -> Origin:
    return Origin(actor=caller.actor, request_id=g.request_id)
