"""`make bench-page`: write the tables in docs/benchmarks.md from var/bench.json."""

import json
import re
import sys

from bench.measures import Measure
from bench.report import RESULT
from bench.servers import ROOT
from bench.tables import tables

_PAGE = ROOT / "docs" / "benchmarks.md"

_LAST_RATIO = "list_10_vs_json_agg"  # of a whole run; a quick run does not have it


def main() -> None:
    """Read the result of a whole run, and write the tables."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if _LAST_RATIO not in result:
        sys.exit("make bench-page: needs the result of a whole run. Run `make bench` first.")
    measures = {
        name: [Measure(**each) for each in summary["rounds"]]
        for name, summary in result["measures"].items()
    }
    page = _PAGE.read_text()
    for name, table in tables(result, measures).items():
        page = _with_table(page, name, table)
    _PAGE.write_text(page)
    print("Written: docs/benchmarks.md.")


def _with_table(page: str, name: str, table: str) -> str:
    """Return the page with the table between its markers."""
    begin, end = f"<!-- table: {name}, made by make bench-page -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"make bench-page: docs/benchmarks.md has no place for the table {name}.")
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", page)


if __name__ == "__main__":
    main()
