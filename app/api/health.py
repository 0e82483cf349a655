"""What an orchestrator asks: is the process alive, can it serve."""

from typing import Any

from werkzeug.exceptions import ServiceUnavailable

from app.api import examples
from app.api.blueprint import Blueprint
from app.api.errors import RETRY_AFTER_SECONDS
from app.api.schemas import HealthSchema
from app.api.wiring import database
from app.database.connection import takes_writes
from app.database.migrations import is_migrated

blueprint = Blueprint("Operations", __name__, description="For those who run the service.")


@blueprint.route("/healthz")
@blueprint.doc(operationId="getHealth", security=[])
@blueprint.response(200, HealthSchema, example=examples.STATUS)
def healthz() -> dict[str, Any]:
    """Tell whether the process serves

    Asks nothing of anyone, so it stays 200 while the database is away. Restart on it.
    """
    return {"status": "ok"}


@blueprint.route("/readyz")
@blueprint.doc(operationId="getReadiness", security=[], responses={503: "ServiceUnavailable"})
@blueprint.response(200, HealthSchema, example=examples.STATUS)
def readyz() -> dict[str, Any]:
    """Tell whether the service can do its work

    200 when the database answers, takes writes, and has the schema that this code needs. Route on
    it.
    """
    with database().connection() as connection:
        ready = takes_writes(connection) and is_migrated(connection)
    if not ready:
        raise ServiceUnavailable(
            "The database is read-only or not migrated", retry_after=RETRY_AFTER_SECONDS
        )
    return {"status": "ok"}
