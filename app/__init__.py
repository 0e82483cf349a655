"""LeadVibe Credentials: issues and checks the API credentials of the lead platform."""

import logging.config

from flask import Flask

from app import logs
from app.api import auth, documentation, errors, health, page, requests, secrets, verify
from app.credentials.hashing import Hasher
from app.credentials.service import CredentialService
from app.credentials.usage import UsageRecorder
from app.database.pool import Database
from app.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Make the service, by default from the environment. Raises SettingsError.

    Its database is closed: open `app.extensions["database"]` once the process has forked.
    """
    settings = settings or Settings.from_environment()
    logging.config.dictConfig(logs.configuration(settings.log_level))

    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it

    _make_credential_service(app, settings)
    requests.init_app(app)
    auth.init_app(app, settings)
    verify.init_app(app, settings)

    api = documentation.init_app(app)
    api.register_blueprint(secrets.blueprint)
    api.register_blueprint(verify.blueprint)
    api.register_blueprint(health.blueprint)
    app.register_blueprint(page.docs)
    errors.init_app(app)
    return app


def _make_credential_service(app: Flask, settings: Settings) -> None:
    # one connection for each thread, and one for the last uses that are written behind them
    database = Database(settings.database_url, connections=settings.threads + 1)
    hasher = Hasher(settings.bcrypt_rounds, settings.digest_key, threads=settings.threads)
    usage = UsageRecorder(database)
    app.extensions["database"] = database
    app.extensions["usage"] = usage
    app.extensions["credentials"] = CredentialService(database, hasher, usage)
