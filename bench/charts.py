"""`make charts`: write charts to docs/img and tables to docs/benchmarks.md, from var/bench.json."""

import json
import re
import statistics
import sys
from typing import Any

from bench.labels import KINDS
from bench.measures import Measure, Measures, Ratio
from bench.report import RESULT
from bench.servers import ROOT
from bench.svg import Bar, bar_chart
from bench.tables import tables

_PAGE = ROOT / "docs" / "benchmarks.md"
_IMAGES = ROOT / "docs" / "img"
_SIZES = {"1k": "1,000", "100k": "100,000", "1m": "1,000,000", "10m": "10,000,000"}

_LAST_RATIO = "list_10_vs_json_agg"  # of a whole run; a quick run does not have it

# Measures without a bar: pgbench is not a server, and invalid pairs are as fast as valid ones.
_ONLY_IN_TABLE = {"pgbench", "wrong", "unknown"}


def main() -> None:
    """Read the result of a whole run, and write the charts and the tables."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if _LAST_RATIO not in result:
        sys.exit("make charts: needs the result of a whole run. Run `make bench` first.")
    measures = {
        name: [Measure(**each) for each in summary["rounds"]]
        for name, summary in result["measures"].items()
    }
    (_IMAGES / "bench-rates.svg").write_text(_chart_of_rates(result["measures"]))
    (_IMAGES / "bench-sizes.svg").write_text(_chart_of_sizes(measures))
    page = _PAGE.read_text()
    for name, table in tables(result, measures).items():
        page = _with_table(page, name, table)
    _PAGE.write_text(page)
    print("Written: docs/benchmarks.md, docs/img/bench-rates.svg, docs/img/bench-sizes.svg.")


def _chart_of_rates(summaries: dict[str, Any]) -> str:
    bars = []
    for number, contenders in enumerate(KINDS.values()):
        for name, text in contenders.items():
            if name not in _ONLY_IN_TABLE and f"{name}@8" in summaries:
                rate = summaries[f"{name}@8"]["requests_per_second"]
                bars.append(Bar(text, rate, f"{rate:,.0f}", kind=number))
    bars.sort(key=lambda bar: -bar.value)
    subtitle = "One process, 8 connections, 100,000 credentials or keys. More is better."
    return bar_chart("Requests a second", subtitle, bars, list(KINDS))


def _chart_of_sizes(measures: Measures) -> str:
    bars = []
    for name, count in _SIZES.items():
        values = Ratio(f"verify_{name}@8", "verify_1k@8").values(measures)
        if values is not None:
            median = statistics.median(values)
            bars.append(
                Bar(
                    f"{count} credentials",
                    median,
                    f"{median:.2f}",
                    least=min(values),
                    most=max(values),
                )
            )
    subtitle = "Rate of /verify over its rate with 1,000 credentials: median and range of rounds."
    return bar_chart("Speed by number of credentials", subtitle, bars)


def _with_table(page: str, name: str, table: str) -> str:
    """Return the page with the table between its markers."""
    begin, end = f"<!-- table: {name}, made by make charts -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"make charts: docs/benchmarks.md has no place for the table {name}.")
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", page)


if __name__ == "__main__":
    main()
