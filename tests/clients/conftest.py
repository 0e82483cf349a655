"""Run third-party tools that read the OpenAPI document of the running service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.growth import later_version
from tests.helpers import require
from tests.nginx import under_prefix
from tests.running_server import ROOT

NODE_MODULES = ROOT / "node_modules"
_INTEGRATORS = Path(__file__).with_name("integrators")


@pytest.fixture
def address(server):
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a program, by default in a temporary directory."""

    def run(*command, cwd=tmp_path, **environment):
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        process = subprocess.run(
            command,
            cwd=cwd,
            env=kept | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stdout

    return run


@pytest.fixture
def integrate(server, address, run, tmp_path, issuer):
    """Return a function that tries a program that uses a generated client.

    It checks the program's types, then runs it with the service as it is, with the service under
    a path prefix, and with a later version of it.
    """

    def integrate(name, *, check, execute):
        shutil.copy(_INTEGRATORS / name, tmp_path)
        run(*check)
        with (
            under_prefix(server.port, tmp_path) as prefixed_address,
            later_version(server) as later_address,
        ):
            for each in (address, prefixed_address, later_address):
                run(*execute, each, issuer.sign())

    return integrate


@pytest.fixture
def node_tool():
    """Return a function that finds a program of package.json, or skips the test."""

    def node_tool(name):
        tool = NODE_MODULES / ".bin" / name
        require(tool, install="apt-get install npm && make node_modules/.ready")
        return tool

    return node_tool
