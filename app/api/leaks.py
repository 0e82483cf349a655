"""`/leaks`: anybody who has found a client secret can end it. Possession is the proof."""

from typing import Any

from flask import Response
from marshmallow import ValidationError

from app.api.http.application import current_app, request
from app.api.http.bodies import parse_json, require_plain_json
from app.api.http.input import Blueprint
from app.api.http.problems import HTTPProblem, InputError, invalid_input
from app.api.openapi import examples
from app.api.openapi.components import problem_response
from app.api.schemas.leaks import LeakReportSchema, ScannerFindingSchema
from app.credentials.model import Caller, LeakReport

_ACTOR = "leak-report"
_MAX_REPORTS = 100
_INVALID_REPORT = "The leak report is not valid"

_REPORT = LeakReportSchema()
_FINDING = ScannerFindingSchema()

_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    LeakReportSchema,
                    *(
                        {
                            "type": "array",
                            "items": each,
                            "minItems": 1,
                            "maxItems": _MAX_REPORTS,
                        }
                        for each in (LeakReportSchema, ScannerFindingSchema)
                    ),
                ]
            },
            "example": examples.LEAK_REPORT,
        }
    },
}

blueprint = Blueprint(
    "Leaks",
    __name__,
    description="For secret scanners, and for anybody who has found a client secret.",
    max_body_bytes=64 * 1024,
)


@blueprint.route("/leaks", methods=["POST"])
@blueprint.doc(
    operationId="reportLeaks",
    security=[],
    requestBody=_BODY,
    responses={
        400: problem_response(
            invalid=invalid_input(
                _INVALID_REPORT,
                [InputError("/client_secret", "Missing data for required field")],
            )
        ),
        413: "ContentTooLarge",
        415: "UnsupportedMediaType",
        429: "TooManyReports",
        503: "ServiceUnavailable",
    },
)
@blueprint.response(202)
def report_leaks() -> Response:
    """Report leaked client secrets

    Tell the service that you have found client secrets where they should not be: one, or a list of
    at most 100. It takes no token, because whoever has a client secret could use it. The response
    never says whether a client secret is live. The operator has chosen whether live ones end at
    once, or are only recorded in the audit trail. Unknown members are ignored.
    """
    services, address = current_app.services, request.record.address
    # first, so that a flood costs the time of one caller
    request.exit_stack.enter_context(services.bulkheads.public.bulkhead)
    services.leaks.report(_reports(), _reporter, address=address, ends=services.ends_leaked)
    response = Response(status=202)
    del response.headers["Content-Type"]  # of nothing
    return response


def _reporter(unit_id: str) -> Caller:
    return Caller(
        actor=_ACTOR,
        unit_id=unit_id,
        request_id=request.id,
        via="leak_report",
        address=request.record.address,
    )


def _reports() -> list[LeakReport]:
    """Return the reports in the body. Raises HTTPProblem."""
    body = request.get_data()
    if body:
        require_plain_json(request)
    document: Any = parse_json(body) if body else {}
    if not isinstance(document, list):
        return [_report(document, "")]
    if not 1 <= len(document) <= _MAX_REPORTS:
        raise _invalid("", f"Must have 1-{_MAX_REPORTS} entries")
    return [_report(each, f"/{index}") for index, each in enumerate(document)]


def _report(entry: Any, pointer: str) -> LeakReport:
    if not isinstance(entry, dict):
        raise _invalid(pointer, "Must be an object")
    if "client_secret" in entry and "token" in entry:
        raise _invalid(f"{pointer}/token", "Must not be given together with client_secret")
    try:
        return LeakReport(**(_FINDING if "token" in entry else _REPORT).load(entry))
    except ValidationError as error:
        [(name, texts), *_] = error.messages_dict.items()
        raise _invalid(f"{pointer}/{name}", texts[0].rstrip(".")) from None


def _invalid(pointer: str, detail: str) -> HTTPProblem:
    return HTTPProblem(invalid_input(_INVALID_REPORT, [InputError(pointer, detail)]))
