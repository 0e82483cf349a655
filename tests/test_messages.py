"""Every message that the service logs is explained in docs/operations.md."""

import ast
import re

from tests.running_server import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged_messages():
    """Return the message of each call of a logger, with an ellipsis for what differs."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (argument := message_of(node)) is not None:
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno} is not a literal"
                yield re.sub(r"(%s ?)+", "…", argument.value)


def message_of(call):
    if isinstance(call.func, ast.Name) and call.func.id == "log_fields":
        return call.args[1]
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LEVELS:
        return None
    is_logger = isinstance(call.func.value, ast.Name) and call.func.value.id == "_logger"
    return call.args[0] if is_logger else None


def explained_messages():
    table = PAGE[PAGE.index("| message |") :].partition("\n\n")[0]
    return [line.split("`")[1] for line in table.splitlines()[2:]]


def test_every_message_is_explained():
    assert len(explained_messages()) == len(set(explained_messages()))
    assert set(explained_messages()) == set(logged_messages())


def test_loggers_have_one_name():
    """Otherwise the test above misses their messages."""
    for path in (ROOT / "app").rglob("*.py"):
        names = re.findall(r"(\w+) = logging.getLogger\(__name__\)", path.read_text())
        assert set(names) <= {"_logger"}, path
