"""Bars: the limits that the contract promises, with the figures that were measured."""

import json
from dataclasses import dataclass
from pathlib import Path

# The promises of docs/contract.md, in every state of the database.
VERIFICATION_SECONDS = 1.5
ANSWER_SECONDS = 5  # for every other call
RETURN_SECONDS = 2  # from the database's return to the first good answer
HEALTH_MS = 100


@dataclass(frozen=True)
class Bar:
    """A figure that must not exceed its limit. Units: "ms", "s", "x quiet", or "" for a count.

    A figure is `noisy` if it is a slowest answer, which a single pause of a busy machine decides.
    """

    name: str
    value: float
    limit: float
    unit: str = ""
    note: str = ""
    noisy: bool = False

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit

    @property
    def is_close(self) -> bool:
        """Tell whether it was missed so narrowly that the machine's noise may be the cause."""
        return self.limit < self.value <= self.limit * (3 if self.noisy else 1.3)

    def text(self) -> str:
        """Return the figure as the table shows it."""
        note = f" ({self.note})" if self.note else ""
        if self.value == float("inf"):
            return f"never{note}"
        return f"{_number(self.value)}{_unit(self.unit)}{note}"

    def limit_text(self) -> str:
        """Return the bar as the table shows it."""
        return f"{self.name} ≤ {_number(self.limit)}{_unit(self.unit)}"


def write_bars(file: Path, results: dict[str, list[Bar]]) -> None:
    """Write each drill's figures to the file, as text and as numbers."""
    document = {
        name: {
            bar.name: {
                "value": None if bar.value == float("inf") else round(bar.value, 4),
                "limit": bar.limit,
                "unit": bar.unit,
                "text": bar.text(),
                "ok": bar.is_met,
            }
            for bar in bars
        }
        for name, bars in results.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def times_quiet(name: str, quiet: float, loaded: float, limit: float = 3) -> Bar:
    """Compare a time in seconds with the same time when nothing else happens."""
    note = f"{quiet * 1000:,.1f} → {loaded * 1000:,.1f} ms"
    return Bar(name, loaded / quiet, limit, "x quiet", note)


def p99_times_quiet(name: str, quiet: float, loaded: float) -> Bar:
    """Compare 99th percentiles in seconds: at most three times the quiet one.

    A quiet one below 7 ms counts as 7 ms: two cores also run the callers and Postgres, so smaller
    differences are the scheduler's.
    """
    note = f"{quiet * 1000:,.1f} → {loaded * 1000:,.1f} ms"
    return Bar(name, loaded / max(quiet, 0.007), 3, "x quiet", note)


def within_ms(name: str, seconds: float, limit: float, *, noisy: bool = False) -> Bar:
    """Compare a time in seconds with a limit in milliseconds."""
    return Bar(name, seconds * 1000, limit, "ms", noisy=noisy)


def within(name: str, seconds: float, limit: float) -> Bar:
    """Compare a time in seconds with a limit in seconds."""
    return Bar(name, seconds, limit, "s")


def none_of(name: str, count: int, of: int | None = None) -> Bar:
    """Require that something never happens."""
    return Bar(name, count, 0, note="" if of is None else f"of {of:,}")


def _number(value: float) -> str:
    decimals = 0 if value == int(value) or value >= 100 else 2 if value < 10 else 1
    return f"{value:,.{decimals}f}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
