"""What is in a worker's memory: the packages that are imported before the workers are forked."""

import subprocess
import sys

import pytest

from tests.conftest import environment
from tests.running_server import ROOT, clean_environment


@pytest.fixture
def variables(settings):
    return clean_environment() | environment(settings)


def preloaded(variables):
    """Return the modules that loading the application imports."""
    result = subprocess.run(
        [sys.executable, "-c", "import sys, wsgi; print(*sys.modules)"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.splitlines()[-1].split(" "))


def test_a_worker_holds_nothing_that_only_others_need(variables):
    """Migrations, the pages for people, and the fetches of a JWKS URL."""
    assert not preloaded(variables) & {"httpx", "markdown_it", "pygments", "yoyo"}


def test_workers_share_what_fetches_a_jwks_url(variables):
    del variables["JWT_PUBLIC_KEY_FILE"]
    variables["JWT_JWKS_URL"] = "http://127.0.0.1:1/jwks.json"
    assert "httpx" in preloaded(variables)
