"""Headers of every address, and their rules."""

import re
from functools import lru_cache

COMMON_HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]

IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENCY_REPLAYED = "Idempotency-Replayed"

# RFC 9112, 3.2: a host and a port. The host is a name, an IPv4 address or, in brackets, an IPv6
# address (RFC 3986, 3.2.2). A comma is not allowed: gunicorn joins several Host headers with it.
_HOST = re.compile(
    r"(?=.{0,255}\Z)"
    r"(?:(?:[A-Za-z0-9._~!$&'()*+;=-]++|%[0-9A-Fa-f]{2})*+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
)


@lru_cache(maxsize=64)  # the hot path asks too, and nearly always about the same hosts
def is_host(text: str) -> bool:
    """Tell whether the text may be the value of a Host header, of at most 255 characters."""
    return _HOST.fullmatch(text) is not None
