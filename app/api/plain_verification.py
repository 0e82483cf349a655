"""A verification without Flask, whose own work on a request costs more than the SELECT (ADR 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.api.http.access_log import AccessRecord
from app.api.http.errors import problem_of
from app.api.http.headers import COMMON_HEADERS
from app.api.verify import (
    ROUTE,
    SCOPE_ROUTE,
    VerifyResponse,
    basic_credentials,
    verification_response,
)
from app.credentials.verification import MustWait

if TYPE_CHECKING:
    from app.api.verify import Verify
    from app.services import Services


class PlainVerification:
    """A plain request to `/verify`, or for a known scope.

    It has a valid Host, no body, and a method of `/verify`.
    """

    def __init__(  # noqa: PLR0913  each is a part of the request
        self,
        services: Services,
        *,
        method: str,
        scope: str | None,
        authorization: str,
        request_id: str,
        address: str | None,
    ) -> None:
        self._services = services
        self.record = AccessRecord(
            request_id=request_id,
            method=method,
            address=address,
            route=ROUTE if scope is None else SCOPE_ROUTE,
            scope=scope,
        )
        self.client_id, self.client_secret = basic_credentials(authorization)

    def response(self, verify: Verify, lines: list[bytes] | None = None) -> VerifyResponse:
        """Return the response, with all headers, and log it (see `AccessRecord.finish`).

        Raises MustWait if `verify` does.
        """
        record = self.record
        try:
            response = verification_response(self.client_id, self.client_secret, record, verify)
        except MustWait:
            raise
        except Exception as error:  # noqa: BLE001  every error has its problem document
            response = VerifyResponse.of(problem_of(error, request_id=record.request_id))
        record.finish(response.status, self._services.request_durations, lines)
        response.headers.extend([("X-Request-Id", record.request_id), *COMMON_HEADERS])
        return response
