"""Schemathesis sends what the document allows, what it forbids, and long sequences."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import caller
from tests.running_server import HANG_SECONDS, ROOT

pytestmark = pytest.mark.long

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def test_the_service_does_what_the_document_says(server, service, issuer, tmp_path):
    issued = service.issue(caller(), name="x")
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(
        f"{CONFIGURATION.read_text()}\n"
        "[auth.openapi]\n"
        f"bearerAuth = {{ bearer = {json.dumps(issuer.sign())} }}\n"
        f"basicAuth = {{ username = {json.dumps(issued.client_id)}, "
        f"password = {json.dumps(issued.client_secret)} }}\n"
    )
    run = subprocess.run(
        [
            SCHEMATHESIS,
            f"--config-file={configuration}",
            "--no-color",
            "run",
            f"http://127.0.0.1:{server.port}/openapi.json",
            f"--url=http://127.0.0.1:{server.port}",  # it does not resolve a relative server
            "--max-examples=20",
            f"--request-timeout={HANG_SECONDS}",
            "--generation-database=:memory:",
            "--seed=1",  # the same requests for the same document
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.contract.hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in run.stdout
