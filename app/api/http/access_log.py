"""The record of each request: its log line, and its share of the metrics."""

import logging
from dataclasses import dataclass, field
from time import monotonic

from app.counters import Histogram
from app.logs import log_fields
from app.metrics.requests import Outcome, RequestKind

_logger = logging.getLogger(__name__)

_NO_ROUTE = "none"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OTHER_METHOD = "other"


@dataclass(slots=True, kw_only=True)
class AccessRecord:
    """What the log and the metrics record about a request, through either entrance.

    `route` is the pattern of the path, never the path itself, which may contain a secret. `address`
    is the client's, or None if it is unknown. `client_id` is the one to be verified. Only a
    verification has an `outcome`, and a `scope` if it was asked for one.
    """

    request_id: str
    method: str
    address: str | None
    route: str | None = None
    actor: str | None = None
    unit_id: str | None = None
    client_id: str | None = None
    outcome: Outcome | None = None
    scope: str | None = None
    started_at: float = field(default_factory=monotonic)

    def finish(
        self, status: int, durations: Histogram[RequestKind], lines: list[bytes] | None = None
    ) -> None:
        """Write the log line and count the request, once the response is known.

        If `lines` are given, the log line is added to them (see `log_fields`).
        """
        seconds = monotonic() - self.started_at
        method = self.method if self.method in _METHODS else _OTHER_METHOD
        durations.add((self.route or _NO_ROUTE, method, status, self.outcome), seconds)
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "address": self.address,
            "actor": self.actor,
            "unit": self.unit_id,
            "client_id": self.client_id,
        }
        if self.outcome is not None:
            fields["outcome"] = self.outcome
        if self.scope is not None:
            fields["scope"] = self.scope
        log_fields(_logger, "request", fields, lines)
