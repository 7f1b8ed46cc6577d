"""The exchange's days: where one begins and ends, and when it is open, over weekends, half days and changed clocks."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest

from app.market.calendars import find_calendar
from app.market.sessions import Market
from app.quality.days import Day, days
from tests.unit.test_calendars import us

HOUR_US = 3_600_000_000
NYSE: Market = ("XNYS", None)
FX: Market = ("FX", None)


def day_of(day: date, market: Market) -> Day:
    (found,) = days(day, day + timedelta(1), market)
    return found


def test_a_usual_day_lasts_from_midnight_to_midnight_and_is_open_by_the_calendar() -> None:
    zone = "America/New_York"
    found = day_of(date(2026, 1, 13), NYSE)
    assert (found.start_us, found.end_us) == (us("2026-01-13T00:00:00", zone), us("2026-01-14T00:00:00", zone))
    assert found.open == ((us("2026-01-13T09:30:00", zone), us("2026-01-13T16:00:00", zone)),)
    assert found.stamp_us == us("2026-01-13T00:00:00", "UTC")


@pytest.mark.parametrize(
    ("day", "market", "hours"),
    [
        (date(2026, 1, 17), NYSE, 0),  # a Saturday
        (date(2026, 1, 19), NYSE, 0),  # Martin Luther King's day
        (date(2026, 11, 27), NYSE, 3.5),  # the day after Thanksgiving
        (date(2026, 3, 9), NYSE, 6.5),  # clocks were changed the day before
        (date(2026, 1, 13), ("XTKS", None), 5.5),  # a break at noon
        (date(2026, 1, 13), FX, 24),
        (date(2026, 1, 17), FX, 0),
        (date(2026, 3, 8), (None, "America/New_York"), 23),
        (date(2026, 11, 1), (None, "America/New_York"), 25),
        (date(2026, 11, 1), ("NOWHERE", None), 24),
        (date(2026, 1, 17), (None, None), 24),  # nobody knows better
    ],
)
def test_a_day_is_open_as_long_as_its_exchange_says(day: date, market: Market, hours: float) -> None:
    assert day_of(day, market).session_us == hours * HOUR_US


def test_a_session_that_opens_on_the_eve_takes_the_eve_with_it() -> None:
    zone = "America/New_York"
    sunday, monday = days(date(2026, 1, 11), date(2026, 1, 13), FX)
    assert (sunday.start_us, sunday.end_us) == (us("2026-01-11T00:00:00", zone), us("2026-01-11T17:00:00", zone))
    assert (monday.start_us, monday.end_us) == (us("2026-01-11T17:00:00", zone), us("2026-01-12T17:00:00", zone))
    assert (sunday.open, monday.open) == ((), ((monday.start_us, monday.end_us),))


def test_what_is_left_of_fridays_date_behind_its_session_is_fridays() -> None:
    zone = "America/New_York"
    friday = day_of(date(2026, 1, 16), FX)
    assert friday.open[-1][1] == us("2026-01-16T17:00:00", zone)
    assert friday.end_us == us("2026-01-17T00:00:00", zone)


@pytest.mark.parametrize("market", [NYSE, FX, ("CMES", None), ("XHKG", None), (None, "Asia/Kathmandu"), (None, None)])
def test_every_moment_is_of_one_day_and_every_session_within_its_own(market: Market) -> None:
    found = list(days(date(2024, 1, 1), date(2027, 1, 1), market))
    assert [day.date for day in found] == [date(2024, 1, 1) + timedelta(n) for n in range(1096)]
    assert all(one.end_us == other.start_us for one, other in pairwise(found))
    assert all(day.start_us <= opens < shuts <= day.end_us for day in found for opens, shuts in day.open)
    calendar = find_calendar(market[0])
    if calendar is not None:
        wanted = {one.date: one.open for one in calendar.between(date(2024, 1, 1), date(2027, 1, 1))}
        assert {day.date: day.open for day in found if day.open} == wanted


def test_a_day_that_goes_on_is_open_until_now() -> None:
    whole = day_of(date(2026, 1, 13), ("XTKS", None))
    (morning, noon), (_, evening) = whole.open
    assert whole.until(morning - 1).open == ()
    assert whole.until(morning + 5).open == ((morning, morning + 5),)
    assert whole.until(noon + 5).open == ((morning, noon),)
    assert whole.until(evening + 5) == whole
