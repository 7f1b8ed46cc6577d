"""The days of an instrument's exchange, and when it should trade in each. Pure; may run on a lane.

Every moment is of one day: a day begins at the exchange's midnight or, where its session opens on the day before (as
futures' and currencies' do), with its opening; but not before the session before it ends. It lasts until the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from app.market.calendars import Trading, find_calendar
from app.market.sessions import Market, day_of, zone_of

FIRST_DAY = date(1970, 1, 1)
"""No tick is older."""

_DAY = timedelta(1)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Day:
    """A date at the exchange: [start_us, end_us), and when it is open within: [from, until), rising.

    `open` is empty on a day without a session; where no calendar is known it is the whole day.
    """

    date: date
    start_us: int
    end_us: int
    open: tuple[tuple[int, int], ...]

    @property
    def stamp_us(self) -> int:
        """Return the date as rows have it: its midnight as if it were UTC."""
        return (self.date.toordinal() - _EPOCH_DAY) * _DAY_US

    def until(self, now_us: int) -> Day:
        """Return the day as far as it has come: sessions end now at the latest."""
        passed = tuple((opens, min(shuts, now_us)) for opens, shuts in self.open if opens < now_us)
        return Day(self.date, self.start_us, self.end_us, passed)

    @property
    def session_us(self) -> int:
        """Return how long it is open."""
        return sum(shuts - opens for opens, shuts in self.open)


def days(first: date, end: date, market: Market) -> Iterator[Day]:
    """Yield the days from `first` to before `end`; `first` is FIRST_DAY or later."""
    calendar = find_calendar(market[0])
    zone: Market = (None, zone_of(market) if calendar is None else calendar.zone)
    sessions: dict[date, Trading] = {}
    if calendar is not None:
        sessions = {one.date: one for one in calendar.between(first - _DAY, end + _DAY)}
    dates = [first + timedelta(n) for n in range((end - first).days + 1)]
    begins = [_begin(day, zone, sessions) for day in dates]
    for day, (start_us, end_us) in zip(dates, pairwise(begins), strict=False):
        if calendar is None:
            opened: tuple[tuple[int, int], ...] = ((start_us, end_us),)
        else:
            opened = sessions[day].open if day in sessions else ()
        yield Day(day, start_us, end_us, opened)


def _begin(day: date, zone: Market, sessions: dict[date, Trading]) -> int:
    start_us, _ = day_of(day, zone)
    if day in sessions:
        start_us = min(start_us, sessions[day].open[0][0])
    if day - _DAY in sessions:
        start_us = max(start_us, sessions[day - _DAY].open[-1][1])
    return start_us
