import pytest

from tests.running_server import ROOT

pytestmark = pytest.mark.long


def test_the_document_follows_the_rules_of_spectral(node_tool, address, run):
    run(
        node_tool("spectral"),
        "lint",
        f"{address}/openapi.json",
        "--ruleset=.spectral.yaml",
        "--fail-severity=hint",
        cwd=ROOT,
    )
