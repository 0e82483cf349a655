"""A bare Flask view with the SELECT of a verification: the baseline of `make bench`.

It checks nothing: the client ID comes in its own header, and no secret is compared.
"""

from flask import Flask, request

from bench.targets.pool import pool_from_environment
from bench.targets.statements import STORED_SECRETS

app = Flask(__name__)
app.services = pool_from_environment()


@app.get("/verify")
def verify() -> dict[str, str]:
    """Return the secret_id of the client ID."""
    client_id = request.headers["X-Client-Id"]
    with app.services.connection() as connection:
        row = connection.execute(STORED_SECRETS, {"client_id": client_id}).fetchone()
    return {"secret_id": row[0]}
