"""What `create_app` hangs into the application, with its type."""

from typing import cast

from flask import current_app

from app.api.limits import FailureLimit
from app.credentials.service import CredentialService
from app.database.pool import Database
from app.identity.tokens import TokenVerifier


def credential_service() -> CredentialService:
    return cast("CredentialService", current_app.extensions["credentials"])


def database() -> Database:
    return cast("Database", current_app.extensions["database"])


def failure_limit() -> FailureLimit:
    return cast("FailureLimit", current_app.extensions["failure_limit"])


def token_verifier() -> TokenVerifier:
    return cast("TokenVerifier", current_app.extensions["token_verifier"])
