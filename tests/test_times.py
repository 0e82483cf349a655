import re
from datetime import UTC, date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.times import format_time, parse_time
from tests.helpers import require

# Debian's copy of the IERS' list. Each line is the day after a change, in seconds since 1900.
LEAP_SECONDS = Path("/usr/share/zoneinfo/leap-seconds.list")


@given(
    moment=st.datetimes(timezones=st.just(UTC)).filter(lambda each: 1 < each.year < 9999),
    separator=st.sampled_from("Tt"),
    fraction=st.from_regex(r"(\.[0-9]{1,30})?", fullmatch=True, alphabet="0123456789."),
    minutes=st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_the_offset_is_converted_and_the_fraction_dropped(moment, separator, fraction, minutes):
    local = (moment + timedelta(minutes=minutes)).isoformat(separator, "seconds")[:19]
    sign, (hours, minutes) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    written = f"{local}{fraction}{sign}{hours:02}:{minutes:02}"
    assert parse_time(written) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2027-06-01T00:00:00Z", "2027-06-01T00:00:00Z"),
        ("2027-06-01t00:00:00z", "2027-06-01T00:00:00Z"),
        ("2027-06-01T00:00:00+00:00", "2027-06-01T00:00:00Z"),  # Python
        ("2027-06-01T00:00:00-00:00", "2027-06-01T00:00:00Z"),  # RFC 3339, 4.3
        ("2027-06-01T00:00:00.000Z", "2027-06-01T00:00:00Z"),  # JavaScript
        ("2027-06-01T00:00:00.999999999+02:00", "2027-05-31T22:00:00Z"),  # Go
        ("2027-06-01T00:00:00.123456+05:45", "2027-05-31T18:15:00Z"),
        ("2026-12-31T23:59:59.9-12:00", "2027-01-01T11:59:59Z"),
        ("2027-06-01T00:00:00+23:59", "2027-05-31T00:01:00Z"),
        ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
        (f"2027-06-01T00:00:00.{'9' * 10_000}Z", "2027-06-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("2016-12-31T23:59:60.9Z", "2016-12-31T23:59:59Z"),
        ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z"),  # RFC 3339, 5.8
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.9Z", "9999-12-31T23:59:59Z"),
        ("0001-01-01T01:00:00+01:00", "0001-01-01T00:00:00Z"),
    ],
    ids=lambda text: text[:40],
)
def test_every_spelling_of_a_time_is_read(text, written):
    assert format_time(parse_time(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "never", "1893456000", "2027-06-01", "2027-06-01T00:00:00", "2027-06-01T00:00Z",
        "2027-06-01T00:00:00 Z", " 2027-06-01T00:00:00Z", "2027-06-01T00:00:00Z\n",
        "2027-06-01 00:00:00Z", "2027-06-01_00:00:00Z", "20270601T000000Z", "2027-W22-2T00:00:00Z",
        "2027-152T00:00:00Z", "2027-6-1T00:00:00Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z",
        "2027-06-01T00:00:00.Z", "2027-06-01T00:00:00,5Z", "2027-06-01T00:00:00.5.5Z",
        "2027-06-01T00:00:00+02", "2027-06-01T00:00:00+0200", "2027-06-01T00:00:00+2:00",
        "2027-06-01T00:00:00 02:00", "2027-06-01T00:00:00\N{MINUS SIGN}02:00",
        "2027-06-01T00:00:00+24:00", "2027-06-01T00:00:00-23:60", "2027-06-01T00:00:00+02:00:30",
        "2027-06-01T00:00:00ZZ", "2027-06-01T00:00:00Z+00:00", "2027-06-01T00:00:00[Europe/Rome]",
        "2027-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2027-13-01T00:00:00Z",
        "2027-00-01T00:00:00Z", "2027-06-00T00:00:00Z", "2027-06-31T00:00:00Z",
        "2027-06-01T24:00:00Z", "2027-06-01T00:60:00Z", "2027-06-01T00:00:61Z",
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
        "٢027-06-01T00:00:00Z", "2027-06-01T00:00:0２Z", "2027-06-01T00:00:00.٥Z",
        "2030-12-31T23:59:60Z", "2016-06-30T23:59:60Z", "2016-12-31T23:59:60+01:00",
        "2016-12-31T22:59:60Z", "2016-12-31T23:58:60Z", "2016-12-30T23:59:60Z",
    ],
    ids=ascii,
)  # fmt: skip
def test_any_other_text_and_a_time_that_does_not_exist_are_refused(text):
    assert not is_time(text)


def test_the_leap_seconds_are_those_of_the_iers():
    require(LEAP_SECONDS, install="apt-get install tzdata")
    lines = re.findall(r"^(\d+)\s+\d+", LEAP_SECONDS.read_text(), re.MULTILINE)
    first, *days_after = [date(1900, 1, 1) + timedelta(seconds=int(each)) for each in lines]
    assert first == date(1972, 1, 1)  # when UTC began to have whole seconds
    listed = {each - timedelta(days=1) for each in days_after}
    known = {
        day
        for year in range(1970, days_after[-1].year + 2)
        for month in range(1, 13)
        if is_time(f"{(day := end_of(year, month))}T23:59:60Z")
    }
    assert known == listed


def end_of(year, month):
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def is_time(text):
    try:
        return bool(parse_time(text))
    except ValueError:
        return False


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_the_service_writes_it_reads(moment):
    written = format_time(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written)
    assert parse_time(written) == moment.replace(microsecond=0)
