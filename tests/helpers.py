"""What several tests do, in one word each."""

from base64 import b64encode

from app.credentials.hashing import Hasher
from app.credentials.model import Caller
from tests.conftest import DIGEST_KEY, Rows


def caller(unit_id: str = "unit_demo", *, actor: str = "ada", request_id: str = "req") -> Caller:
    return Caller(actor=actor, unit_id=unit_id, request_id=request_id)


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    """Return the Authorization header of the pair."""
    pair = f"{client_id}:{client_secret}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}


def typo_of(client_secret: str) -> str:
    """Return the client secret with another last character, so that its checksum is wrong."""
    return client_secret[:-1] + ("1" if client_secret[-1] == "0" else "0")


def is_live(rows: Rows, client_secret: str) -> bool:
    """Tell from what is stored whether the client secret is some credential's, and live."""
    digest = Hasher(10, DIGEST_KEY).digest(client_secret)
    query = """
        SELECT 1 FROM client_secrets
        WHERE digest = %(digest)s AND (expires_at IS NULL OR expires_at > clock_timestamp())
    """
    return bool(rows(query, digest=digest))
