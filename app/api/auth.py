"""Bearer tokens: find out who calls, for which unit, and whether they may change credentials."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from time import monotonic
from typing import Any

from werkzeug.sansio.http import parse_cookie

from app.api.http import problems
from app.api.http.application import Request, current_app, request
from app.api.http.input import Blueprint, inputs_of, reject_unknown_input
from app.api.http.problems import HTTPProblem, Problem
from app.api.openapi.components import ACTIVE_UNIT_COOKIE, problem_response
from app.bulkheads import MANAGEMENT_SECONDS
from app.credentials.model import Caller
from app.identity.key_sources import KeysUnavailable
from app.identity.tokens import Claims, InvalidToken, TokenExpired

# gunicorn joins several Cookie headers with a comma, so a second activeOu cookie ends up inside the
# value of the cookie before it.
_HIDDEN_COOKIE = re.compile(rf",\s*{ACTIVE_UNIT_COOKIE}\s*=")

_logger = logging.getLogger(__name__)


def enter_authentication() -> None:
    """Hold a slot until the caller is known, or else for the whole request. Raises BulkheadFull.

    A blueprint with `bearer_auth` calls it before each request.
    """
    request.exit_stack.enter_context(current_app.services.bulkheads.authentication)


def bearer_auth(view: Callable[..., Any]) -> Callable[..., Any]:
    """Authenticate the request, take a slot of management and pass the Caller to the view.

    Adds the security scheme and the 400, 401, 403 and 503 responses to the view's OpenAPI.
    """

    @wraps(view)
    def authenticated_view(*args: Any, **kwargs: Any) -> Any:
        caller, _ = _authenticate(request)
        return view(_take_slot(request, caller), *args, **kwargs)

    return _documented(authenticated_view, forbidden="Forbidden")


def manager_auth(view: Callable[..., Any]) -> Callable[..., Any]:
    """Authenticate as `bearer_auth` does, and require a role that may change credentials.

    A query parameter or a body that the view does not read is rejected: a change must not be made
    although its condition is misspelt or misplaced.
    """
    inputs = inputs_of(view)

    @wraps(view)
    def authenticated_view(*args: Any, **kwargs: Any) -> Any:
        caller, claims = _authenticate(request)
        if not current_app.services.may_change(claims):
            raise HTTPProblem(problems.ROLE_MISSING)
        caller = _take_slot(request, caller)
        reject_unknown_input(request, inputs)
        return view(caller, *args, **kwargs)

    return _documented(
        authenticated_view,
        forbidden="ChangeForbidden",
        unknown_parameter=problems.unknown_parameter("unused_fro"),
    )


def _documented(
    view: Callable[..., Any], *, forbidden: str, **rejected: Problem
) -> Callable[..., Any]:
    document: Callable[..., Callable[..., Any]] = Blueprint.doc(
        security=[{"bearerAuth": []}],
        responses={
            400: problem_response(no_active_unit=problems.NO_ACTIVE_UNIT, **rejected),
            401: problem_response(refused=problems.INVALID_TOKEN, expired=problems.TOKEN_EXPIRED),
            403: forbidden,
            503: "ServiceUnavailable",
        },
    )
    return document(view)


def _authenticate(request: Request) -> tuple[Caller, Claims]:
    """Return the caller, and the claims of the caller's token.

    Raises HTTPProblem: 401, 400 without an active unit, 403 if the token does not list the unit.
    """
    claims = _verify(_bearer_token(request), request_id=request.id)
    request.record.actor = claims.subject
    unit_id = _active_unit(request, claims)
    request.record.unit_id = unit_id
    caller = Caller(
        actor=claims.subject,
        unit_id=unit_id,
        request_id=request.id,
        via="api",
        address=request.record.address,
    )
    return caller, claims


def _take_slot(request: Request, caller: Caller) -> Caller:
    """Take a slot of management for the rest of the request, out of the share of the unit.

    Read the body before, so that a slow client holds no slot. Return the caller with a deadline.
    Raises BulkheadFull.
    """
    request.exit_stack.close()  # the slot of authentication
    shared = current_app.services.bulkheads.management.bulkhead
    place = request.exit_stack.enter_context(shared.place(caller.unit_id))
    request.get_data()
    deadline = monotonic() + MANAGEMENT_SECONDS
    place.take_slot()
    request.while_waiting = place.paused
    return replace(caller, deadline=deadline)


def _bearer_token(request: Request) -> str:
    """Return the token of `Authorization: Bearer` (RFC 6750, 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise HTTPProblem(problems.NO_TOKEN)
    return token.strip()


def _verify(token: str, *, request_id: str) -> Claims:
    try:
        return current_app.services.tokens.verify(token)
    except KeysUnavailable as reason:
        fields = {"request_id": request_id, "reason": str(reason)}
        _logger.info("token not checked", extra={"fields": fields})
        raise
    except InvalidToken as reason:
        fields = {"request_id": request_id, "reason": str(reason)}
        _logger.info("token refused", extra={"fields": fields})
        has_expired = isinstance(reason, TokenExpired)
        raise HTTPProblem(
            problems.TOKEN_EXPIRED if has_expired else problems.INVALID_TOKEN
        ) from None


def _active_unit(request: Request, claims: Claims) -> str:
    # Browsers send UTF-8. WSGI makes Latin-1 of it (PEP 3333), and `request.cookies` keeps that.
    header = request.headers.get("Cookie", "").encode("latin-1").decode("utf-8", "replace")
    cookies = set(parse_cookie(header).getlist(ACTIVE_UNIT_COOKIE))
    if len(cookies) > 1 or _HIDDEN_COOKIE.search(header):
        raise HTTPProblem(problems.NO_ACTIVE_UNIT)  # several cookies are ambiguous
    unit_id = cookies.pop() if cookies else claims.unit_id
    if not unit_id:
        raise HTTPProblem(problems.NO_ACTIVE_UNIT)
    if unit_id != claims.unit_id and unit_id not in claims.unit_ids:
        raise HTTPProblem(problems.FOREIGN_UNIT)
    return unit_id
