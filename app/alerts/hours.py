"""Since when a market is open. Pure but for what calendars read."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache

from app.market.calendars import END_US, FIRST_US, find_calendar


def open_since(now_us: int, exchange: str | None) -> int | None:
    """Return when the trading began that goes on now (UTC microseconds), None while the market is closed.

    One that no calendar is known of is always open: since 1970.
    """
    if find_calendar(exchange) is None or not FIRST_US <= now_us < END_US:
        return 0
    opens, shuts = _hours(exchange or "", datetime.fromtimestamp(now_us / 1e6, UTC).year)
    at = bisect_right(opens, now_us) - 1
    return opens[at] if at >= 0 and now_us < shuts[at] else None


@lru_cache(maxsize=64)
def _hours(exchange: str, year: int) -> tuple[list[int], list[int]]:
    """Return when the market opens and shuts, rising; sessions of a date may lie in the year before."""
    calendar = find_calendar(exchange)
    assert calendar is not None
    sessions = [session for one in (year - 1, year, year + 1) for session in calendar.sessions(one)]
    found = [hours for session in sessions for hours in session.open]
    return [opens for opens, _ in found], [shuts for _, shuts in found]
