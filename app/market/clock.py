"""The broker's clock: what a sender's wall clock means in UTC.

A broker's wall clock is the local time of a zone plus a fixed shift. The usual one, `America/New_York+7h`,
puts midnight at the end of the New York session and follows the daylight saving of the United States, so no
zone of its own describes it.

A zone's offsets are read once into a table of changes; after that a batch costs two binary searches a row at
most, however many distinct minutes it holds, and there is no cache to bound.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from app.market.columns import I8, Mask

FIRST_YEAR = 1970
LAST_YEAR = 2100
"""Offsets are exact within these years; earlier and later times get the offset of the nearer end."""

_PROBE_S = 3 * 86_400
"""Two changes that cancel out within one step would be missed. The shortest such pair of any zone is 7 days
apart (Brazil in 2000, Gaza's Ramadan pauses from 2040 on)."""

_SHIFTED = re.compile(r"(?P<zone>.+?)(?P<sign>[+-])(?=\d)(?:(?P<h>\d{1,2})h)?(?:(?P<m>\d{1,4})m)?", re.ASCII)
_US = 1_000_000
_NEVER_S = -(10**12)


class BrokerClock:
    """Convert between a broker's wall clock and UTC, by columns; immutable, safe on any thread.

    spec: an IANA zone, optionally followed by a shift of less than a day: `UTC`, `Europe/Athens`,
    `Etc/GMT-3`, `UTC-3h`, `America/New_York+7h30m`, `America/New_York+420m`. Raises ValueError for anything
    else.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        zone, shift_s = _parse(spec)
        changes, offsets = _offset_table(zone)
        self._fixed_us = (offsets[0] + shift_s) * _US if not changes else None
        before, after = np.array(offsets[:-1], np.int64), np.array(offsets[1:], np.int64)
        utc = np.array(changes, np.int64)
        self._change_utc_us = utc * _US
        # Where a change takes effect on the wall clock. Set forward, both readings of the skipped hour keep
        # the offset before. Set back, only the first of the repeated hours keeps it.
        self._change_first_us = (utc + np.maximum(before, after) + shift_s) * _US
        self._change_fold_us = (utc + after + shift_s) * _US
        self._offset_us = (np.array(offsets, np.int64) + shift_s) * _US
        # How long after each change readings are repeats; before the first change none is.
        self._repeated_us = np.concatenate(([_NEVER_S], before - after)) * _US

    def __repr__(self) -> str:
        return f"BrokerClock({self.spec!r})"

    def to_utc_us(self, wall_us: I8, fold: Mask) -> I8:
        """Return the UTC of wall-clock readings: int64[n], microseconds since 1970.

        wall_us: int64[n], the reading in microseconds as if it were UTC. fold: bool[n], the row means the
        second of a repeated hour; it changes nothing elsewhere. A reading that the clock skips has the offset
        before the change. The answer may be `wall_us` itself.
        """
        if self._fixed_us is not None:
            return wall_us - self._fixed_us if self._fixed_us else wall_us
        period = self._change_first_us.searchsorted(wall_us, "right")
        if fold.any():
            period = np.where(fold, self._change_fold_us.searchsorted(wall_us, "right"), period)
        return wall_us - self._offset_us[period]

    def to_wall_us(self, utc_us: I8) -> tuple[I8, Mask]:
        """Return the wall-clock readings (int64[n], microseconds as if UTC) and folds (bool[n]) of UTC times.

        utc_us: int64[n], microseconds since 1970. `to_utc_us` of the answer is `utc_us` again.
        """
        if self._fixed_us is not None:
            return utc_us + self._fixed_us, np.zeros(len(utc_us), np.bool_)
        period = self._change_utc_us.searchsorted(utc_us, "right")
        since_us = utc_us - self._change_utc_us[np.maximum(period - 1, 0)]
        return utc_us + self._offset_us[period], since_us < self._repeated_us[period]


def _parse(spec: str) -> tuple[ZoneInfo, int]:
    """Return the zone and the shift in seconds. Raises ValueError."""
    # As a whole first: Etc/GMT+3 is a zone's name.
    if (zone := _zone(spec)) is not None:
        return zone, 0
    found = _SHIFTED.fullmatch(spec)
    if found is None:
        raise ValueError(
            f"{spec!r} is no clock: give an IANA zone, optionally with a shift, such as America/New_York+7h"
        )
    shift_s = int(found["h"] or 0) * 3600 + int(found["m"] or 0) * 60
    if shift_s >= 86_400:
        raise ValueError(f"{spec!r}: a shift is less than 24h")
    if (zone := _zone(found["zone"])) is None:
        raise ValueError(f"{spec!r}: no time zone is called {found['zone']!r}")
    return zone, -shift_s if found["sign"] == "-" else shift_s


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as "America"
        return None


def _offset_table(zone: ZoneInfo) -> tuple[list[int], list[int]]:
    """Return the UTC seconds at which the zone's offset changes, and the offsets: one more than changes."""

    def offset_s(utc_s: int) -> int:
        offset = datetime.fromtimestamp(utc_s, zone).utcoffset() or timedelta()
        return offset.days * 86_400 + offset.seconds

    low = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp())
    changes: list[int] = []
    offsets = [offset_s(low)]
    while low < end:
        high = min(low + _PROBE_S, end)
        if (after := offset_s(high)) != offsets[-1]:
            at = high
            while at - low > 1:
                middle = (low + at) // 2
                low, at = (low, middle) if offset_s(middle) != offsets[-1] else (middle, at)
            changes.append(at)
            offsets.append(after)
        low = high
    return changes, offsets
