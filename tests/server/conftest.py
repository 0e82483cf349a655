"""Run the tests in this directory with each of the service's workers."""

from collections.abc import Iterator

import pytest

from app.settings import WORKER_CLASSES, Settings
from tests.conftest import environment
from tests.running_server import Server, running_server


@pytest.fixture(scope="session", params=WORKER_CLASSES)
def _server(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Server]:
    with running_server(environment(settings, worker_class=request.param)) as server:
        yield server
