"""The result of a run: a file, and tables on the terminal."""

import json
import statistics
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from bench.labels import figure
from bench.measures import Measures, Targets, median
from bench.peers import PEERS
from bench.ratios import RATIOS
from bench.servers import ROOT

RESULT = ROOT / "var" / "bench.json"

Servers = dict[str, dict[str, float]]


def server_facts(targets: Targets) -> Servers:
    """Return the memory and the start-up time of each target's server, after the load."""
    return {
        name: {
            "memory_mib_per_worker": round(target.server.memory_mib(), 1),
            "start_up_seconds": round(target.server.start_up_seconds, 2),
        }
        for name, target in targets.items()
        if target.server is not None
    }


def write_result(measures: Measures, servers: Servers, machine: dict[str, Any]) -> None:
    """Write the ratios by name, then the measures behind them and the machine."""
    result: dict[str, Any] = {
        name: round(statistics.median(values), 3)
        for name, ratio in RATIOS.items()
        if (values := ratio.values(measures)) is not None
    }
    result["cpu_seconds_per_1000"] = _rounded(median(measures["verify@8"], "cpu_seconds_per_1000"))
    result |= servers["verify@8"]
    result["measures"] = {name: _summary(name, measures, servers) for name in measures}
    result["machine"] = machine
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def print_report(measures: Measures, servers: Servers) -> None:
    """Print a table of the measures, one of the ratios, and what the peers do."""
    rows = [_row(name, _summary(name, measures, servers)) for name in measures]
    headers = [
        "medians of rounds", "a second", "p50 ms", "p99 ms", "CPU s per 1,000",
        "MiB a worker", "start s", "failed %",
    ]  # fmt: skip
    alignment = ["left"] + ["right"] * (len(headers) - 1)
    print(tabulate(rows, headers, disable_numparse=True, colalign=alignment), end="\n\n")
    ratios = [
        (name, statistics.median(values), min(values), max(values))
        for name, ratio in RATIOS.items()
        if (values := ratio.values(measures)) is not None
    ]
    print(tabulate(ratios, ["ratio", "median", "least", "most"], floatfmt=".2f"), end="\n\n")
    for peer in PEERS:
        if f"{peer.name}@8" in measures:
            print(f"{peer.title} {peer.does}. It does not {peer.does_not}.")
    print(f"Written to {RESULT.relative_to(ROOT)}.")


def _row(name: str, summary: dict[str, Any]) -> list[str]:
    return [
        name,
        figure(summary["requests_per_second"]),
        figure(summary["p50_ms"]),
        figure(summary["p99_ms"]),
        figure(summary["cpu_seconds_per_1000"]),
        figure(summary.get("memory_mib_per_worker")),
        figure(summary.get("start_up_seconds")),
        figure(summary["failed"] * 100 or None),
    ]


def _summary(name: str, measures: Measures, servers: Servers) -> dict[str, Any]:
    """Return the medians of a target, its server's memory and start-up time, and each round."""
    rounds = measures[name]
    return {
        **{
            attribute: _rounded(median(rounds, attribute))
            for attribute in ("requests_per_second", "p50_ms", "p99_ms", "cpu_seconds_per_1000")
        },
        "failed": _rounded(max(each.failed for each in rounds)),
        **servers.get(name, {}),
        "rounds": [
            {key: _rounded(figure) for key, figure in asdict(each).items()} for each in rounds
        ],
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else float(f"{figure:.4g}")
