"""A Django site with one view, which checks the API key of a request."""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            "HOST": os.environ["PGHOST"],
            "CONN_MAX_AGE": None,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["rest_framework_api_key"],
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="benchmark",
    USE_TZ=True,
)
django.setup()

from rest_framework_api_key.permissions import HasAPIKey  # noqa: E402  needs the settings


def check(request: HttpRequest) -> JsonResponse:
    """Answer 200 if the key is valid, and 401 otherwise."""
    valid = HasAPIKey().has_permission(request, None)
    return JsonResponse({"valid": valid}, status=200 if valid else 401)


urlpatterns = [path("check", check)]
application = get_wsgi_application()
