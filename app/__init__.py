"""LeadVibe Credentials: issues and verifies the API credentials of the lead platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.api.http.application import Application
    from app.settings import Settings


def create_app(settings: Settings | None = None) -> Application:
    """Make the application, by default from environment variables. Raises SettingsError.

    Call `services.open()` after the process has forked. The web stack is imported here, because the
    command line needs none.
    """
    import logging.config

    from app import logs
    from app.api import health, leaks, secrets, verify
    from app.api.http import errors, hooks
    from app.api.http.application import Application
    from app.api.openapi import document
    from app.api.verify_middleware import VerifyMiddleware
    from app.docs.views import docs_blueprint
    from app.services import Services
    from app.settings import Settings

    settings = settings or Settings.from_environment()
    logging.config.dictConfig(logs.configuration(settings.log_level))

    app = Application(Services.from_settings(settings), settings.trusted_proxies)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False

    api = document.init_app(app)
    api.register_blueprint(secrets.blueprint)
    api.register_blueprint(verify.blueprint)
    if settings.leak_reports != "off":
        api.register_blueprint(leaks.blueprint)
    api.register_blueprint(health.blueprint)
    app.register_blueprint(docs_blueprint(api.spec, settings))

    hooks.init_app(app)
    errors.init_app(app)
    wsgi_app = VerifyMiddleware(app.wsgi_app, app.services)
    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # Flask's idiom
    return app
