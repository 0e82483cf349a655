"""The tables in docs/benchmarks.md, from the result of a run."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.labels import VERIFIERS, figure, label
from bench.measures import Measures
from bench.peers import PEERS
from bench.ratios import RATIOS

_MACHINE = {
    "run": "extent",
    "cpu": "CPU",
    "load_before": "load average before",
    "python": "Python",
    "postgres": "Postgres",
    "flask": "Flask",
    "node": "Node.js",
}

Summaries = dict[str, dict[str, Any]]


def tables(result: dict[str, Any], measures: Measures) -> dict[str, str]:
    """Return each table by the name of its markers in the page."""
    summaries = result["measures"]
    return {
        "machine": _machine(result["machine"]),
        "peers": _peers(),
        "verification": _verification(summaries),
        "processes": _simple(summaries, [name for name in summaries if "_processes@" in name]),
        "management": _simple(
            summaries,
            [name for name in summaries if name.startswith(("issue", "bcrypt", "list_", "json_"))],
        ),
        "ratios": _ratios(measures),
    }


def _machine(machine: dict[str, Any]) -> str:
    rows = [(_MACHINE.get(name, name), text) for name, text in machine.items()]
    return _table(["", ""], rows)


def _verification(summaries: Summaries) -> str:
    rows = [
        [text, *_rates(name, summaries), *_costs(f"{name}@8", summaries)]
        for name, text in VERIFIERS.items()
        if f"{name}@8" in summaries
    ]
    return _table(
        [
            "", "1 connection", "8", "64", "p50 ms at 8", "p99 ms at 8", "p99 ms at 64",
            "CPU s per 1,000", "MiB a worker", "start-up s",
        ],
        rows,
    )  # fmt: skip


def _rates(name: str, summaries: Summaries) -> list[str]:
    return [
        figure(summaries.get(f"{name}@{count}", {}).get("requests_per_second"))
        for count in (1, 8, 64)
    ]


def _costs(measure: str, summaries: Summaries) -> list[str]:
    at_8 = summaries[measure]
    at_64 = summaries.get(measure.replace("@8", "@64"), {})
    return [
        figure(at_8.get("p50_ms")),
        figure(at_8.get("p99_ms")),
        figure(at_64.get("p99_ms")),
        figure(at_8.get("cpu_seconds_per_1000")),
        figure(at_8.get("memory_mib_per_worker")),
        figure(at_8.get("start_up_seconds")),
    ]


def _simple(summaries: Summaries, names: Iterable[str]) -> str:
    rows = [
        [
            label(name),
            figure(summaries[name]["requests_per_second"]),
            figure(summaries[name]["p99_ms"]),
            figure(summaries[name]["cpu_seconds_per_1000"]),
        ]
        for name in names
    ]
    return _table(["", "a second", "p99 ms", "CPU s per 1,000"], rows)


def _ratios(measures: Measures) -> str:
    rows = []
    for name, ratio in RATIOS.items():
        values = ratio.values(measures)
        if values is not None:
            attribute = "p99 of " if ratio.attribute == "p99_ms" else ""
            rows.append(
                [
                    f"`{name}`",
                    f"{statistics.median(values):.2f}",
                    f"{min(values):.2f} to {max(values):.2f}",
                    f"{attribute}{label(ratio.of)}",
                    f"{attribute}{label(ratio.over)}",
                ]
            )
    return _table(["ratio", "median", "range", "of", "over"], rows)


def _peers() -> str:
    rows = []
    for peer in PEERS:
        versions = ", ".join(f"{name} {version}" for name, version in peer.versions().items())
        rows.append([f"{peer.title} ({versions})", peer.does, peer.does_not])
    return _table(["peer", "does", "does not"], rows)


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
