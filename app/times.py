"""Times as callers see them: RFC 3339, UTC, whole seconds, `Z`.

The pattern means the same in Python and in JSON Schema (ECMAScript). Use it with `fullmatch`.
"""

import re
from datetime import UTC, datetime

TIME_RULE = "a time such as 2027-01-31T00:00:00Z"
TIME_PATTERN = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"

_TIME = re.compile(TIME_PATTERN)


def format_time(time: datetime) -> str:
    """Return the time as text, without its fraction of a second."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_time(text: str) -> datetime:
    """Return the time. Raises ValueError for any other format and for dates that do not exist."""
    if not _TIME.fullmatch(text):
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
