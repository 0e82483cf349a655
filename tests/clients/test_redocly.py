import pytest

from tests.running_server import ROOT

pytestmark = pytest.mark.long


def test_the_document_follows_the_rules_of_redocly(node_tool, address, run):
    run(
        node_tool("redocly"),
        "lint",
        f"{address}/openapi.json",
        cwd=ROOT,
        REDOCLY_SUPPRESS_UPDATE_NOTICE="true",
    )
