"""Measure the docs page with Lighthouse, on a phone and on a desktop computer.

`make lighthouse` prints a line for each page and device, and fails if a score is below its goal.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.make_run import running
from tests.running_server import ROOT, free_port

_TOOL = ROOT / "tools" / "lighthouse" / "node_modules" / ".bin" / "lighthouse"
_CHROMIUM = "/usr/bin/chromium"
_FLAGS = "--headless --no-sandbox --disable-gpu"
_GOALS = {"performance": 97, "accessibility": 100, "best-practices": 100, "seo": 100}
_TIMES = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time")


def main() -> None:
    """Print the scores of each page on each device."""
    missed = []
    with tempfile.TemporaryDirectory(prefix="lv-lighthouse-") as directory:
        port = str(free_port())
        with running(Path(directory) / "var", PORT=port):
            for path in ("/docs", "/docs/errors"):
                for device in ("mobile", "desktop"):
                    report = _measure(f"http://127.0.0.1:{port}{path}", device)
                    scores = {name: _score(report, name) for name in _GOALS}
                    times = [report["audits"][name]["displayValue"] for name in _TIMES]
                    print(path, device, *(f"{name} {score}" for name, score in scores.items()))
                    print(" ", ", ".join(f"{n} {t}" for n, t in zip(_TIMES, times, strict=True)))
                    missed += [name for name, goal in _GOALS.items() if scores[name] < goal]
    if missed:
        sys.exit(f"below the goal: {', '.join(missed)}")


def _measure(url: str, device: str) -> dict[str, dict[str, dict[str, float]]]:
    command = [_TOOL, url, "--quiet", "--output=json", f"--chrome-flags={_FLAGS}"]
    if device == "desktop":
        command.append("--preset=desktop")
    environment = os.environ | {"CHROME_PATH": _CHROMIUM}
    report: dict[str, dict[str, dict[str, float]]] = json.loads(
        subprocess.check_output(command, env=environment, timeout=120)
    )
    return report


def _score(report: dict[str, dict[str, dict[str, float]]], category: str) -> int:
    return round(report["categories"][category]["score"] * 100)


if __name__ == "__main__":
    main()
