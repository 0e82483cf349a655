"""Endpoints for operators: liveness, readiness and metrics."""

import logging
from dataclasses import asdict, dataclass

from flask import Response

from app.api.http import problems
from app.api.http.application import current_app, request
from app.api.http.input import Blueprint
from app.api.http.problems import HTTPProblem
from app.api.openapi import examples
from app.api.openapi.components import problem_response
from app.api.schemas.health import HealthSchema
from app.bulkheads import BulkheadFull
from app.database.connection import require_utf8
from app.database.errors import UnsuitableDatabase
from app.database.schema import is_migrated
from app.metrics.series import CONTENT_TYPE

_logger = logging.getLogger(__name__)

_NOT_READY = problem_response(
    unavailable=problems.UNAVAILABLE,
    not_migrated=problems.NOT_READY,
    unsuitable=problems.unsuitable_database(
        "The encoding of the database is LATIN1, and must be UTF8"
    ),
)


@dataclass(frozen=True, slots=True)
class Health:
    """The result of a check that has succeeded."""

    status: str = "ok"


_OK = Health()

blueprint = Blueprint("Operations", __name__, description="For platform engineers.")


@blueprint.route("/healthz")
@blueprint.doc(operationId="getHealth", security=[])
@blueprint.response(200, HealthSchema, example=asdict(_OK))
def healthz() -> Health:
    """Check that the process is alive

    Checks nothing else, so it stays 200 while the database is down. Use it as a liveness probe.
    """
    return _OK


@blueprint.route("/readyz")
@blueprint.doc(operationId="getReadiness", security=[], responses={503: _NOT_READY})
@blueprint.response(200, HealthSchema, example=asdict(_OK))
def readyz() -> Health:
    """Check that the service is ready

    200 if the database responds and has the schema that this version needs. Use it as a readiness
    probe. A read-only database counts as ready, because verification works on it.
    """
    services = current_app.services
    services.database.raise_if_down()
    try:
        with services.database.connection_for(services.bulkheads.verification) as connection:
            require_utf8(connection)
            if not is_migrated(connection):
                _log_reason(problems.NOT_READY.detail)
                raise HTTPProblem(problems.NOT_READY)
    except BulkheadFull:
        pass  # busy is ready: its callers would only make the other instances busier
    except UnsuitableDatabase as error:
        _log_reason(str(error))
        raise
    return _OK


def _log_reason(reason: str) -> None:
    _logger.warning("not ready", extra={"fields": {"request_id": request.id, "reason": reason}})


@blueprint.route("/metrics")
@blueprint.doc(operationId="getMetrics", security=[])
@blueprint.response(200, {"type": "string"}, content_type="text/plain", example=examples.METRICS)
def metrics() -> Response:
    """Get the metrics

    All metrics of the service in Prometheus' text format, over all of its processes. They are for
    operators: do not let the proxy expose this path to the outside.
    """
    return Response(current_app.services.metrics.text(), content_type=CONTENT_TYPE)
