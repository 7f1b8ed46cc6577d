"""Sessions of an instrument: those of its exchange's calendar, else the calendar days of its time zone.

Pure; may run on a lane.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.market.calendars import END_US, FIRST_US, Span, find_calendar
from app.market.intervals import Buckets, known_zone

_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Market = tuple[str | None, str | None]
"""An instrument's exchange and time zone, as `instruments` has them."""


class Sessions:
    """Tells the session that a time lies in; remembers the last one of each market."""

    def __init__(self) -> None:
        self._last: dict[Market, Span] = {}

    def of(self, time_us: int, market: Market) -> Span:
        """Return the session of a time (UTC microseconds).

        Of an exchange that no calendar is known of, or none, it is a day in the time zone; of a zone that is none, or
        before 1970 and from 2100 on, a day of UTC.
        """
        span = self._last.get(market)
        if span is None or not span.start_us <= time_us < span.end_us:
            span = self._last[market] = _span(time_us, *market)
        return span


def in_market_hours(time_us: int, exchange: str | None) -> bool:
    """Tell whether the exchange is open at a time (UTC microseconds); one that no calendar is known of always is."""
    calendar = find_calendar(exchange)
    return calendar is None or calendar.is_open(time_us)


def zone_of(market: Market) -> str:
    """Return the time zone in which the instrument's dates are: its own, else its exchange's, else UTC."""
    exchange, zone = market
    if zone and known_zone(zone):
        return zone
    calendar = find_calendar(exchange)
    return "UTC" if calendar is None else calendar.zone


def date_of(time_us: int, market: Market) -> date:
    """Return the date at the exchange at a time (UTC microseconds)."""
    return (_EPOCH + timedelta(microseconds=time_us)).astimezone(ZoneInfo(zone_of(market))).date()


def day_of(day: date, market: Market) -> tuple[int, int]:
    """Return where a date begins at the exchange and where the next one does, UTC microseconds."""
    buckets = Buckets("1d", zone_of(market))
    noon_us = int(datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(buckets.zone)).timestamp()) * 1_000_000
    start_us = buckets.start(noon_us)
    return start_us, buckets.next(start_us)


def _span(time_us: int, exchange: str | None, zone: str | None) -> Span:
    calendar = find_calendar(exchange)
    found = None if calendar is None else calendar.span(time_us)
    if found is not None:
        return found
    days = _days(zone)
    if days is None or not FIRST_US <= time_us < END_US:
        start_us = time_us // _DAY_US * _DAY_US
        end_us = start_us + _DAY_US
    else:
        start_us, end_us = days.start(time_us), days.next(time_us)
    return Span(start_us, end_us, cut_us=start_us, close_us=end_us)


@lru_cache(maxsize=1024)
def _days(zone: str | None) -> Buckets | None:
    return Buckets("1d", zone) if zone and known_zone(zone) else None
