"""A bare Flask view that sends a list of credentials as Postgres' json_agg makes it."""

from flask import Flask, Response, request

from bench.targets.pool import pool_from_environment
from bench.targets.statements import LISTED_CREDENTIALS

app = Flask(__name__)
app.services = pool_from_environment()


@app.get("/list")
def show_list() -> Response:
    """Return the credentials of the unit."""
    unit_id = request.headers["X-Unit-Id"]
    with app.services.connection() as connection:
        row = connection.execute(LISTED_CREDENTIALS, {"unit_id": unit_id}).fetchone()
    return Response(row[0], mimetype="application/json")
