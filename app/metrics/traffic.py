"""What callers ask of a process, and what comes of it."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from app.credentials.errors import Refusal
from app.tallies import Durations, Tally

# Seconds. A verification takes about one millisecond; bcrypt makes an issue take 50 and more.
BUCKETS = (
    0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025,
    0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip

# The route, the method and the status. Each comes from a small set, whatever callers send.
RequestKind = tuple[str, str, int]

_Verdict = Literal["accepted", "limited", "unavailable", "failed"]
Outcome = Refusal | _Verdict
OUTCOMES: tuple[Outcome, ...] = (*get_args(_Verdict), *get_args(Refusal))


@dataclass(frozen=True, slots=True)
class Traffic:
    """All requests so far, and the outcomes of the verifications among them."""

    requests: Durations[RequestKind] = field(default_factory=lambda: Durations(BUCKETS))
    verifications: Tally[Outcome] = field(default_factory=Tally)
