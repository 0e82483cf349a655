"""Describe the machine and the versions of a run."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.peers import PEERS
from bench.plan import Plan
from bench.servers import ROOT

_PACKAGES = ("gunicorn", "flask", "psycopg", "bcrypt")


def describe_machine(plan: Plan, postgres: str) -> dict[str, Any]:
    """Return everything but the code that the figures of a run depend on."""
    return {
        "run": plan.name,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "load_before": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": postgres,
        **{package: version(package) for package in _PACKAGES},
        **_versions_of_peers(plan),
    }


def _versions_of_peers(plan: Plan) -> dict[str, str]:
    if not plan.is_whole:
        return {}
    found = {"node": _output("node", "--version").removeprefix("v")}
    for peer in PEERS:
        found |= peer.versions()
    return found


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.+)", text)
    return model[1] if model else platform.processor() or platform.machine()


def _output(*command: str) -> str:
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip()
