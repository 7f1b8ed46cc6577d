"""Sessions: the calendar days of an instrument's exchange. Pure; may run on a lane."""

from __future__ import annotations

from functools import lru_cache

from app.market.intervals import Buckets, known_zone

_DAY_US = 86_400_000_000
_CALENDAR_ENDS_US = 4_102_444_800_000_000
"""2100: from here on, and before 1970, sessions are days of UTC."""


class Sessions:
    """Tells the session that a time lies in; remembers the last one of each zone."""

    def __init__(self) -> None:
        self._last: dict[str | None, tuple[int, int]] = {}

    def of(self, time_us: int, zone: str | None) -> tuple[int, int]:
        """Return start (inclusive) and end (exclusive) of the session, UTC microseconds.

        zone: an IANA name; None, or one that is none, counts as UTC.
        """
        start_us, end_us = self._last.get(zone, (0, 0))
        if not start_us <= time_us < end_us:
            start_us, end_us = self._last[zone] = _day(time_us, zone)
        return start_us, end_us


def _day(time_us: int, zone: str | None) -> tuple[int, int]:
    days = _days(zone)
    if days is None or not 0 <= time_us < _CALENDAR_ENDS_US:
        start_us = time_us // _DAY_US * _DAY_US
        return start_us, start_us + _DAY_US
    return days.start(time_us), days.next(time_us)


@lru_cache(maxsize=1024)
def _days(zone: str | None) -> Buckets | None:
    return Buckets("1d", zone) if zone and known_zone(zone) else None
