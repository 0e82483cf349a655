"""`/verify`: the hot path, on which every event of a backend passes.

Two ways lead to one verdict. The view is the whole of it: what the routes, the OpenAPI document and
everything out of the ordinary use. In front of Flask stands a door that answers an ordinary request
by itself, since Flask's own work on a request costs more than the SELECT (ADR 8).
"""

from __future__ import annotations

import json
from base64 import b64decode
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from flask import Response, g, request

from app.api import examples
from app.api.auth import Caller
from app.api.blueprint import Blueprint
from app.api.components import header, unauthorized_response
from app.api.errors import PROBLEM_JSON, UNAUTHENTICATED, problem
from app.api.limits import FailureLimit
from app.api.requests import COMMON_HEADERS, log_request, request_id_of
from app.api.schemas import VerifiedCredentialSchema
from app.api.wiring import credential_service, failure_limit
from app.credentials.errors import VerificationRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

    from app.credentials.model import VerifiedCredential
    from app.credentials.service import CredentialService
    from app.settings import Settings

ROUTE = "/verify"
TOO_MANY_REFUSALS = "Too many refused verifications"
CHALLENGE = 'Basic realm="LeadVibe", charset="UTF-8"'

# What a header's value may hold as it is. A unit with anything else in it is percent-encoded, so
# that no two units look alike to a backend behind a proxy.
_HEADER_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")

_ERROR = "leadvibe.error"  # where the door leaves an error for the view to raise

blueprint = Blueprint("Verification", __name__, description="For those who receive events.")

_document = blueprint.doc(
    security=[{"basicAuth": []}],
    responses={
        401: unauthorized_response(CHALLENGE),
        429: "TooManyRequests",
        503: "ServiceUnavailable",
    },
)
_HEADERS = {
    "X-LeadVibe-Secret-Id": header(
        "As `secret_id`.",
        {"type": "string", "pattern": "^sec_[0-9a-z]{20}$"},
        examples.VERIFIED_CREDENTIAL["secret_id"],
    ),
    "X-LeadVibe-Unit-Id": header(
        "As `unit_id`; what is not visible ASCII in it is percent-encoded.",
        {"type": "string", "pattern": "^[!-~]+$"},
        examples.VERIFIED_CREDENTIAL["unit_id"],
    ),
    "X-LeadVibe-Client-Id": header(
        "As `client_id`.",
        {"type": "string", "pattern": "^lv_ci_[0-9a-z]{20}$"},
        examples.VERIFIED_CREDENTIAL["client_id"],
    ),
    "X-LeadVibe-Trust-Upstream-Consent": header(
        "As `trust_upstream_consent`.", {"type": "string", "enum": ["true", "false"]}, "false"
    ),
}


def init_app(app: Flask, settings: Settings) -> None:
    """Put the door in front of the application, on the credential service that it has."""
    service: CredentialService = app.extensions["credentials"]
    limit = FailureLimit(settings.verify_failure_limit, settings.ratelimit_storage_url)
    app.extensions["failure_limit"] = limit
    app.wsgi_app = Door(app.wsgi_app, service, limit)  # type: ignore[method-assign]  # Flask's idiom


class _Answer(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    caller: Caller | None


def _problem(status: int, detail: str, header: tuple[str, str]) -> _Answer:
    document = problem(status, detail)
    body = json.dumps(document).encode() + b"\n"
    headers = [("Content-Type", PROBLEM_JSON), ("Content-Length", str(len(body))), header]
    return _Answer(f"{status} {document['title']}", headers, body, None)


_REFUSED = _problem(401, UNAUTHENTICATED, ("WWW-Authenticate", CHALLENGE))


class Door:
    """The WSGI application in front of Flask's, for ordinary requests to `/verify`.

    Whatever has a body, lacks a Host, or meets another error than a refusal goes on to Flask.
    """

    def __init__(
        self, flask: WSGIApplication, service: CredentialService, limit: FailureLimit
    ) -> None:
        self._flask = flask
        self._service = service
        self._limit = limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_ordinary(environ):
            return self._flask(environ, start_response)
        started_at = perf_counter()
        try:
            answer = _answer(environ, self._service, self._limit)
        except Exception as error:  # noqa: BLE001  the view raises it again
            environ[_ERROR] = error
            return self._flask(environ, start_response)
        request_id = request_id_of(environ)
        method = environ["REQUEST_METHOD"]
        log_request(
            request_id=request_id,
            method=method,
            route=ROUTE,
            status=int(answer.status[:3]),
            started_at=started_at,
            caller=answer.caller,
        )
        start_response(
            answer.status, [*answer.headers, ("X-Request-Id", request_id), *COMMON_HEADERS]
        )
        return [] if method == "HEAD" else [answer.body]


@blueprint.route(ROUTE)
@_document
@blueprint.doc(operationId="verify")
@blueprint.response(
    200, VerifiedCredentialSchema, headers=_HEADERS, example=examples.VERIFIED_CREDENTIAL
)
def verify() -> Response:
    """Verify a credential

    Tells whose credential a client ID and client secret are. Ask it about every event, with the
    Authorization header as the sender sent it, and let the event in on 200 alone. Whatever is not,
    or no longer, the pair of a credential is refused in the same words. A proxy finds the answer in
    the headers too.
    """
    if _ERROR in request.environ:
        raise request.environ[_ERROR]
    answer = _answer(request.environ, credential_service(), failure_limit())
    g.caller = answer.caller
    return Response(answer.body, answer.status, answer.headers)


@blueprint.route(ROUTE, methods=["POST"])
@_document
@blueprint.doc(operationId="verifyByPost", responses={413: "ContentTooLarge"})
@blueprint.response(
    200, VerifiedCredentialSchema, headers=_HEADERS, example=examples.VERIFIED_CREDENTIAL
)
def verify_by_post() -> Any:
    """Verify a credential by POST

    As GET, for proxies that keep the method of the event; the body is not looked at.
    """
    return verify()


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Return the user ID and password of `Authorization: Basic` (RFC 7617).

    Both are empty if it is malformed, to be refused in the same way as a wrong pair.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user_id, _, password = b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except ValueError:
        return "", ""
    return user_id, password


def _is_ordinary(environ: WSGIEnvironment) -> bool:
    return (
        environ["PATH_INFO"] == ROUTE
        and environ["REQUEST_METHOD"] in ("GET", "HEAD", "POST")
        and environ.get("CONTENT_LENGTH", "") in ("", "0")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and "HTTP_HOST" in environ
    )


def _answer(environ: WSGIEnvironment, service: CredentialService, limit: FailureLimit) -> _Answer:
    client_id, client_secret = basic_credentials(environ.get("HTTP_AUTHORIZATION", ""))
    try:
        verified = service.verify(client_id=client_id, client_secret=client_secret)
    except VerificationRefused:
        retry_after = limit.count(environ.get("REMOTE_ADDR", ""), client_id)
        if retry_after is None:
            return _REFUSED
        return _problem(429, TOO_MANY_REFUSALS, ("Retry-After", str(retry_after)))
    return _acceptance(verified)


def _acceptance(verified: VerifiedCredential) -> _Answer:
    members = {
        "secret_id": verified.secret_id,
        "unit_id": verified.unit_id,
        "client_id": verified.client_id,
        "name": verified.name,
        "trust_upstream_consent": verified.trust_upstream_consent,
    }
    body = json.dumps(members).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("X-LeadVibe-Secret-Id", verified.secret_id),
        ("X-LeadVibe-Unit-Id", quote(verified.unit_id, safe=_HEADER_SAFE)),
        ("X-LeadVibe-Client-Id", verified.client_id),
        (
            "X-LeadVibe-Trust-Upstream-Consent",
            "true" if verified.trust_upstream_consent else "false",
        ),
    ]
    caller = Caller(actor=verified.client_id, unit_id=verified.unit_id)
    return _Answer("200 OK", headers, body, caller)
