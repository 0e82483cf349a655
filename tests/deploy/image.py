"""Build the Dockerfile without Docker: run its steps in directories of this machine.

This machine's /usr and Python, mounted read-only, stand in for the base image. A step cannot reach
any other file.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.running_server import ROOT

IMAGE = ROOT / "deploy" / "image"

_PATH = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/sbin:/usr/bin"
_SHARED = ("/etc", "/usr", sys.base_prefix)  # of this machine, read-only


@dataclass
class Stage:
    """A build stage: its filesystem and its settings, as its instructions have left them."""

    root: Path
    directory: str = "/"
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def start(self, *command, read_only=False, shared=(), **popen):
        """Start a command in the stage's filesystem, as its user and with its environment."""
        mounts = "\n".join(
            [
                f'mount --bind "{self.root}" "{self.root}"',
                f'mount --rbind /dev "{self.root}/dev"',
                f'mount -t tmpfs tmpfs "{self.root}/tmp"',  # noqa: S108  the stage's own
                *(self._share(path) for path in (*_SHARED, *shared)),
                *([f'mount -o remount,bind,ro "{self.root}"'] if read_only else []),
            ]
        )
        inside = f'cd "{self.directory}" && exec "$@"'
        script = f"""set -e
            {mounts}
            exec chroot --userspec={self.user} "{self.root}" sh -c '{inside}' sh "$@"
        """
        environment = popen.pop("env", {})
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", *command],
            env=self.environment | environment,
            **popen,
        )

    def run(self, *command, **options):
        """Run a command, and return its exit status and its output."""
        process = self.start(*command, stdout=-1, stderr=-2, text=True, **options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def _share(self, path):
        target = f"{self.root}{path}"
        make = "mkdir -p" if Path(path).is_dir() else "install -D /dev/null"
        return (
            f'{make} "{target}"; mount --bind "{path}" "{target}"; '
            f'mount -o remount,bind,ro "{target}"'
        )


def follow(dockerfile: Path, directory: Path) -> Stage:
    """Carry out the instructions, and return the last stage."""
    stages = {}
    stage = Stage(directory)
    for instruction, rest in instructions(dockerfile.read_text()):
        match instruction:
            case "FROM":
                name = rest.partition(" AS ")[2] or "last"
                stage = stages[name] = _new_stage(directory / name)
            case "WORKDIR":
                stage.directory = rest
                (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(rest, stage, stages)
            case "RUN":
                # pip's own settings say where this machine finds packages
                settings = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
                status, output = stage.run("sh", "-c", rest, env=settings)
                assert status == 0, output
            case _:
                _note(instruction, rest, stage)
    return stage


def _note(instruction: str, rest: str, stage: Stage) -> None:
    """Apply an instruction that changes the settings of later commands."""
    match instruction:
        case "ENV":
            for word in shlex.split(rest):
                name, _, value = word.partition("=")
                stage.environment[name] = value.replace("$PATH", stage.environment["PATH"])
        case "USER":
            stage.user = rest
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(rest.partition("CMD ")[2])
        case "CMD":
            stage.command = json.loads(rest)
        case _:
            assert instruction == "EXPOSE"


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest.strip()) for name, _, rest in (s.partition(" ") for s in joined.split("\n"))
    ]


def copied_files() -> set[str]:
    """Return the paths that the Dockerfile copies from the checkout."""
    copies = [rest for name, rest in instructions((IMAGE / "Dockerfile").read_text())
              if name == "COPY" and not rest.startswith("--from")]  # fmt: skip
    return {source.rstrip("/") for rest in copies for source in rest.split()[:-1]}


def _new_stage(root: Path) -> Stage:
    for each in ("dev", "tmp", "usr", "etc"):
        (root / each).mkdir(parents=True)
    for each in ("bin", "lib", "lib64", "sbin"):
        (root / each).symlink_to(f"usr/{each}")
    return Stage(root)


def _copy(rest: str, stage: Stage, stages: dict[str, Stage]) -> None:
    *sources, target = [word for word in rest.split() if not word.startswith("--")]
    origin = ROOT
    if rest.startswith("--from="):
        origin = stages[rest.split(maxsplit=1)[0].partition("=")[2]].root
    destination = stage.root / str(Path(stage.directory) / target).lstrip("/")
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(
                path, destination, symlinks=True, dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )  # fmt: skip
        else:
            into = target.endswith("/")
            (destination if into else destination.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, destination / path.name if into else destination)
