"""Look for known vulnerabilities in the locked packages.

`make audit` asks the package registries for advisories. It fails if it finds one, and also if a
registry does not offer advisories: no answer does not mean no vulnerability.
"""

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PIP_AUDIT = _ROOT / "var" / "tools" / "bin" / "pip-audit"
_LOCKS = ("production", "development")


def main() -> None:
    """Print a line for each finding, or for each lock that is clean."""
    found = [finding for lock in _LOCKS for finding in _of_python(lock)] + _of_node()
    for finding in found:
        print(finding)
    sys.exit(bool(found))


def _of_python(lock: str) -> list[str]:
    path = f"requirements/{lock}.txt"
    audited = _output(
        str(_PIP_AUDIT), "--format=json", "--progress-spinner=off", "--disable-pip",
        "--require-hashes", f"--requirement={path}",
    )  # fmt: skip
    if audited is None:
        return [f"{path}: not audited, because pip-audit got no answer."]
    skipped = [each for each in audited["dependencies"] if "skip_reason" in each]
    if skipped:
        total = len(audited["dependencies"])
        return [
            f"{path}: not audited. The registry has no advisories for {len(skipped)} of {total}."
        ]
    return [
        f"{path}: {each['name']} {each['version']} has {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version'}."
        for each in audited["dependencies"]
        for vulnerability in each["vulns"]
    ]


def _of_node() -> list[str]:
    audited = _output("npm", "audit", "--json", "--package-lock-only")
    if audited is None or "vulnerabilities" not in audited:
        return ["package-lock.json: not audited. The registry has no advisories."]
    return [
        f"package-lock.json: {name} has a vulnerability of severity {each['severity']}."
        for name, each in audited["vulnerabilities"].items()
    ]


def _output(*command: str) -> dict | None:
    """Return the JSON that a command prints, whatever its exit status."""
    printed = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False).stdout
    try:
        return json.loads(printed)
    except json.JSONDecodeError:
        return None


if __name__ == "__main__":
    main()
