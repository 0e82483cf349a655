"""The programs of `make tools`: real proxies, and the linters of deploy/."""

from tests.helpers import require
from tests.running_server import ROOT


def tool(name: str) -> str:
    """Return the path of a program. Skip the test if it is missing; with CI set, fail instead."""
    program = ROOT / "var" / "tools" / "bin" / name
    require(program, install="make tools")
    return str(program)
