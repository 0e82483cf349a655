"""The WSGI application of `make run`: the service, with a development token on its docs page."""

import re

from app import create_app
from app.api.http.application import request
from app.dev.keys import development_token, unit_from_environment
from app.settings import Settings

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?")
_OF_A_PROXY = re.compile(r"X-Forwarded-.*|X-Real-Ip|Forwarded|Via", re.IGNORECASE)

_settings = Settings.from_environment()
_unit_id = unit_from_environment()


def _token_for_this_machine() -> str | None:
    """Return a development token for a browser on this machine.

    Another Host may come from a website (DNS rebinding). A header of a proxy means that the browser
    may be elsewhere: a tunnel may rewrite the Host.
    """
    if not _LOOPBACK_HOST.fullmatch(request.headers.get("Host", "")):
        return None
    if any(_OF_A_PROXY.fullmatch(name) for name in request.headers.keys()):  # noqa: SIM118  pairs
        return None
    return development_token(_settings, unit_id=_unit_id)


app = create_app(_settings)
# on any other address, strangers could open the page and read the token
if _settings.host in _LOOPBACK:
    app.development_token = _token_for_this_machine
