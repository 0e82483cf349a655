"""JSON as we write it: compact, in UTF-8, members in their order."""

import json
from typing import Any

import orjson


def json_bytes(value: Any) -> bytes:
    """Return the value as JSON.

    orjson refuses what it cannot write in UTF-8, such as a lone surrogate that a caller has sent,
    and integers over 64 bits. The standard library escapes the one and writes the other.
    """
    try:
        text: bytes = orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
    return text
