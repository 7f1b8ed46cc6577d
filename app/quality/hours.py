"""Hours of a day by the clocks of its exchange. Pure; may run on a lane."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from app.market.columns import I8
from app.quality.days import Day
from app.quality.gaps import within
from app.quality.tally import Coverage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER_US = 900_000_000
"""Every zone's clocks show a whole hour at a quarter of UTC's."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What was found of the time of a day at which clocks show an hour, 0 to 23: once a day, or twice, or never."""

    hour: int
    ticks: int
    session_us: int
    gaps_us: int


def quarters(day: Day) -> I8:
    """Return the edges of the quarters of an hour that a day touches, cut to it: rising."""
    first = day.start_us // _QUARTER_US + 1
    inner = np.arange(first, -(-day.end_us // _QUARTER_US)) * _QUARTER_US
    return np.concatenate([[day.start_us], inner, [day.end_us]]).astype(np.int64)


def hours(found: Coverage, zone: str) -> list[Hour]:
    """Return the hours of a day that was counted by its `quarters`; by the hour, those that it does not have left out.

    Before 1970 zones had odder offsets; then a quarter is of the hour in which it begins.
    """
    info, edges = ZoneInfo(zone), quarters(found.day)
    of_hour: dict[int, list[int]] = {}
    for at, (start_us, end_us) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        hour = (_EPOCH + timedelta(microseconds=start_us)).astimezone(info).hour
        sums = of_hour.setdefault(hour, [0, 0, 0])
        sums[0] += int(found.hourly[at])
        sums[1] += within(found.day.open, start_us, end_us)
        sums[2] += within(found.gaps, start_us, end_us)
    return [Hour(hour, *sums) for hour, sums in sorted(of_hour.items())]
