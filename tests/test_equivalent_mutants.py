"""The mutants that no test can notice: each is still a change to a line of today's code."""

import tomllib

from tests.running_server import ROOT

LIST = ROOT / "tools" / "mutation" / "equivalent.toml"


def test_every_equivalent_mutant_changes_a_line_that_exists():
    gone = [
        f"{name}: {entry['line']}"
        for name, entries in tomllib.loads(LIST.read_text()).items()
        for entry in entries
        if f" {entry['line']} " not in source(name)
    ]
    assert not gone, "\n".join([f"In {LIST.name}, change or delete what is gone:", *gone])


def source(name):
    """Return the file with single spaces, as the list quotes it, or nothing if it is gone."""
    path = ROOT / name
    return f" {' '.join(path.read_text().split())} " if path.is_file() else ""
