"""Where bars begin, against a plain search for the first moment of a date."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import BadParameter
from app.market import intervals
from app.market.intervals import INTERVALS, Buckets

US = 1_000_000
DAY_US = 86_400 * US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR = ("1d", "1w", "1M")
HARD_ZONES = (
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Monrovia",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Beirut",
    "Europe/London",
    "UTC",
)
TIMES = st.integers(0, (datetime(2199, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1))
RECENT = st.integers(0, (datetime(2037, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1))
EVERY = st.sampled_from([(interval, "UTC") for interval in INTERVALS]) | st.tuples(
    st.sampled_from(CALENDAR), st.sampled_from(HARD_ZONES) | st.sampled_from(sorted(available_timezones()))
)


def us_of(*when: int) -> int:
    return (datetime(*when, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)  # type: ignore[misc, arg-type]


def text(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M:%S")


def begins(zone: str, day: date) -> int:
    """Return the first half minute of which the zone says that it is the day, or a later one."""
    info = ZoneInfo(zone)
    at = int((datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH).total_seconds()) - 30 * 3600
    while datetime.fromtimestamp(at, info).date() < day:
        at += 30
    return at * US


def first_date(interval: str, day: date) -> date:
    if interval == "1d":
        return day
    return day - timedelta(day.weekday()) if interval == "1w" else day.replace(day=1)


def after(interval: str, day: date) -> date:
    if interval == "1M":
        return (day + timedelta(31)).replace(day=1)
    return day + timedelta(7 if interval == "1w" else 1)


def plain_bucket(interval: str, zone: str, us: int) -> tuple[int, int]:
    """Return [start, end) of the bucket that a time lies in, found a date at a time."""
    local = datetime.fromtimestamp(us // US, ZoneInfo(zone)).date()
    day = first_date(interval, first_date(interval, local) - timedelta(1))
    start, end = begins(zone, day), begins(zone, after(interval, day))
    while not start <= us < end:
        day = after(interval, day)
        start, end = end, begins(zone, after(interval, day))
    return start, end


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(CALENDAR), st.sampled_from(HARD_ZONES), RECENT)
@example("1d", "Pacific/Apia", us_of(2011, 12, 30, 10))
@example("1d", "Pacific/Apia", us_of(2011, 12, 30, 9, 59, 59))
@example("1M", "Pacific/Kiritimati", us_of(1994, 12, 31, 12))
@example("1d", "America/Sao_Paulo", us_of(2018, 11, 4, 2, 59, 59))
@example("1d", "America/Sao_Paulo", us_of(2018, 11, 4, 3))
@example("1d", "America/Sao_Paulo", us_of(2018, 2, 18, 2, 30))
@example("1d", "America/St_Johns", us_of(2008, 11, 2, 2, 45))
@example("1d", "America/St_Johns", us_of(2008, 11, 2, 3, 15))
@example("1d", "Africa/Monrovia", us_of(1972, 1, 7, 0, 44, 29))
@example("1d", "Africa/Monrovia", us_of(1972, 1, 7, 0, 44, 30))
@example("1w", "America/Havana", us_of(2024, 3, 10, 5))
@example("1d", "America/New_York", 0)
def test_a_bar_begins_at_the_first_moment_of_its_date(interval: str, zone: str, us: int) -> None:
    buckets = Buckets(interval, zone)
    assert (buckets.start(us), buckets.next(us)) == plain_bucket(interval, zone, us)


@pytest.mark.parametrize(
    ("zone", "first", "expected"),
    [
        # 2011-12-30 did not take place there.
        ("Pacific/Apia", date(2011, 12, 29), ["2011-12-29 10:00:00", "2011-12-30 10:00:00", "2011-12-31 10:00:00"]),
        # On 2018-11-04 the clock went from 00:00 to 01:00.
        ("America/Sao_Paulo", date(2018, 11, 3), ["2018-11-03 03:00:00", "2018-11-04 03:00:00", "2018-11-05 02:00:00"]),
        # On 2008-11-02 it went from 00:01 back to 23:01, so midnight came twice.
        ("America/St_Johns", date(2008, 11, 1), ["2008-11-01 02:30:00", "2008-11-02 02:30:00", "2008-11-03 03:30:00"]),
        # On 1919-03-30 it went from 23:30 to 00:30 of the next day.
        ("America/Toronto", date(1919, 3, 30), ["1919-03-30 05:00:00", "1919-03-31 04:30:00", "1919-04-01 04:00:00"]),
        ("America/New_York", date(2024, 3, 9), ["2024-03-09 05:00:00", "2024-03-10 05:00:00", "2024-03-11 04:00:00"]),
        ("Asia/Kathmandu", date(2024, 1, 1), ["2023-12-31 18:15:00", "2024-01-01 18:15:00", "2024-01-02 18:15:00"]),
    ],
)
def test_days_of_hard_zones(zone: str, first: date, expected: list[str]) -> None:
    start = begins(zone, first)
    assert [text(us) for us in Buckets("1d", zone).between(start, start + 3 * DAY_US).tolist()][:3] == expected


@pytest.mark.parametrize("interval", INTERVALS[:-3])
@given(us=TIMES)
def test_below_a_day_bars_are_aligned_to_utc_in_every_zone(interval: str, us: int) -> None:
    step = int(interval[:-1]) * {"s": 1, "m": 60, "h": 3600}[interval[-1]] * US
    for zone in ("UTC", "Asia/Kathmandu"):
        assert Buckets(interval, zone).start(us) == us - us % step
        assert Buckets(interval, zone).next(us) == us - us % step + step


@given(TIMES)
def test_days_weeks_and_months_of_utc(us: int) -> None:
    day = (EPOCH + timedelta(microseconds=us)).date()
    for interval in CALENDAR:
        first = first_date(interval, day)
        expected = tuple((one - EPOCH.date()).days * DAY_US for one in (first, after(interval, first)))
        assert (Buckets(interval).start(us), Buckets(interval).next(us)) == expected


@settings(deadline=None)
@given(EVERY, st.lists(TIMES, min_size=1, max_size=5), st.integers(0, 200 * DAY_US))
def test_columns_and_ranges_agree_with_single_times(which: tuple[str, str], times: list[int], span: int) -> None:
    buckets = Buckets(*which)
    starts = buckets.starts(np.array(times))
    assert starts.tolist() == [buckets.start(us) for us in times]
    assert buckets.ends(starts).tolist() == [buckets.next(us) for us in times]
    assert (starts <= times).all()
    assert (buckets.ends(starts) > times).all()
    assert [buckets.first_from(us) == us for us in times] == [buckets.start(us) == us for us in times]
    low = times[0]
    high = low + min(span, 50 * buckets.longest_s * US)
    expected = []
    at = buckets.first_from(low)
    while at < high:
        expected.append(at)
        at = buckets.next(at)
    assert buckets.between(low, high).tolist() == expected


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(CALENDAR), st.sampled_from(HARD_ZONES), st.integers(1971, 2150))
def test_no_bar_has_no_length(interval: str, zone: str, year: int) -> None:
    starts = Buckets(interval, zone).between(us_of(year, 1, 1), us_of(year + 20, 1, 1))
    assert (np.diff(starts) > 0).all()
    assert len(starts) >= {"1d": 7_300, "1w": 1_042, "1M": 239}[interval]


@settings(deadline=None)
@given(EVERY, TIMES, st.integers(1, 400 * DAY_US))
@example(("1d", "Europe/London"), us_of(2024, 1, 5), 60 * DAY_US)
@example(("1d", "Africa/Monrovia"), us_of(1972, 1, 6), DAY_US)
def test_a_source_is_the_longest_that_every_boundary_is_a_multiple_of(
    which: tuple[str, str], low: int, span: int
) -> None:
    buckets = Buckets(*which)
    found = buckets.source_s(low, low + span)
    at, edges = buckets.start(low), []
    if buckets.in_utc:
        span = min(span, 50 * buckets.longest_s * US)
    while at < low + span:
        edges.append(at)
        at = buckets.next(at)
    edges.append(at)
    fitting = [seconds for seconds in (86_400, 3600, 60) if not any(edge % (seconds * US) for edge in edges)]
    if buckets.in_utc:  # there it is the same for every range
        fitting = [seconds for seconds in fitting if seconds <= buckets.longest_s]
    assert found == (fitting[0] if fitting else None)


@pytest.mark.parametrize(
    ("interval", "zone", "month", "source_s"),
    [
        ("30s", "UTC", (2024, 1), None),
        ("1m", "UTC", (2024, 1), 60),
        ("30m", "UTC", (2024, 1), 60),
        ("1h", "UTC", (2024, 1), 3600),
        ("4h", "Asia/Kathmandu", (2024, 1), 3600),
        ("1d", "UTC", (2024, 1), 86_400),
        ("1w", "UTC", (2024, 1), 86_400),
        ("1M", "UTC", (2024, 1), 86_400),
        ("1d", "America/New_York", (2024, 1), 3600),
        ("1M", "America/New_York", (2024, 1), 3600),
        ("1w", "Asia/Kathmandu", (2024, 1), 60),
        ("1d", "Australia/Adelaide", (2024, 4), 60),
        ("1d", "Europe/London", (2024, 1), 86_400),
        ("1d", "Europe/London", (2024, 7), 3600),
        ("1d", "Africa/Monrovia", (1971, 5), None),
        ("1d", "Africa/Monrovia", (1973, 5), 86_400),
    ],
)
def test_sources(interval: str, zone: str, month: tuple[int, int], source_s: int | None) -> None:
    low = us_of(*month, 2)
    assert Buckets(interval, zone).source_s(low, low + 20 * DAY_US) == source_s


def test_the_intervals_are_those_of_the_interface() -> None:
    assert " ".join(INTERVALS) == "1s 5s 15s 30s 1m 3m 5m 15m 30m 1h 4h 1d 1w 1M"


@pytest.mark.parametrize("interval", ["", "1", "2m", "1D", "1mo", "60", "1m "])
def test_another_interval_is_refused(interval: str) -> None:
    with pytest.raises(BadParameter, match="is no interval"):
        Buckets(interval)


@pytest.mark.parametrize("zone", ["", "America", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "A\0B", "é" * 300])
def test_another_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadParameter, match="no time zone is called"):
        Buckets("1d", zone)


def test_what_is_kept_of_zones_is_bounded() -> None:
    for cached in (intervals._edges_of_year, intervals.known_zone):
        assert cached.cache_info().maxsize is not None
    with pytest.raises(ValueError, match="read-only"):
        intervals._edges_of_year("Asia/Tokyo", "1d", 2024)[0] = 0
