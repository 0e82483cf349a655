"""The log line of a request."""

import logging
from dataclasses import dataclass, field
from time import perf_counter

from app.logs import log_fields

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What the log says about a request, whichever way it was answered.

    `route` is the pattern of the path and never the path, which may contain a secret. `address` is
    the client's, `client_id` the one that a verification was asked about.
    """

    request_id: str
    method: str
    address: str
    route: str | None = None
    actor: str | None = None
    unit_id: str | None = None
    client_id: str | None = None
    started_at: float = field(default_factory=perf_counter)

    def log(self, status: int) -> None:
        """Write the line, once the answer is known."""
        fields = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": status,
            "duration_ms": round((perf_counter() - self.started_at) * 1000, 1),
            "address": self.address,
            "actor": self.actor,
            "unit": self.unit_id,
            "client_id": self.client_id,
        }
        log_fields(_logger, "request", fields)
