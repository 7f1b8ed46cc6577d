"""Intervals of bars, and where they begin in a time zone. Pure, lane side.

Up to four hours bars are aligned to UTC. Days, weeks (from Monday) and months begin where the zone's calendar day
does. A bar's bucket is [start, next start); a day that a zone left out has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from app.errors import BadParameter
from app.market.columns import I8

INTERVALS = ("1s", "5s", "15s", "30s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M")
UTC_ZONES = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"})

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "M": 31 * 86_400}
_US = 1_000_000
_DAY_US = 86_400 * _US
_WEEK_US = 7 * _DAY_US
_MONDAY_US = 4 * _DAY_US
"""1970-01-05 was a Monday."""

_SOURCES_S = (86_400, 3600, 60)
_MOVES = ("1d", "1w", "1M")
_MAX_YEARS = 2048
"""Years of boundaries kept, of all zones and intervals: 3 kB each for days."""

_MARGIN_US = 2 * _DAY_US
"""No local day is further than that from the UTC day of its name."""


@dataclass(frozen=True)
class Buckets:
    """Where the bars of an interval begin; immutable, safe on any thread.

    interval: one of INTERVALS. zone: a key of the time-zone database. Times are UTC microseconds since 1970, of the
    years 2 to 9998. Raises BadParameter for another interval or zone.
    """

    interval: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise BadParameter(f"{self.interval!r:.40} is no interval: give one of {' '.join(INTERVALS)}")
        if not known_zone(self.zone):
            raise BadParameter(f"no time zone is called {self.zone!r:.60}: give an IANA name, as America/New_York")

    @property
    def longest_s(self) -> int:
        """Seconds of the longest bucket, without what a change of offset adds."""
        return int(self.interval[:-1]) * _UNITS_S[self.interval[-1]]

    @property
    def by_calendar(self) -> bool:
        """Whether the zone's calendar decides; else every bucket has `longest_s` seconds and they are UTC's."""
        return self.interval in _MOVES and not (self.zone in UTC_ZONES and self.interval != "1M")

    @property
    def in_utc(self) -> bool:
        """Whether the buckets are those of UTC."""
        return self.interval not in _MOVES or self.zone in UTC_ZONES

    def starts(self, times_us: I8) -> I8:
        """Return the start of the bucket that each time lies in: int64[n]."""
        if not self.by_calendar:
            step, origin = self._step_us()
            return np.asarray((times_us - origin) // step * step + origin)
        if self.in_utc:
            return _months_us(times_us, 0)
        if not len(times_us):
            return times_us
        edges = self._edges(int(times_us.min()), int(times_us.max()))
        return np.asarray(edges[edges.searchsorted(times_us, "right") - 1])

    def ends(self, starts_us: I8) -> I8:
        """Return where the bucket that begins at each start ends: int64[n], the next one's start."""
        if not self.by_calendar:
            return starts_us + self._step_us()[0]
        if self.in_utc:
            return _months_us(starts_us, 1)
        if not len(starts_us):
            return starts_us
        edges = self._edges(int(starts_us.min()), int(starts_us.max()))
        return np.asarray(edges[edges.searchsorted(starts_us, "right")])

    def start(self, us: int) -> int:
        """Return the start of the bucket that a time lies in."""
        return int(self.starts(np.array([us], np.int64))[0])

    def next(self, us: int) -> int:
        """Return the first start after a time."""
        return int(self.ends(self.starts(np.array([us], np.int64)))[0])

    def first_from(self, us: int) -> int:
        """Return the first start that is not before a time."""
        start = self.start(us)
        return start if start == us else self.next(us)

    def between(self, low_us: int, high_us: int) -> I8:
        """Return every start in [low_us, high_us): int64[n], rising. The caller bounds their number."""
        if high_us <= low_us:
            return np.zeros(0, np.int64)
        if not self.by_calendar:
            return np.arange(self.first_from(low_us), high_us, self._step_us()[0], dtype=np.int64)
        if self.in_utc:
            outer = np.array([self.first_from(low_us), high_us - 1], "M8[us]").astype("M8[M]").astype(np.int64)
            return _months_us(np.arange(outer[0], outer[1] + 1).astype("M8[M]"), 0)
        edges = self._edges(low_us, high_us)
        return np.asarray(edges[edges.searchsorted(low_us) : edges.searchsorted(high_us)])

    def source_s(self, low_us: int, high_us: int) -> int | None:
        """Return the seconds of the longest maintained bars that the buckets touching [low_us, high_us) are made of.

        86400, 3600 or 60; None: only ticks will do, a bucket begins or ends within a minute.
        """
        if self.in_utc:
            return next((s for s in _SOURCES_S if s <= self.longest_s and self.longest_s % s == 0), None)
        edges = self.between(self.start(low_us), self.next(max(high_us - 1, low_us)) + 1)
        return next((s for s in _SOURCES_S if not (edges % (s * _US)).any()), None)

    def _step_us(self) -> tuple[int, int]:
        return self.longest_s * _US, _MONDAY_US if self.interval == "1w" else 0

    def _edges(self, low_us: int, high_us: int) -> I8:
        """Return the zone's starts from one at or before `low_us` to one after `high_us`."""
        first = _utc_date(low_us - _MARGIN_US - self.longest_s * _US).year
        last = _utc_date(high_us + _MARGIN_US + self.longest_s * _US).year
        edges = np.concatenate([_edges_of_year(self.zone, self.interval, year) for year in range(first, last + 1)])
        # A day that was left out begins where the next one does.
        return np.asarray(edges[np.append(edges[1:] > edges[:-1], True)])


@lru_cache(maxsize=1024)
def known_zone(name: str) -> bool:
    """Tell whether the time-zone database has a zone of this name."""
    return _zone(name) is not None


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as "America"
        return None


@lru_cache(maxsize=_MAX_YEARS)
def _edges_of_year(zone: str, interval: str, year: int) -> I8:
    """Return where the days, weeks or months begin whose first date is in the year: int64[n], not falling."""
    info = ZoneInfo(zone)
    first = date(year, 1, 1)
    if interval == "1M":
        dates = [first.replace(month=month) for month in range(1, 13)]
    else:
        step = 7 if interval == "1w" else 1
        skip = -first.weekday() % 7 if interval == "1w" else 0
        dates = [first + timedelta(days) for days in range(skip, (date(year + 1, 1, 1) - first).days, step)]
    edges = np.array([_day_start_s(info, day) for day in dates], np.int64) * _US
    edges.flags.writeable = False
    return edges


def _day_start_s(zone: ZoneInfo, day: date) -> int:
    """Return the first second (UTC, since 1970) whose date in the zone is the day, or a later one if it has none."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    late = int(midnight.timestamp())  # with the first of two midnights, and a skipped one by the offset before
    early = int(midnight.replace(fold=1).timestamp())
    if early >= late:
        return late
    # The clock skipped midnight: the day begins at the change, which lies between.
    low, high = early - 1, late
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if datetime.fromtimestamp(middle, zone).date() >= day else (middle, high)
    return high


def _months_us(times_us: I8 | npt.NDArray[np.datetime64], further: int) -> I8:
    months = times_us.astype("M8[us]").astype("M8[M]") + further
    return np.asarray(months.astype("M8[us]").astype(np.int64))


def _utc_date(us: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date()
