"""Gaps: stretches of a session in which no tick came. Pure; may run on a lane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from app.market.columns import I8


class Span(NamedTuple):
    """[start_us, end_us)."""

    start_us: int
    end_us: int

    @property
    def us(self) -> int:
        """Return its length."""
        return self.end_us - self.start_us


def silences(times_us: I8, before_us: int, longer_than_us: int) -> list[Span]:
    """Return the stretches between one tick and the next that are longer, `before_us` being the tick before them all.

    times_us: not falling.
    """
    if not len(times_us):
        return []
    steps = np.diff(times_us, prepend=before_us)
    rows = np.flatnonzero(steps > longer_than_us)
    return [Span(int(times_us[row] - steps[row]), int(times_us[row])) for row in rows]


def gaps(quiet: Iterable[Span], sessions: Sequence[tuple[int, int]], longer_than_us: int) -> list[Span]:
    """Return what of the stretches lies within a session, where that is longer: rising.

    quiet: rising, and holding every tick-free stretch of the day that is longer, that before the first tick and that
    behind the last among them. So a session's opening and its end count as ticks do.
    """
    found = []
    for stretch in quiet:
        for opens, shuts in sessions:
            span = Span(max(stretch.start_us, opens), min(stretch.end_us, shuts))
            if span.us > longer_than_us:
                found.append(span)
    return found


def within(spans: Iterable[Span | tuple[int, int]], start_us: int, end_us: int) -> int:
    """Return how much of disjoint spans lies in [start_us, end_us), microseconds."""
    return sum(max(min(until, end_us) - max(since, start_us), 0) for since, until in spans)
