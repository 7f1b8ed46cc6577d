"""Trading calendars of exchanges: when each is open, on which date. Pure but for reading its own files; any thread.

The files (calendar_data, written by tests/write_calendars.py from what calendar libraries say) hold the usual hours of
the weekdays from a year on, the days without a session and those with hours of their own. Where the library's knowledge
ends the usual weeks go on, without holidays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

DATA = Path(__file__).parent / "calendar_data"

FIRST_US, END_US = 0, 4_102_444_800_000_000
"""1970 to 2100: no calendar is asked for a time before or after."""

CLOSING_US = 60_000_000
"""How long after the bell a price is still of the session: closing auctions print some seconds later. A minute, so
that the price is the close of a whole bar."""

_US = 1_000_000
_MONTHS_KEPT = 512
_MONTHS_AROUND = 2
"""Months before and after one in which its first and last session are sure to have neighbours: Athens was closed for
five weeks in 2015. Few, because they are worked out while a request waits: a millisecond for each."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Trading(NamedTuple):
    """A session of an exchange: its date there, and when it is open: [from, until) in UTC microseconds, rising."""

    date: date
    open: tuple[tuple[int, int], ...]


class Span(NamedTuple):
    """A session as prices see it, UTC microseconds.

    A time in [start_us, end_us) is of this session. Prices before `cut_us` are of the ones before, and the last of
    them is what it is compared with; between cut_us and start_us lies what is traded after hours. The session's own
    close is the last price before `close_us`, the next session's cut.
    """

    start_us: int
    end_us: int
    cut_us: int
    close_us: int


class _File(msgspec.Struct):
    zone: str
    holidays: tuple[date, date]
    regular: dict[int, dict[int, tuple[int, ...]]]
    closed: frozenset[date]
    special: dict[date, tuple[int, ...]]


class Calendar:
    """An exchange's sessions. Immutable; every month is worked out once."""

    def __init__(self, name: str, file: _File) -> None:
        self.name = name
        self.zone = file.zone
        self._file = file
        self._years = sorted(file.regular)

    def is_open(self, time_us: int) -> bool:
        """Tell whether the exchange is trading at a time (UTC microseconds); its breaks are none."""
        if not FIRST_US <= time_us < END_US:
            return True
        edges = _edges(self.name, _month(time_us))
        return bisect_right(edges.opens, time_us) > bisect_right(edges.shuts, time_us)

    def span(self, time_us: int) -> Span | None:
        """Return the session that a time (UTC microseconds) is of; None where no calendar is asked.

        It begins with its date or, where it opens on the day before, with its opening, and lasts until the next one
        begins.
        """
        if not FIRST_US <= time_us < END_US:
            return None
        edges = _edges(self.name, _month(time_us))
        at = bisect_right(edges.starts, time_us) - 1
        return Span(edges.starts[at], edges.starts[at + 1], edges.cuts[at], edges.cuts[at + 1])

    def sessions(self, year: int) -> Iterator[Trading]:
        """Yield the sessions whose date is in the year."""
        return self.between(date(year, 1, 1), date(year + 1, 1, 1))

    def between(self, day: date, end: date) -> Iterator[Trading]:
        """Yield the sessions whose date is `day` or later, and before `end`."""
        known = self._file
        zone = ZoneInfo(self.zone)
        while day < end:
            usual = known.regular[max((one for one in self._years if one <= day.year), default=self._years[0])]
            hours = known.special.get(day, () if day in known.closed else usual.get(day.isoweekday(), ()))
            if hours:
                times = [_us(day, minutes, zone) for minutes in hours]
                yield Trading(day, tuple(zip(times[::2], times[1::2], strict=True)))
            day += timedelta(1)


class _Edges(NamedTuple):
    """Sessions of a month with those around it, as sorted lists; UTC microseconds."""

    starts: list[int]
    cuts: list[int]
    opens: list[int]
    shuts: list[int]


def find_calendar(exchange: str | None) -> Calendar | None:
    """Return the calendar of an exchange: its MIC or a usual name, in any case; None if it is not known."""
    if not exchange:
        return None
    name = _names().get(exchange.strip().upper())
    return None if name is None else _calendar(name)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    return msgspec.json.decode((DATA / "names.json").read_bytes(), type=dict[str, str])


@lru_cache(maxsize=128)
def _calendar(name: str) -> Calendar:
    return Calendar(name, msgspec.json.decode((DATA / f"{name}.json").read_bytes(), type=_File))


@lru_cache(maxsize=_MONTHS_KEPT)
def _edges(name: str, month: int) -> _Edges:
    calendar = _calendar(name)
    zone = ZoneInfo(calendar.zone)
    found = list(calendar.between(_first(month - _MONTHS_AROUND), _first(month + _MONTHS_AROUND + 1)))
    starts, cuts = [], []
    shut_us = None
    for session in found:
        start_us = min(session.open[0][0], _us(session.date, 0, zone))
        if shut_us is None:
            cuts.append(start_us)
        else:
            start_us = max(start_us, shut_us)
            cuts.append(min(shut_us + CLOSING_US, start_us))
        starts.append(start_us)
        shut_us = session.open[-1][1]
    hours = [times for session in found for times in session.open]
    return _Edges(starts, cuts, [opens for opens, _ in hours], [shuts for _, shuts in hours])


def _us(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return the moment at which clocks in the zone show so many minutes after (or before) the day's midnight."""
    wall = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minutes)
    return (wall - _EPOCH) // _MICROSECOND


def _month(time_us: int) -> int:
    """Return the number of the month (UTC) that a time lies in, since the year 0."""
    day = _EPOCH + timedelta(seconds=time_us // _US)
    return day.year * 12 + day.month - 1


def _first(month: int) -> date:
    return date(month // 12, month % 12 + 1, 1)
