"""The WSGI application, for gunicorn in this directory: `gunicorn wsgi:app`."""

from app import create_app
from app.server.adaptation import require_adapted_gunicorn

require_adapted_gunicorn()
app = create_app()
