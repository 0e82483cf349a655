"""The WSGI application of `make run`: the service, with a development token on its docs page."""

from functools import partial

from app import create_app
from app.dev.keys import development_token, unit_from_environment
from app.settings import Settings

_settings = Settings.from_environment()

app = create_app(_settings)
# on any other address, strangers could open the page and read the token
if _settings.host in {"127.0.0.1", "::1", "localhost"}:
    app.development_token = partial(development_token, _settings, unit_id=unit_from_environment())
