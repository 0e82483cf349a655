"""Times as callers see them.

The service writes RFC 3339 in UTC, with whole seconds and `Z`. It reads any RFC 3339 date-time.
"""

import re
from datetime import UTC, datetime

TIME_RULE = "a time such as 2027-01-31T00:00:00Z"

_HOUR = "(?:[01][0-9]|2[0-3])"
_TIME = re.compile(
    f"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt]({_HOUR}:[0-5][0-9]):([0-5][0-9]|60)"
    rf"(?:\.[0-9]+)?([Zz]|[+-]{_HOUR}:[0-5][0-9])"
)

# Each ended with 23:59:60 UTC (IERS Bulletin C).
_DAYS_WITH_LEAP_SECOND = frozenset(
    f"{year}-{day}"
    for day, years in {
        "06-30": (1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015),
        "12-31": (
            *range(1972, 1980), 1987, 1989, 1990, 1995, 1998, 2005, 2008, 2016,
        ),
    }.items()
    for year in years
)  # fmt: skip


def format_time(time: datetime) -> str:
    """Return the time as text, without its fraction of a second."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_time(text: str) -> datetime:
    """Return the RFC 3339 date-time in UTC, without its fraction of a second.

    A leap second counts as the second before it. Raises ValueError for any other format, for times
    that do not exist, and for those that are not in the years 1-9999 in UTC.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a time")
    day, minute, second, offset = match.groups()
    is_leap_second = second == "60"
    try:
        time = datetime.fromisoformat(
            f"{day}T{minute}:{'59' if is_leap_second else second}{offset.upper()}"
        ).astimezone(UTC)
    except OverflowError:
        raise ValueError("not a time of the years 1-9999") from None
    if is_leap_second and not _ends_with_leap_second(time):
        raise ValueError("not a leap second")
    return time


def _ends_with_leap_second(time: datetime) -> bool:
    day, _, rest = time.isoformat().partition("T")
    return day in _DAYS_WITH_LEAP_SECOND and rest.startswith("23:59:")
