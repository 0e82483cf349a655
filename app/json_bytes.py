"""JSON as the service writes it: compact, in UTF-8, with members in their given order."""

import json
from typing import Any

import orjson


def json_bytes(value: Any) -> bytes:
    """Return the value as JSON.

    orjson rejects integers over 64 bits, and lone surrogates, which a caller may send but UTF-8
    cannot encode. The standard library writes both: it escapes surrogates.
    """
    try:
        text: bytes = orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
    return text
