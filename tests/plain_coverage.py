"""The figures of a day's coverage once more, in plain Python from their definitions: what tests compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class PlainTick:
    """A stored tick; None: none was sent."""

    time_us: int
    bid: float | None
    ask: float | None
    last: float | None
    flags: int
    received_us: int


def plain_day(
    ticks: Sequence[PlainTick],
    sessions: Sequence[tuple[int, int]],
    gap_s: float = 60,
    late_s: float = 60,
    outlier_z: float = 20,
) -> dict[str, Any]:
    """Return the figures of a day by the names of the interface; `gaps` and `outliers` as lists."""
    times = [tick.time_us for tick in ticks]
    gaps = [gap for session in sessions for gap in _gaps(times, *session, gap_s * 1e6)]
    session_us = sum(until - since for since, until in sessions)
    gaps_us = sum(until - since for since, until in gaps)
    return {
        "ticks": len(ticks),
        "session_ticks": sum(any(since <= time < until for since, until in sessions) for time in times),
        "session_s": session_us / 1e6,
        "coverage": 1 - gaps_us / session_us if session_us else None,
        "gaps": gaps,
        "gaps_s": gaps_us / 1e6,
        "longest_gap_s": max((until - since for since, until in gaps), default=0) / 1e6,
        "crossed": sum(None not in (t.bid, t.ask) and t.bid > t.ask for t in ticks),  # type: ignore[operator]
        "nonpositive": sum(any(price is not None and price <= 0 for price in _said(tick)) for tick in ticks),
        "outliers": _outliers(ticks, outlier_z),
        "late": sum(tick.received_us - tick.time_us > late_s * 1e6 for tick in ticks),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
    }


def _said(tick: PlainTick) -> list[float | None]:
    return [tick.bid, tick.ask, *([tick.last] if tick.flags & 8 else [])]


def _gaps(times: Sequence[int], since: int, until: int, longer_us: float) -> list[tuple[int, int]]:
    found, before = [], since
    for time in times:
        if since <= time < until:
            found.append((before, time))
            before = time
    found.append((before, until))
    return [(start, end) for start, end in found if end - start > longer_us]


def _outliers(ticks: Sequence[PlainTick], beyond: float) -> list[tuple[int, float, float, float]] | None:
    mids = [(t.time_us, (t.bid + t.ask) / 2) for t in ticks if (t.bid or 0) > 0 and (t.ask or 0) > 0]  # type: ignore[operator]
    lasts = [(t.time_us, t.last) for t in ticks if t.flags & 8 and (t.last or 0) > 0]
    changes: list[tuple[int, float, float]] = []
    before = None
    for time, price in mids or lasts:
        assert price is not None
        if before is not None and price != before:
            changes.append((time, before, price))
        before = price
    if len(changes) < 20:
        return None
    logs = [math.log(price / old) for _, old, price in changes]
    usual = median(abs(x) for x in logs)
    scored = [0.6745 * x / usual for x in logs]
    return [(*change, score) for change, score in zip(changes, scored, strict=True) if abs(score) > beyond]
