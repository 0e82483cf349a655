"""JSON as the service writes it: compact, in UTF-8, with members in their given order."""

import json
from typing import Any

import orjson

from app.times import format_time

_TIMES = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS  # as `format_time` writes them


def json_bytes(value: Any) -> bytes:
    """Return the value as JSON. Times must be in UTC.

    orjson rejects integers over 64 bits, and lone surrogates, which a caller may send but UTF-8
    cannot encode. The standard library writes both: it escapes surrogates.
    """
    try:
        text: bytes = orjson.dumps(value, option=_TIMES)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), default=format_time).encode()
    return text
