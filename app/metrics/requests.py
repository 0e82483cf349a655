"""The labels and buckets with which requests are counted."""

from typing import Literal, get_args

from app.credentials.errors import Refusal

# Seconds. A verification takes about one millisecond; bcrypt makes an issue take 50 and more.
BUCKETS = (
    0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025,
    0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip

_Verdict = Literal["accepted", "limited", "unavailable", "failed"]
Outcome = Refusal | _Verdict
OUTCOMES: tuple[Outcome, ...] = (*get_args(_Verdict), *get_args(Refusal))

# The route, the method, the status, and the outcome if it was a verification. Each comes from a
# small set, whatever callers send.
RequestKind = tuple[str, str, int, Outcome | None]
