"""Identifiers that other systems choose: units, actors, request IDs and idempotency keys.

The patterns mean the same in Python and in JSON Schema (ECMAScript). Use them with `fullmatch`.
"""

import re
from random import getrandbits

# Ranges of characters, for use inside [].
CONTROL_CHARACTERS = r"\u0000-\u001f\u007f-\u009f"  # Unicode's category Cc
BIDIRECTIONAL_OVERRIDES = r"\u202a-\u202e\u2066-\u2069"
FORBIDDEN_CHARACTERS = CONTROL_CHARACTERS + BIDIRECTIONAL_OVERRIDES  # a terminal interprets them
LONE_SURROGATES = r"\ud800-\udfff"  # UTF-8 cannot express them

IDENTIFIER_MAX_LENGTH = 255
IDENTIFIER_RULE = f"1-{IDENTIFIER_MAX_LENGTH} characters, without control characters"
REQUEST_ID_PATTERN = "[A-Za-z0-9._-]{1,128}"
IDEMPOTENCY_KEY_PATTERN = "[!-~]{16,128}"
IDEMPOTENCY_KEY_RULE = "16-128 visible ASCII characters"

_IDENTIFIER = re.compile(f"[^{FORBIDDEN_CHARACTERS}{LONE_SURROGATES}]{{1,{IDENTIFIER_MAX_LENGTH}}}")
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)


def is_identifier(text: str) -> bool:
    """Tell whether the text may name an actor or a unit. It is stored and logged unchanged.

    1-255 code points, without control characters, bidirectional overrides or lone surrogates: a
    terminal would interpret them, or Postgres would reject them.
    """
    return _IDENTIFIER.fullmatch(text) is not None


def new_request_id() -> str:
    """Return 128 random bits in hexadecimal. They need not be secret, only unique."""
    return f"{getrandbits(128):032x}"


def is_request_id(text: str) -> bool:
    """Tell whether the text may be a caller's own X-Request-Id."""
    return _REQUEST_ID.fullmatch(text) is not None
