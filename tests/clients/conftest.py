"""Tools of others that read the document of the running service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server import ROOT


@pytest.fixture
def address(server):
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a program, in a directory of its own unless told otherwise."""

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
def node_tools() -> Path:
    """Where the programs of package.json are."""
    if shutil.which("npm") is None and "CI" not in os.environ:
        pytest.skip("npm is not installed (apt-get install npm)")
    return ROOT / "node_modules" / ".bin"
