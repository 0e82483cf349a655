"""`/secrets`: the credentials of the caller's active unit."""

from typing import Any

from flask import g

from app.api.auth import Caller, bearer_auth
from app.api.blueprint import Blueprint
from app.api.documentation import LINK_HEADER, problem_response
from app.api.pages import (
    CredentialPageSchema,
    CursorField,
    EventPageSchema,
    LimitField,
    event_id_of,
    link_to_next,
    position_of,
)
from app.api.schemas import (
    CredentialSchema,
    CredentialUpdateSchema,
    DetailedCredentialSchema,
    EventSchema,
    IssuedCredentialSchema,
    NameField,
    NewCredentialSchema,
    RotationSchema,
    StrictBooleanField,
    StrictSecondsField,
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
@blueprint.response(200, CredentialSchema(many=True), headers=LINK_HEADER)
def list_credentials(
    caller: Caller, page: dict[str, Any]
) -> tuple[list[Credential], dict[str, str]]:
    """List credentials

    The credentials of the caller's active unit, newest first. Never their client secrets.
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
@blueprint.arguments(NewCredentialSchema)
@blueprint.response(200, IssuedCredentialSchema)
def issue_credential(caller: Caller, new: dict[str, Any]) -> IssuedCredential:
    """Issue a credential

    Makes a credential for the caller's active unit. The answer is the only one that ever shows the
    client secret.
    """
    return credential_service().issue(
        unit_id=caller.unit_id, name=new["name"], origin=_origin(caller)
    )


@blueprint.route("/<secret_id>")
@bearer_auth
@blueprint.doc(operationId="getCredential", responses=_NOT_FOUND)
@blueprint.response(200, DetailedCredentialSchema)
def get_credential(caller: Caller, secret_id: str) -> DetailedCredential:
    """Get a credential

    With what is known of its live client secrets: two while a rotation overlaps, else one.
    """
    return credential_service().get(unit_id=caller.unit_id, secret_id=secret_id)


@blueprint.route("/<secret_id>", methods=["PUT"])
@bearer_auth
@blueprint.doc(
    operationId="updateCredential",
    responses={
        400: problem_response(400, bad_consent=StrictBooleanField.problem),
        **_NOT_FOUND,
        **_BODY_ERRORS,
    },
)
@blueprint.arguments(CredentialUpdateSchema)
@blueprint.response(204)
def update_credential(caller: Caller, update: dict[str, Any], secret_id: str) -> None:
    """Update a credential

    Sets `trust_upstream_consent`, and the name if there is one.
    """
    credential_service().update(
        unit_id=caller.unit_id,
        secret_id=secret_id,
        trust_upstream_consent=update["trust_upstream_consent"],
        name=update.get("name"),
        origin=_origin(caller),
    )


@blueprint.route("/<secret_id>", methods=["DELETE"])
@bearer_auth
@blueprint.doc(operationId="revokeCredential", responses=_NOT_FOUND)
@blueprint.response(204)
def revoke_credential(caller: Caller, secret_id: str) -> None:
    """Revoke a credential

    From the moment of the answer on, nothing verifies it. Its audit trail stays.
    """
    credential_service().revoke(unit_id=caller.unit_id, secret_id=secret_id, origin=_origin(caller))


@blueprint.route("/<secret_id>/rotate", methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="rotateCredential",
    responses={
        400: problem_response(400, bad_overlap=StrictSecondsField.problem),
        **_NOT_FOUND,
        **_BODY_ERRORS,
    },
)
@blueprint.arguments(RotationSchema, required=False)
@blueprint.response(200, IssuedCredentialSchema)
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


@blueprint.route("/<secret_id>/events")
@bearer_auth
@blueprint.doc(operationId="listEvents", responses={400: _BAD_PAGE, **_NOT_FOUND})
@blueprint.arguments(EventPageSchema, location="query")
@blueprint.response(200, EventSchema(many=True), headers=LINK_HEADER)
def list_events(
    caller: Caller, page: dict[str, Any], secret_id: str
) -> tuple[list[Event], dict[str, str]]:
    """List a credential's audit trail

    What happened to it, newest first; also after it was revoked.
    """
    limit = page.get("limit")
    events = credential_service().events(
        unit_id=caller.unit_id, secret_id=secret_id, limit=limit, before=page.get("cursor")
    )
    return events.items, link_to_next(events, limit, event_id_of)


def _origin(caller: Caller) -> Origin:
    return Origin(actor=caller.actor, request_id=g.request_id)
