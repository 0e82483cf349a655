"""docs/contract.md has everything that the OpenAPI document has, by name."""

import re

import pytest

from tests.running_server import ROOT

PAGE = (ROOT / "docs" / "contract.md").read_text()

# What the details of events contain is in the document only.
IN_DETAILS = {"all", "from", "to", "reapplied"}


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json


def names_within(node):
    """Yield the name of each property, parameter and header in the node."""
    if isinstance(node, list):
        for each in node:
            yield from names_within(each)
    elif isinstance(node, dict):
        yield from node.get("properties", {})
        yield from node.get("headers", {})
        if "in" in node and "name" in node:
            yield node["name"]
        yield from names_within([value for name, value in node.items() if name != "examples"])


def test_the_contract_names_every_operation(document):
    calls = re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            pattern = rf"\b{method.upper()}\b.* {re.escape(path)}`"
            assert any(re.search(pattern, call) for call in calls), (method, path)


def test_the_contract_names_every_field_parameter_and_header(document):
    del document["components"]["headers"]  # named again where they are used
    names = set(names_within(document))
    assert len(names) > 40
    assert names - IN_DETAILS <= set(re.findall(r"[\w-]+", PAGE))
