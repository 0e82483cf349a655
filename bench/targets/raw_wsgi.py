"""A verification without a framework: the same SELECT and the same HMAC, and little else.

It has no limits, no log and no deadlines, and accepts only one DIGEST_KEY.
"""

import hashlib
import hmac
import json
import os
from base64 import b64decode

from bench.targets.pool import pool_from_environment
from bench.targets.statements import STORED_SECRETS

_KEY = b64decode(os.environ["DIGEST_KEY"])
_KEY_ID_LENGTH = 8
_DIGEST_COLUMN = 7


class _Verification:
    services = pool_from_environment()

    def __call__(self, environ, start_response):
        client_id, client_secret = _pair(environ["HTTP_AUTHORIZATION"])
        with self.services.connection() as connection:
            row = connection.execute(STORED_SECRETS, {"client_id": client_id}).fetchone()
        digest = hmac.digest(_KEY, client_secret.encode(), hashlib.sha256)
        valid = row is not None and hmac.compare_digest(
            row[_DIGEST_COLUMN][_KEY_ID_LENGTH:], digest
        )
        body = json.dumps({"secret_id": row[0]} if valid else {}).encode()
        start_response(
            "200 OK" if valid else "401 Unauthorized",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]


def _pair(authorization: str) -> tuple[str, str]:
    client_id, _, client_secret = b64decode(authorization[len("Basic ") :]).decode().partition(":")
    return client_id, client_secret


app = _Verification()
