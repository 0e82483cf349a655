import shutil
from pathlib import Path

from tests.clients.conftest import NODE_MODULES

SOURCE = Path(__file__).with_name("integrator.mts")


def test_a_generated_typescript_client_type_checks_and_supports_every_operation(
    node_tool, address, run, tmp_path, issuer
):
    run(node_tool("openapi-typescript"), f"{address}/openapi.json", "--output", "openapi.d.ts")
    shutil.copy(SOURCE, tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    run(node_tool("tsc"), "--strict", "--target", "es2022", "--module", "nodenext", SOURCE.name)
    run("node", SOURCE.with_suffix(".mjs").name, address, issuer.sign())
