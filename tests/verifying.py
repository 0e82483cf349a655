"""Which client secrets work, read from what is stored."""

from app.credentials.hashing import Hasher
from tests.conftest import DIGEST_KEY, Rows


def works(rows: Rows, client_secret: str) -> bool:
    """Tell whether some credential has the secret, live."""
    digest = Hasher(10, DIGEST_KEY).digest(client_secret)
    query = """
        SELECT 1 FROM client_secrets
        WHERE digest = %(digest)s AND (expires_at IS NULL OR expires_at > clock_timestamp())
    """
    return bool(rows(query, digest=digest))
