"""`/verify`: the hot path, on which every event of a backend passes.

Its answer is built by hand: flask-smorest's way to a response costs as much as the SELECT (ADR 8).
"""

from base64 import b64decode
from typing import cast
from urllib.parse import quote

from flask import Response, json, request

from app.api.blueprint import Blueprint
from app.api.errors import Unauthenticated
from app.api.schemas import VerifiedCredentialSchema
from app.api.wiring import credential_service, failure_limit
from app.credentials.errors import VerificationRefused
from app.credentials.model import VerifiedCredential

CHALLENGE = 'Basic realm="LeadVibe", charset="UTF-8"'

# What a header's value may hold as it is. A unit's name with anything else is percent-encoded, so
# that no two units look alike to a backend behind a proxy.
_HEADER_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")

blueprint = Blueprint("Verification", __name__, description="For those who receive events.")


_document = blueprint.doc(
    security=[{"basicAuth": []}],
    responses={
        401: "Unauthorized",
        429: "TooManyRequests",
        503: "ServiceUnavailable",
    },
)
_HEADERS = {
    f"X-LeadVibe-{name}": {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "Secret-Id": "As `secret_id`.",
        "Unit-Id": "As `unit_id`; what is not visible ASCII in it is percent-encoded.",
        "Client-Id": "As `client_id`.",
        "Trust-Upstream-Consent": "`true` or `false`.",
    }.items()
}


@blueprint.route("/verify")
@_document
@blueprint.doc(operationId="verify")
@blueprint.response(200, VerifiedCredentialSchema, headers=_HEADERS)
def verify() -> Response:
    """Verify a credential

    Tells whose credential a client ID and client secret are. Whatever is not, or no longer, the
    pair of a credential is refused in the same words. A proxy finds the answer in the headers too.
    """
    client_id, client_secret = basic_credentials(request.headers.get("Authorization", ""))
    try:
        verified = credential_service().verify(client_id=client_id, client_secret=client_secret)
    except VerificationRefused:
        failure_limit().count(request.remote_addr or "", client_id)
        raise Unauthenticated(CHALLENGE) from None
    return _answer(verified)


@blueprint.route("/verify", methods=["POST"])
@_document
@blueprint.doc(operationId="verifyByPost")
@blueprint.response(200, VerifiedCredentialSchema, headers=_HEADERS)
def verify_by_post() -> Response:
    """Verify a credential, for proxies that keep the method

    As GET; the body is not looked at.
    """
    return cast("Response", verify())


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


def _answer(verified: VerifiedCredential) -> Response:
    body = {
        "secret_id": verified.secret_id,
        "unit_id": verified.unit_id,
        "client_id": verified.client_id,
        "name": verified.name,
        "trust_upstream_consent": verified.trust_upstream_consent,
    }
    headers = {
        "X-LeadVibe-Secret-Id": verified.secret_id,
        "X-LeadVibe-Unit-Id": quote(verified.unit_id, safe=_HEADER_SAFE),
        "X-LeadVibe-Client-Id": verified.client_id,
        "X-LeadVibe-Trust-Upstream-Consent": "true" if verified.trust_upstream_consent else "false",
    }
    return Response(json.dumps(body) + "\n", headers=headers, mimetype="application/json")
