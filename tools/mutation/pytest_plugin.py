"""A pytest plugin for `make mutants`: record how long each test takes, or run chosen tests."""

import base64
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_seconds: dict[str, float] = defaultdict(float)
_failed: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--note", type=Path, help="write the seconds of each test that passed here")
    parser.addoption("--choose", type=Path, help="run the tests that this file lists, in its order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the chosen tests, and new ones that exist only because of the change to the file."""
    if config.option.choose:
        choice = json.loads(config.option.choose.read_text())
        order = {test: place for place, test in enumerate(choice["chosen"])}
        others = set(choice["known"]) - order.keys()
        items[:] = [item for item in items if item.nodeid not in others]
        items.sort(key=lambda item: order.get(item.nodeid, 0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let coverage attribute the lines of a test's child processes to the test."""
    measured = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if measured:
        settings = json.loads(base64.b64decode(measured))
        settings["context"] = f"{item.nodeid}|run"
        os.environ["COVERAGE_PROCESS_CONFIG"] = base64.b64encode(
            json.dumps(settings).encode()
        ).decode()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.option.note:
        passed = {test: time for test, time in _seconds.items() if test not in _failed}
        session.config.option.note.write_text(json.dumps(passed))
