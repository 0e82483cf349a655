"""Keep Schemathesis from sending some requests. SCHEMATHESIS_HOOKS names this module."""

from typing import Any
from urllib.parse import urlencode

import schemathesis

# For every operation, gunicorn rejects a longer request line as malformed HTTP (414).
_QUERY_MAX_LENGTH = 4094 - 200


@schemathesis.hook
def filter_query(_: Any, query: dict[str, Any] | None) -> bool:
    """Keep a query that fits into a request line."""
    return len(urlencode(query or {}, doseq=True)) <= _QUERY_MAX_LENGTH
