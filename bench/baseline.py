"""The baseline of `make bench`: a bare Flask view with the same SELECT through the same pool.

Run it with `gunicorn bench.baseline:app`, under the service's own settings and gunicorn.conf.py.
"""

from flask import Flask, request
from psycopg_pool import ConnectionPool

from app.settings import Settings

# The statement and the pool are copies, so that a change of the service does not move the baseline.
_SELECT = """
    SELECT secret_id, unit_id, client_id, name, trust_upstream_consent,
           client_secret_id, secret_hash, digest,
           coalesce(last_used_at < now() - interval '1 minute', true) AS is_use_unrecorded
    FROM credentials JOIN client_secrets USING (secret_id)
    WHERE client_id = %(client_id)s AND (expires_at IS NULL OR expires_at > now())
"""


class _Pool:
    """The pool, opened after the fork by the hook in gunicorn.conf.py."""

    def __init__(self, settings: Settings) -> None:
        size = settings.threads + 1
        self._pool = ConnectionPool(
            settings.database_url,
            kwargs={"autocommit": True},
            min_size=size,
            max_size=size,
            open=False,
        )
        self.open = self._pool.open
        self.close = self._pool.close
        self.connection = self._pool.connection


app = Flask(__name__)
pool = _Pool(Settings.from_environment())
app.services = pool


@app.get("/verify")
def verify() -> dict[str, str]:
    client_id = request.headers["X-Client-Id"]
    with pool.connection() as connection:
        row = connection.execute(_SELECT, {"client_id": client_id}).fetchone()
    return {"secret_id": row[0]}
