"""Who asks, and for which unit."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import Flask, Request, g, request
from werkzeug.exceptions import BadRequest, Forbidden

from app.api.blueprint import Blueprint
from app.api.components import problem_response, unauthorized_response
from app.api.errors import Unauthenticated
from app.api.wiring import token_verifier
from app.identity.key_sources import KeyFile, KeySource, KeyUrl
from app.identity.tokens import Claims, InvalidToken, TokenVerifier
from app.settings import Settings

ACTIVE_UNIT_COOKIE = "activeOu"

# A second Cookie header: gunicorn joins the two with a comma, which no cookie's name begins with.
_HIDDEN_COOKIE = re.compile(rf",\s*{ACTIVE_UNIT_COOKIE}\s*=")

_CHALLENGE = 'Bearer realm="LeadVibe"'
_INVALID_TOKEN_CHALLENGE = f'{_CHALLENGE}, error="invalid_token"'

_logger = logging.getLogger(__name__)


_document = Blueprint.doc(
    security=[{"bearerAuth": []}],
    responses={
        400: problem_response(400, no_active_unit="Active OU must be set"),
        401: unauthorized_response(_INVALID_TOKEN_CHALLENGE),
        403: "Forbidden",
        503: "ServiceUnavailable",
    },
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A person: the subject of a valid token, in an active unit that the token lists."""

    actor: str
    unit_id: str


def init_app(app: Flask, settings: Settings) -> None:
    """Make the verifier of bearer tokens."""
    app.extensions["token_verifier"] = TokenVerifier(
        _key_source(settings),
        algorithms=settings.jwt_algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def bearer_auth(view: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the Caller to the view as its first argument, and document what it takes to be one."""

    @wraps(view)
    def authenticated_view(*args: Any, **kwargs: Any) -> Any:
        g.caller = identify_caller(request)
        return view(g.caller, *args, **kwargs)

    documented: Callable[..., Any] = _document(authenticated_view)
    return documented


def identify_caller(message: Request) -> Caller:
    """Return who sent the request, or raise 401, 400 without an active unit, 403 for another's."""
    claims = _verify(_bearer_token(message))
    return Caller(actor=claims.subject, unit_id=_active_unit(message, claims))


def _key_source(settings: Settings) -> KeySource:
    if settings.jwt_public_key_file is not None:
        return KeyFile(settings.jwt_public_key_file, settings.jwt_algorithms)
    assert settings.jwt_jwks_url is not None  # noqa: S101  settings have one of the two
    return KeyUrl(settings.jwt_jwks_url, settings.jwt_algorithms)


def _bearer_token(message: Request) -> str:
    """Return the token of `Authorization: Bearer` (RFC 6750, 2.1)."""
    scheme, _, token = message.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(_CHALLENGE)
    return token.strip()


def _verify(token: str) -> Claims:
    try:
        return token_verifier().verify(token)
    except InvalidToken as reason:
        fields = {"request_id": g.request_id, "reason": str(reason)}
        _logger.info("token refused", extra={"fields": fields})
        raise Unauthenticated(_INVALID_TOKEN_CHALLENGE) from None


def _active_unit(message: Request, claims: Claims) -> str:
    cookies = set(message.cookies.getlist(ACTIVE_UNIT_COOKIE))
    if len(cookies) > 1 or _HIDDEN_COOKIE.search(message.headers.get("Cookie", "")):
        raise BadRequest("Active OU must be set")  # to one, not to several
    unit_id = cookies.pop() if cookies else claims.unit_id
    if not unit_id:
        raise BadRequest("Active OU must be set")
    if unit_id != claims.unit_id and unit_id not in claims.unit_ids:
        raise Forbidden("The active OU is none of yours")
    return unit_id
