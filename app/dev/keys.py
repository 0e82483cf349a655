"""Keys and tokens for development. Only a service with the same keys directory accepts them."""

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.identifiers import IDENTIFIER_RULE, is_identifier
from app.identity.claim_paths import ClaimPath, ClaimPaths
from app.settings import Settings

ISSUER = "https://issuer.localhost"
AUDIENCE = "leadvibe-credentials"
UNIT = "unit_demo"
CLAIMS = ClaimPaths(
    unit=ClaimPath(("unit_id",)), units=ClaimPath(("unit_ids",)), role=ClaimPath(("role",))
)
ROLE = "manager"

_TOKEN_SECONDS = 12 * 60 * 60

_PRIVATE_KEY, _PUBLIC_KEY, _DIGEST_KEY = "private.pem", "public.pem", "digest.key"


class InvalidUnit(Exception):
    """UNIT cannot be an Organizational Unit. The message says why, in one line."""


@dataclass(frozen=True, slots=True)
class DevelopmentKeys:
    """The key pair of tokens, and the DIGEST_KEY in base64."""

    private_key: bytes
    public_key_file: Path
    digest_key: str

    def sign(
        self,
        *,
        unit_id: str,
        issuer: str = ISSUER,
        audience: str = AUDIENCE,
        claims: ClaimPaths = CLAIMS,
        role: str = ROLE,
    ) -> str:
        """Return a token for the subject `developer` in the unit, valid for twelve hours."""
        now = int(time())
        payload: dict[str, Any] = {
            "iss": issuer,
            "aud": audience,
            "sub": "developer",
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
        }
        _set_claim(payload, claims.unit, unit_id)
        if claims.role is not None:
            _set_claim(payload, claims.role, role)
        return jwt.encode(payload, self.private_key, algorithm="EdDSA")


def development_keys(directory: Path) -> DevelopmentKeys:
    """Return the keys in the directory, after making those that are missing."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    private_key = _read_or_write(directory / _PRIVATE_KEY, _new_private_key())
    public_key = load_pem_private_key(private_key, password=None).public_key()
    public_key_file = directory / _PUBLIC_KEY
    _read_or_write(
        public_key_file, public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    digest_key = _read_or_write(directory / _DIGEST_KEY, base64.b64encode(secrets.token_bytes(32)))
    return DevelopmentKeys(private_key, public_key_file, digest_key.decode())


def unit_from_environment() -> str:
    """Return the unit that UNIT names. Raises InvalidUnit."""
    unit_id = os.environ.get("UNIT", UNIT)
    if not is_identifier(unit_id):
        raise InvalidUnit(f"UNIT: Must be {IDENTIFIER_RULE}.")
    return unit_id


def development_token(settings: Settings, *, unit_id: str) -> str | None:
    """Return a token that the service accepts, or None if it does not use the development keys."""
    public_key_file = settings.jwt_keys
    if not isinstance(public_key_file, Path) or public_key_file.name != _PUBLIC_KEY:
        return None
    directory = public_key_file.parent
    if not ((directory / _PRIVATE_KEY).exists() and (directory / _DIGEST_KEY).exists()):
        return None
    return development_keys(directory).sign(
        unit_id=unit_id,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        claims=settings.jwt_claims,
        role=min(settings.jwt_manager_roles, default=ROLE),
    )


def _set_claim(payload: dict[str, Any], path: ClaimPath, value: str) -> None:
    *parents, name = path.names
    for parent in parents:
        payload = payload.setdefault(parent, {})
    payload[name] = value


def _new_private_key() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_or_write(path: Path, content: bytes) -> bytes:
    """Return the file's content. If there is no file yet, write it, readable only by its owner.

    A hard link appears with its whole content or not at all, so two processes agree on one key.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass  # another process was first
        finally:
            draft.unlink()
    return path.read_bytes()
