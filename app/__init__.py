"""LeadVibe Credentials: issues and verifies the API credentials of the lead platform."""

import logging.config
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from app import logs
from app.api import health, secrets, verify
from app.api.http import errors, hooks
from app.api.http.application import Application
from app.api.openapi import document
from app.api.verify_middleware import VerifyMiddleware
from app.docs.views import docs_blueprint
from app.services import Services
from app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def create_app(settings: Settings | None = None) -> Application:
    """Make the application, by default from environment variables. Raises SettingsError.

    Call `services.open()` after the process has forked.
    """
    settings = settings or Settings.from_environment()
    logging.config.dictConfig(logs.configuration(settings.log_level))

    app = Application(Services.from_settings(settings))
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False

    api = document.init_app(app)
    api.register_blueprint(secrets.blueprint)
    api.register_blueprint(verify.blueprint)
    api.register_blueprint(health.blueprint)
    app.register_blueprint(docs_blueprint(api.spec))

    hooks.init_app(app)
    errors.init_app(app)
    wsgi_app: WSGIApplication = VerifyMiddleware(app.wsgi_app, app.services)
    if settings.trusted_proxies:
        wsgi_app = ProxyFix(wsgi_app, x_for=settings.trusted_proxies, x_proto=0, x_host=0)
    app.wsgi_app = wsgi_app  # type: ignore[assignment,method-assign]  # Flask's idiom
    return app
