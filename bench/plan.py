"""What a run measures: quick (`QUICK=1`), whole, or full (`FULL=1`), or two versions (`BEFORE`)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_QUICK = frozenset(
    f"{name}@{connections}"
    for name, connections in [
        ("verify", 8), ("scoped", 8), ("restricted", 8), ("wrong", 8), ("hello_stock", 8),
        ("flask_stock", 8), ("flask_our_worker", 8), ("raw_wsgi_our_worker", 8),
        ("verify", 64), ("flask_stock", 64), ("verify", 256), ("flask_stock", 256),
        ("verify_1k", 8), ("verify_1m", 8), ("list_1000", 8), ("json_agg_1000", 8),
    ]
)  # fmt: skip
_VERSIONS = frozenset(
    f"{contender}{version}@{connections}"
    for contender, connections in [
        ("verify", 8), ("wrong", 8), ("unknown", 8), ("verify", 64), ("wrong", 64),
        ("list_1000", 8),
    ]
    for version in ("", "_before")
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """The extent of a run."""

    name: str
    rounds: int
    seconds: int
    work_seconds: int  # for work that takes long: an issue, a hash
    connections: tuple[int, ...]
    sizes: dict[str, int]
    lists: tuple[int, ...]
    only: frozenset[str] | None = None  # names of measures; None stands for all
    before: Path | None = None  # a checkout of another version, to compare this one with

    @property
    def is_whole(self) -> bool:
        """Whether peers and several processes are measured too."""
        return self.only is None

    def includes(self, measure: str) -> bool:
        """Tell whether the run makes the measure."""
        return self.only is None or measure in self.only

    @classmethod
    def from_environment(cls) -> Self:
        """Read QUICK, FULL and BEFORE."""
        if before := os.environ.get("BEFORE"):
            return cls(
                name="versions",
                rounds=9,
                seconds=2,
                work_seconds=5,
                connections=(8, 64),
                sizes={},
                lists=(1_000,),
                only=_VERSIONS,
                before=Path(before).resolve(),
            )
        if os.environ.get("QUICK"):
            return cls(
                name="quick",
                rounds=5,
                seconds=1,
                work_seconds=2,
                connections=(8, 64, 256),
                sizes={"1k": 1_000, "1m": 1_000_000},
                lists=(1_000,),
                only=_QUICK,
            )
        is_full = bool(os.environ.get("FULL"))
        ten_million = {"10m": 10_000_000} if is_full else {}
        return cls(
            name="full" if is_full else "whole",
            rounds=5,
            seconds=2,
            work_seconds=5,
            connections=(1, 8, 64, 256),
            sizes={"1k": 1_000, "100k": 100_000, "1m": 1_000_000} | ten_million,
            lists=(10, 100, 1_000),
        )
