"""Check that the lock files are up to date, and have wheels for every platform.

`make lock-check` needs the package registry. It changes nothing.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_BIN = Path(sys.executable).parent

# Each lock, and pip-compile's arguments for it, as `make lock` passes them.
_LOCKS = {
    "build": ["requirements/build.in"],
    "production": ["setup.cfg"],
    "run": ["--extra=run", "--constraint=requirements/production.txt", "setup.cfg"],
    "development": [
        "--extra=run",
        "--extra=dev",
        "--constraint=requirements/run.txt",
        "setup.cfg",
    ],
    "tools": ["requirements/tools.in"],
}

# The service must install from wheels alone on these: an image has no compiler.
_PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = {
    "Linux, x86-64": ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
    "Linux, ARM": ("manylinux_2_17_aarch64", "manylinux_2_28_aarch64"),
    "Alpine, x86-64": ("musllinux_1_1_x86_64", "musllinux_1_2_x86_64"),
    "macOS, ARM": ("macosx_11_0_arm64", "macosx_14_0_arm64"),
}


def main() -> None:
    """Print a line for each check, and fail if one failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for lock, sources in _LOCKS.items():
            failed += not _report(
                f"{lock}.txt is what pip-compile makes", _is_current(lock, sources, directory)
            )
        for name, platforms in _PLATFORMS.items():
            for python in _PYTHONS:
                failed += not _report(
                    f"production.txt has wheels for {name}, Python {python}",
                    _has_wheels(python, platforms, directory),
                )
    sys.exit(failed > 0)


def _is_current(lock: str, sources: list[str], directory: str) -> bool:
    path = _ROOT / "requirements" / f"{lock}.txt"
    copy = Path(directory) / path.name
    shutil.copy(path, copy)  # pip-compile keeps the versions that it finds
    command = [_BIN / "pip-compile", "--output-file", copy, *sources]
    compiled = subprocess.run(command, cwd=_ROOT, capture_output=True, check=False)
    return compiled.returncode == 0 and _without_comments(copy) == _without_comments(path)


def _has_wheels(python: str, platforms: tuple[str, ...], directory: str) -> bool:
    command = [
        _BIN / "python", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
        "--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python}",
        *(f"--platform={platform}" for platform in platforms), f"--target={directory}",
        "--requirement=requirements/production.txt",
    ]  # fmt: skip
    return subprocess.run(command, cwd=_ROOT, capture_output=True, check=False).returncode == 0


def _without_comments(lock: Path) -> list[str]:
    return [line for line in lock.read_text().splitlines() if not line.strip().startswith("#")]


def _report(what: str, good: bool) -> bool:  # noqa: FBT001  the verdict
    print("ok    " if good else "FAILED", what, flush=True)
    return good


if __name__ == "__main__":
    main()
