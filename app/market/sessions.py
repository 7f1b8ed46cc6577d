"""Sessions: the calendar days of an instrument's exchange. Pure; may run on a lane."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo


class Sessions:
    """Tells the session that a time lies in; remembers the last one of each zone."""

    def __init__(self) -> None:
        self._last: dict[str | None, tuple[int, int]] = {}

    def of(self, time_us: int, zone: str | None) -> tuple[int, int]:
        """Return start (inclusive) and end (exclusive) of the session, UTC microseconds.

        zone: an IANA name; None, or one that is none, counts as UTC. A session begins with the first instant of its
        date, also where midnight does not exist or comes twice.
        """
        start_us, end_us = self._last.get(zone, (0, 0))
        if not start_us <= time_us < end_us:
            start_us, end_us = self._last[zone] = _day(time_us, _zone(zone))
        return start_us, end_us


def _day(time_us: int, zone: tzinfo) -> tuple[int, int]:
    date = datetime.fromtimestamp(time_us // 1_000_000, zone).date()
    midnights = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in (date, date + timedelta(days=1)))
    start_us, end_us = (int(midnight.timestamp()) * 1_000_000 for midnight in midnights)
    return start_us, end_us


@lru_cache(maxsize=1024)
def _zone(name: str | None) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of zones, as "America", is an OSError
        return UTC
