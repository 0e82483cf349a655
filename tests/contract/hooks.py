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


@schemathesis.hook
def before_load_schema(_: Any, raw_schema: dict[str, Any]) -> None:
    """Leave out the cookie of the active unit.

    Part of a malformed cookie may be read as another cookie, and then the request is valid without
    it. No schema can say so.
    """
    cookie = {"$ref": "#/components/parameters/ActiveUnit"}
    for path in raw_schema["paths"].values():
        for method in path.keys() - {"parameters"}:
            path[method]["parameters"] = [
                each for each in path[method].get("parameters", []) if each != cookie
            ]
