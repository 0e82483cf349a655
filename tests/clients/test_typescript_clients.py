import json
from pathlib import Path

import pytest

from tests.clients.conftest import NODE_MODULES

pytestmark = pytest.mark.long


@pytest.fixture
def project(tmp_path):
    """A project for Node.js, with what the generated clients need."""
    options = {"strict": True, "target": "es2022", "module": "nodenext", "skipLibCheck": True}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    (tmp_path / "package.json").write_text(json.dumps({"type": "module"}))
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    return tmp_path


def test_openapi_typescript_makes_types_for_this_version_and_later_ones(
    node_tool, project, address, run, integrate
):
    run(node_tool("openapi-typescript"), f"{address}/openapi.json", "--output", "openapi.ts")
    integrate_with_node(integrate, node_tool, "with_openapi_typescript.mts")


def test_hey_api_makes_a_client_for_this_version_and_later_ones(
    node_tool, project, address, run, integrate
):
    output = {"path": "hey_client", "module": {"extension": ".js"}}
    configuration = {"input": f"{address}/openapi.json", "output": output}
    (project / "openapi-ts.config.mjs").write_text(f"export default {json.dumps(configuration)};\n")
    run(node_tool("openapi-ts"), "--no-log-file")
    integrate_with_node(integrate, node_tool, "with_hey_api.mts")


def integrate_with_node(integrate, node_tool, name):
    integrate(name, check=[node_tool("tsc")], execute=("node", Path(name).with_suffix(".mjs")))
