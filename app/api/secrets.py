"""`/secrets`: the credentials of the caller's active unit."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from app.api.auth import bearer_auth, enter_authentication, manager_auth
from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.headers import IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED
from app.api.http.input import Blueprint, invalid_member, invalid_parameter_of
from app.api.http.pagination import link_header, next_link
from app.api.http.problems import (
    HTTPProblem,
    credential_in_use,
    history_lost,
    invalid_expiry,
    invalid_restriction,
)
from app.api.openapi import examples
from app.api.openapi.components import (
    HINT_PARAMETER,
    LINK_HEADER,
    REPLAYED_HEADER,
    SECRET_ID_PARAMETER,
    problem_response,
)
from app.api.schemas.credentials import (
    CredentialInputSchema,
    CredentialPatchSchema,
    CredentialUpdateSchema,
    DetailedCredentialSchema,
    EndingSchema,
    IssuedCredentialSchema,
    ListedCredentialSchema,
    RevocationSchema,
    RotationSchema,
)
from app.api.schemas.events import AuditEventSchema, UnitEventSchema
from app.api.schemas.idempotency import IdempotencyKeySchema
from app.api.schemas.queries import (
    CredentialPageSchema,
    EventPageSchema,
    UnitEventPageSchema,
)
from app.credentials.errors import HistoryLost, InvalidExpiry, InvalidRestriction
from app.credentials.management import CredentialService
from app.credentials.model import (
    START_OF_TRAIL,
    Caller,
    Credential,
    CredentialChanges,
    CredentialFilter,
    DetailedCredential,
    Event,
    EventFilter,
    IssuedCredential,
    ReplayedCredential,
    UnitEvent,
)

blueprint = Blueprint(
    "Credentials",
    __name__,
    url_prefix="/secrets",
    description="The credentials with which backends and partners send events.",
    authenticates_first=True,
)

_INVALID_PAGE = problem_response(
    bad_limit=invalid_parameter_of(CredentialPageSchema(), "limit"),
    bad_cursor=invalid_parameter_of(CredentialPageSchema(), "cursor"),
)
_INVALID_FILTER = problem_response(
    bad_limit=invalid_parameter_of(UnitEventPageSchema(), "limit"),
    bad_cursor=invalid_parameter_of(UnitEventPageSchema(), "cursor"),
    bad_time=invalid_parameter_of(UnitEventPageSchema(), "since"),
)
_EXPIRY_IN_THE_PAST = invalid_expiry(InvalidExpiry("10 years"))
_NO_SCOPES = invalid_restriction(InvalidRestriction("scopes", "are not configured"))
_INVALID_NEW_CREDENTIAL = problem_response(
    bad_name=invalid_member(CredentialInputSchema(), "name"),
    bad_expiry=_EXPIRY_IN_THE_PAST,
    no_scopes=_NO_SCOPES,
    bad_key=invalid_parameter_of(IdempotencyKeySchema(), IDEMPOTENCY_KEY),
)
_INVALID_UNUSED_FOR = problem_response(
    bad_unused_for=invalid_parameter_of(RevocationSchema(), "unused_for")
)
_INVALID_UPDATE = problem_response(
    bad_consent=invalid_member(CredentialUpdateSchema(), "trust_upstream_consent")
)
_INVALID_PATCH = problem_response(
    bad_enabled=invalid_member(CredentialPatchSchema(), "enabled"),
    bad_name=invalid_member(CredentialPatchSchema(), "name"),
    no_scopes=_NO_SCOPES,
)
_INVALID_ROTATION = problem_response(
    bad_overlap=invalid_member(RotationSchema(), "overlap_seconds"),
    bad_expiry=_EXPIRY_IN_THE_PAST,
    bad_key=invalid_parameter_of(IdempotencyKeySchema(), IDEMPOTENCY_KEY),
)
_REPLAY_ERRORS = {"under_way": problems.REQUEST_IN_PROGRESS, "erased": problems.RESPONSE_ERASED}
_KEY_REUSED = {422: problem_response(reused=problems.IDEMPOTENCY_KEY_REUSED)}
_BODY_ERRORS = {413: "ContentTooLarge", 415: "UnsupportedMediaType"}
_NOT_FOUND = {404: "CredentialNotFound"}


Filter = TypeVar("Filter", CredentialFilter, EventFilter)


def _filter(kind: type[Filter], query: dict[str, Any]) -> Filter:
    return kind(**{each.name: query.get(each.name) for each in fields(kind)})


def _credentials() -> CredentialService:
    return current_app.services.credentials


blueprint.before_request(enter_authentication)


def _replayed(issued: IssuedCredential) -> dict[str, str]:
    return {IDEMPOTENCY_REPLAYED: "true"} if isinstance(issued, ReplayedCredential) else {}


@blueprint.route("")
@bearer_auth
@blueprint.doc(operationId="listCredentials", responses={400: _INVALID_FILTER})
@blueprint.arguments(CredentialPageSchema, location="query")
@blueprint.response(
    200, ListedCredentialSchema(many=True), headers=LINK_HEADER, example=[examples.CREDENTIAL]
)
def list_credentials(
    caller: Caller, query: dict[str, Any]
) -> tuple[Sequence[Credential], dict[str, str]]:
    """List credentials

    The credentials of your active unit, newest first, without their client secrets. Follow the
    `Link` header to the next page until there is none. A credential must pass every filter. With
    `detailed=true`, each is shown with its state.
    """
    credentials = _credentials()
    select = credentials.list_detailed if query.get("detailed") else credentials.list
    page = select(
        caller,
        only=_filter(CredentialFilter, query),
        limit=query["limit"],
        after=query.get("cursor"),
    )
    return page.items, link_header(page, query)


@blueprint.route("", methods=["POST"])
@manager_auth
@blueprint.doc(
    operationId="issueCredential",
    responses={
        400: _INVALID_NEW_CREDENTIAL,
        409: problem_response(limit=problems.CREDENTIAL_LIMIT, **_REPLAY_ERRORS),
        **_BODY_ERRORS,
        **_KEY_REUSED,
        429: "TooManyIssues",
    },
)
@blueprint.arguments(IdempotencyKeySchema, location="headers")
@blueprint.arguments(CredentialInputSchema, example=examples.NEW_CREDENTIAL)
@blueprint.response(
    200, IssuedCredentialSchema, headers=REPLAYED_HEADER, example=examples.ISSUED_CREDENTIAL
)
def issue_credential(
    caller: Caller, headers: dict[str, str], new: dict[str, Any]
) -> tuple[IssuedCredential, dict[str, str]]:
    """Issue a credential

    Makes a credential for your active unit. Issue one for each backend or partner that will send
    events. Only this response shows the client secret: give it to the sender and store it nowhere
    else.
    """
    issued = _credentials().issue(caller, **new, idempotency_key=headers.get(IDEMPOTENCY_KEY))
    return issued, _replayed(issued)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="getCredential", responses=_NOT_FOUND)
@blueprint.response(200, DetailedCredentialSchema, example=examples.DETAILED_CREDENTIAL)
def get_credential(caller: Caller, secret_id: str) -> DetailedCredential:
    """Get a credential

    A credential with its live client secrets: two while a rotation overlaps, none once all have
    expired, otherwise one. Use it to see when each was last used, and so whether the previous one
    is still needed. `last_refused` says why a sender was refused.
    """
    return _credentials().get(caller, secret_id)


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["PATCH"])
@manager_auth
@blueprint.doc(
    operationId="patchCredential",
    responses={
        400: _INVALID_PATCH,
        **_NOT_FOUND,
        413: "ContentTooLarge",
        415: "UnsupportedPatch",
        429: "TooManyChanges",
    },
)
@blueprint.arguments(CredentialPatchSchema, required=False, example=examples.CREDENTIAL_PATCH)
@blueprint.response(204)
def patch_credential(caller: Caller, patch: dict[str, Any], secret_id: str) -> None:
    """Change a credential

    Renames, disables or enables a credential, or changes whether its consent flags are trusted,
    what it may do (`scopes`) and where it may be used from (`addresses`; null removes either). What
    the body leaves out stays as it is, so two people can change different fields at the same time.
    Once you have the response, every instance does as it says. A request that changes nothing is
    not recorded in the audit trail.
    """
    _credentials().update(caller, secret_id, CredentialChanges(**patch))


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["PUT"])
@manager_auth
@blueprint.doc(
    operationId="updateCredential",
    responses={400: _INVALID_UPDATE, **_NOT_FOUND, **_BODY_ERRORS, 429: "TooManyChanges"},
)
@blueprint.arguments(CredentialUpdateSchema, example=examples.CREDENTIAL_UPDATE)
@blueprint.response(204)
def update_credential(caller: Caller, update: dict[str, Any], secret_id: str) -> None:
    """Update a credential

    Like `PATCH`, but always sets `trust_upstream_consent`. A value that you have read before may
    undo what somebody else has changed since, so use `PATCH` to change anything else.
    """
    _credentials().update(caller, secret_id, CredentialChanges(**update))


@blueprint.route("/<secret_id>", parameters=SECRET_ID_PARAMETER, methods=["DELETE"])
@manager_auth
@blueprint.doc(
    operationId="revokeCredential",
    responses={
        400: _INVALID_UNUSED_FOR,
        **_NOT_FOUND,
        409: problem_response(in_use=credential_in_use(examples.LAST_USED_AT)),
        429: "TooManyChanges",
    },
)
@blueprint.arguments(RevocationSchema, location="query")
@blueprint.response(204)
def revoke_credential(caller: Caller, query: dict[str, Any], secret_id: str) -> None:
    """Revoke a credential

    Ends the credential and its client secrets: once you have the response, no instance verifies
    it. Use it when a sender leaves. If a client secret has leaked, rotate with `overlap_seconds` 0
    instead. The audit trail stays. With `unused_for`, a credential that is still in use is not
    revoked.
    """
    _credentials().revoke(caller, secret_id, **query, while_waiting=request.while_waiting)


@blueprint.route(
    "/<secret_id>/secrets/<hint>",
    parameters=[*SECRET_ID_PARAMETER, *HINT_PARAMETER],
    methods=["DELETE"],
)
@manager_auth
@blueprint.doc(
    operationId="endClientSecret",
    responses={
        400: _INVALID_UNUSED_FOR,
        404: "ClientSecretNotFound",
        409: problem_response(
            last=problems.LAST_SECRET,
            ambiguous=problems.AMBIGUOUS_HINT,
            in_use=credential_in_use(examples.LAST_USED_AT),
        ),
        429: "TooManyChanges",
    },
)
@blueprint.arguments(EndingSchema, location="query")
@blueprint.response(204)
def end_client_secret(caller: Caller, query: dict[str, Any], secret_id: str, hint: str) -> None:
    """End one client secret

    Finishes a rotation before its overlap ends: once you have the response, no instance verifies
    the client secret with this hint. The credential and its other client secret stay. With
    `unused_for`, a client secret that is still in use does not end.
    """
    _credentials().end_secret(caller, secret_id, hint, **query, while_waiting=request.while_waiting)


@blueprint.route("/<secret_id>/rotate", parameters=SECRET_ID_PARAMETER, methods=["POST"])
@manager_auth
@blueprint.doc(
    operationId="rotateCredential",
    responses={
        400: _INVALID_ROTATION,
        **_NOT_FOUND,
        409: problem_response(limit=problems.SECRET_LIMIT, **_REPLAY_ERRORS),
        **_BODY_ERRORS,
        **_KEY_REUSED,
        429: "TooManyIssues",
    },
)
@blueprint.arguments(IdempotencyKeySchema, location="headers")
@blueprint.arguments(RotationSchema, required=False, example=examples.ROTATION)
@blueprint.response(
    200, IssuedCredentialSchema, headers=REPLAYED_HEADER, example=examples.ISSUED_CREDENTIAL
)
def rotate_credential(
    caller: Caller, headers: dict[str, str], rotation: dict[str, Any], secret_id: str
) -> tuple[IssuedCredential, dict[str, str]]:
    """Rotate a credential's client secret

    Makes a new client secret for the same client ID. The previous one works until the overlap
    ends, so that every sender can switch without an outage. At most two are live: during an overlap
    end one first, or rotate with an `overlap_seconds` of 0, which ends both immediately.
    """
    issued = _credentials().rotate(
        caller, secret_id, **rotation, idempotency_key=headers.get(IDEMPOTENCY_KEY)
    )
    return issued, _replayed(issued)


@blueprint.route("/events")
@bearer_auth
@blueprint.doc(
    operationId="listUnitEvents",
    responses={
        400: _INVALID_FILTER,
        410: problem_response(lost=history_lost(examples.NEXT_EVENTS)),
    },
)
@blueprint.arguments(UnitEventPageSchema, location="query")
@blueprint.response(
    200, UnitEventSchema(many=True), headers=LINK_HEADER, example=examples.UNIT_EVENTS
)
def list_unit_events(
    caller: Caller, query: dict[str, Any]
) -> tuple[list[UnitEvent], dict[str, str]]:
    """List the unit's audit trail

    What happened to the credentials of your active unit, newest first. With `order=asc` you can
    follow the trail: there is always a `Link` to the next page, which is empty until something
    happens. No event is ever skipped. After a failover or a restore that has lost events which you
    have read, you get 410 once, with a `Link` to go on. An event must pass every filter.
    """
    try:
        page = _credentials().unit_events(
            caller,
            only=_filter(EventFilter, query),
            order=query["order"],
            limit=query["limit"],
            after=query.get("cursor"),
        )
    except HistoryLost as error:
        resume = query["cursor"].end_of_history if error.has_history else START_OF_TRAIL
        raise HTTPProblem(history_lost(next_link(query, resume))) from None
    return page.items, link_header(page, query)


@blueprint.route("/<secret_id>/events", parameters=SECRET_ID_PARAMETER)
@bearer_auth
@blueprint.doc(operationId="listEvents", responses={400: _INVALID_PAGE, **_NOT_FOUND})
@blueprint.arguments(EventPageSchema, location="query")
@blueprint.response(200, AuditEventSchema(many=True), headers=LINK_HEADER, example=examples.EVENTS)
def list_events(
    caller: Caller, query: dict[str, Any], secret_id: str
) -> tuple[list[Event], dict[str, str]]:
    """List a credential's audit trail

    What happened to the credential, who did it and in which request, newest first. The trail
    remains after the credential is revoked. Follow the `Link` header to the next page until there
    is none.
    """
    page = _credentials().events(
        caller, secret_id, limit=query["limit"], before=query.get("cursor")
    )
    return page.items, link_header(page, query)
