"""Sessions of instruments: by their exchange's calendar, else by the days of their time zone."""

from __future__ import annotations

from datetime import date

import pytest

from app.market.sessions import Sessions, date_of, day_of, in_market_hours, zone_of
from tests.unit.test_calendars import us

NEW_YORK, CHICAGO = "America/New_York", "America/Chicago"
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


@pytest.mark.parametrize(
    ("exchange", "zone", "times", "start", "end", "cut", "close"),
    [
        (
            "XNYS",
            NEW_YORK,
            ["2026-11-23T00:00:00", "2026-11-23T09:30:00", "2026-11-23T23:59:59"],
            "2026-11-23T00:00:00",
            "2026-11-24T00:00:00",
            "2026-11-20T16:01:00",
            "2026-11-23T16:01:00",
        ),
        (  # Friday's lasts until Monday
            "XNYS",
            NEW_YORK,
            ["2026-11-20T00:00:00", "2026-11-20T18:00:00", "2026-11-22T12:00:00"],
            "2026-11-20T00:00:00",
            "2026-11-23T00:00:00",
            "2026-11-19T16:01:00",
            "2026-11-20T16:01:00",
        ),
        (  # a holiday belongs to the session before it
            "XNYS",
            NEW_YORK,
            ["2026-11-25T12:00:00", "2026-11-26T12:00:00"],
            "2026-11-25T00:00:00",
            "2026-11-27T00:00:00",
            "2026-11-24T16:01:00",
            "2026-11-25T16:01:00",
        ),
        (  # over midnight, in the zone and of UTC
            "CMES",
            CHICAGO,
            ["2026-11-22T17:00:00", "2026-11-22T18:00:00", "2026-11-23T00:00:00", "2026-11-23T16:59:59"],
            "2026-11-22T17:00:00",
            "2026-11-23T17:00:00",
            "2026-11-20T16:01:00",
            "2026-11-23T16:01:00",
        ),
        (  # the week begins on Sunday at 17:00
            "FX",
            NEW_YORK,
            ["2026-11-22T17:00:00", "2026-11-22T19:00:00", "2026-11-23T16:59:59"],
            "2026-11-22T17:00:00",
            "2026-11-23T17:00:00",
            "2026-11-20T17:01:00",
            "2026-11-23T17:00:00",
        ),
        (
            "FX",
            NEW_YORK,
            ["2026-11-23T17:00:00", "2026-11-24T12:00:00"],
            "2026-11-23T17:00:00",
            "2026-11-24T17:00:00",
            "2026-11-23T17:00:00",
            "2026-11-24T17:00:00",
        ),
        (  # a lunch break ends no session
            "XHKG",
            "Asia/Hong_Kong",
            ["2026-11-20T11:00:00", "2026-11-20T12:30:00", "2026-11-20T14:00:00"],
            "2026-11-20T00:00:00",
            "2026-11-23T00:00:00",
            "2026-11-19T16:01:00",
            "2026-11-20T16:01:00",
        ),
        (
            "CRYPTO",
            "UTC",
            ["2026-11-21T00:00:00", "2026-11-21T23:59:59"],
            "2026-11-21T00:00:00",
            "2026-11-22T00:00:00",
            "2026-11-21T00:00:00",
            "2026-11-22T00:00:00",
        ),
    ],
)
def test_a_session_is_the_exchanges(
    exchange: str, zone: str, times: list[str], start: str, end: str, cut: str, close: str
) -> None:
    expected = tuple(us(text, zone) for text in (start, end, cut, close))
    for text in times:
        assert Sessions().of(us(text, zone), (exchange, "Asia/Tokyo")) == expected


def test_of_an_exchange_that_is_not_known_sessions_are_days_of_the_time_zone() -> None:
    for exchange in (None, "", "Bourse of Nowhere"):
        span = Sessions().of(us("2026-11-21T12:00:00", NEW_YORK), (exchange, NEW_YORK))
        assert span.start_us == span.cut_us == us("2026-11-21T00:00:00", NEW_YORK)
        assert span.end_us == span.close_us == us("2026-11-22T00:00:00", NEW_YORK)


@pytest.mark.parametrize("exchange", ["XNYS", "CMES", "FX", "XHKG", "CRYPTO", "XSTC", None])
def test_sessions_cover_all_time_without_a_gap(exchange: str | None) -> None:
    market = (exchange, NEW_YORK)
    time_us = us("2024-12-20T00:00:00")
    span = Sessions().of(time_us, market)
    while span.end_us < us("2026-02-01T00:00:00"):
        following = Sessions().of(span.end_us, market)
        assert (following.start_us, following.cut_us) == (span.end_us, span.close_us)
        assert Sessions().of(span.end_us - 1, market) == span
        assert span.cut_us <= span.start_us < span.close_us <= span.end_us
        span = following


@pytest.mark.parametrize("time_us", [-1, -DAY_US * 400_000, 4_102_444_800_000_000, 253_402_300_799_999_999])
def test_a_time_that_no_calendar_is_asked_for_lies_in_a_day_of_utc(time_us: int) -> None:
    span = Sessions().of(time_us, ("XNYS", NEW_YORK))
    assert span.start_us <= time_us < span.end_us == span.start_us + DAY_US
    assert in_market_hours(time_us, "XNYS")


def test_what_no_calendar_is_known_of_is_always_in_market_hours() -> None:
    sunday_us = us("2026-11-22T12:00:00")
    assert in_market_hours(sunday_us, None)
    assert in_market_hours(sunday_us, "Bourse of Nowhere")
    assert not in_market_hours(sunday_us, "XNYS")


def test_dates_are_the_exchanges() -> None:
    late_us = us("2026-11-21T02:00:00")
    assert date_of(late_us, (None, None)) == date(2026, 11, 21)
    assert date_of(late_us, ("XNYS", None)) == date(2026, 11, 20)
    assert date_of(late_us, (None, "Asia/Tokyo")) == date(2026, 11, 21)
    assert date_of(late_us, ("XNYS", "Asia/Tokyo")) == date(2026, 11, 21), "its own time zone goes first"
    assert date_of(late_us, ("XNYS", "Mars/Olympus")) == date(2026, 11, 20)
    assert zone_of(("HOSE", None)) == "Asia/Ho_Chi_Minh"


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 8), 23), (date(2026, 11, 1), 25), (date(2026, 11, 20), 24)])
def test_a_date_spans_the_exchanges_day(day: date, hours: int) -> None:
    start_us, end_us = day_of(day, ("XNYS", None))
    assert end_us - start_us == hours * 60 * MINUTE_US
    assert (date_of(start_us, ("XNYS", None)), date_of(end_us - 1, ("XNYS", None))) == (day, day)
    assert date_of(start_us - 1, ("XNYS", None)) < day
