"""`/secrets`: the credentials of the caller's active unit."""

from typing import Any

from flask import current_app, g

from app.api.auth import Caller, bearer_auth
from app.api.blueprint import Blueprint
from app.api.documentation import problem_response
from app.api.schemas import (
    CredentialSchema,
    IssuedCredentialSchema,
    NameField,
    NewCredentialSchema,
)
from app.credentials.model import Credential, IssuedCredential, Origin
from app.credentials.service import CredentialService

blueprint = Blueprint(
    "Credentials",
    __name__,
    url_prefix="/secrets",
    description="The credentials with which backends and partners send events.",
)


@blueprint.route("")
@bearer_auth
@blueprint.doc(operationId="listCredentials")
@blueprint.response(200, CredentialSchema(many=True))
def list_credentials(caller: Caller) -> list[Credential]:
    """List credentials

    The credentials of the caller's active unit, newest first. Never their client secrets.
    """
    return _service().list(unit_id=caller.unit_id)


@blueprint.route("", methods=["POST"])
@bearer_auth
@blueprint.doc(
    operationId="issueCredential",
    responses={
        400: problem_response(400, bad_name=NameField.problem),
        413: "ContentTooLarge",
        415: "UnsupportedMediaType",
    },
)
@blueprint.arguments(NewCredentialSchema)
@blueprint.response(200, IssuedCredentialSchema)
def issue_credential(caller: Caller, new: dict[str, Any]) -> IssuedCredential:
    """Issue a credential

    Makes a credential for the caller's active unit. The answer is the only one that ever shows the
    client secret.
    """
    return _service().issue(
        unit_id=caller.unit_id,
        name=new["name"],
        origin=Origin(actor=caller.actor, request_id=g.request_id),
    )


def _service() -> CredentialService:
    service: CredentialService = current_app.extensions["credentials"]
    return service
