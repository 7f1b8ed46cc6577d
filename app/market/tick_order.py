"""What the order of a file's lines tells: which repetition of an hour, and which tick of a microsecond. Pure.

One `WallTimes` and one `Ordinals` a symbol and file; they are given all its rows, in the file's order, in
blocks.
"""

from __future__ import annotations

import numpy as np

from app.errors import TickhubError
from app.market.clock import BrokerClock
from app.market.columns import I8

STEP_BACK_US = 30 * 60 * 1_000_000
"""The smallest change of a clock in use is half an hour (Lord Howe); ticks out of order are closer."""

SECOND_PASS_US = 86_400 * 1_000_000
"""How far beyond the latest time of the first pass rows still count as the second: the second may hold later
ticks of the repeated hour than the first. Outside of that hour the mark changes nothing, and no clock repeats
another hour within days."""

REMEMBERED = 1_000_000
"""Distinct times whose ordinals are remembered, 16 bytes each: hours of the busiest instrument, months of a
slow one. A line further back than all of them cannot be numbered exactly, and is not numbered at all."""

_NEVER = np.iinfo(np.int64).min


class OutOfOrder(TickhubError):
    """The file's lines are further out of order than what can be numbered exactly."""


class WallTimes:
    """Turns a symbol's wall times into UTC, and tells the second pass of an hour that the clock repeats.

    When the wall time steps back by half an hour or more, what follows is the second pass. A clock set back
    while no ticks come leaves no trace.
    """

    def __init__(self, clock: BrokerClock) -> None:
        self._clock = clock
        self._latest_wall = self._latest_utc = self._second_until = _NEVER // 2
        self._repeated = self._stepped_back = False

    def to_utc_us(self, wall_us: I8) -> I8:
        """Return UTC microseconds, int64[n]. wall_us: int64[n], the wall clock written as if it were UTC.

        Raises OutOfOrder when there are repeated hours in the file, and steps back that no change of the
        clock explains: then nothing tells which pass a row belongs to.
        """
        if not len(wall_us):
            return wall_us
        latest = np.maximum.accumulate(np.concatenate(([self._latest_wall], wall_us)))
        stepped = wall_us <= latest[:-1] - STEP_BACK_US
        until = np.maximum.accumulate(np.where(stepped, latest[:-1], self._second_until))
        self._latest_wall, self._second_until = int(latest[-1]), int(until[-1])
        fold = wall_us <= until + SECOND_PASS_US
        utc_us = self._clock.to_utc_us(wall_us, fold)
        passed = np.maximum.accumulate(np.concatenate(([self._latest_utc], utc_us)))
        self._latest_utc = int(passed[-1])
        self._stepped_back |= bool((utc_us <= passed[:-1] - STEP_BACK_US).any())
        self._repeated |= not np.array_equal(utc_us, self._clock.to_utc_us(wall_us, ~fold))
        if self._stepped_back and self._repeated:
            raise OutOfOrder(
                f"the file is not in order of time and holds an hour that {self._clock.spec} repeats, so "
                "that its two passes cannot be told apart: import it in order of time"
            )
        return utc_us


class Ordinals:
    """Counts the ticks of each time: 0, 1, 2, ... in the order in which they are given, adjacent or not."""

    def __init__(self) -> None:
        self._times = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._forgotten = _NEVER

    def number(self, time_us: I8, remembered: int = REMEMBERED) -> I8:
        """Return the ordinals, int64[n], of times int64[n]. Raises OutOfOrder, then nothing is counted.

        remembered: how many distinct times to keep for later calls; the latest are kept.
        """
        if not len(time_us):
            return np.zeros(0, np.int64)
        if time_us.min() <= self._forgotten:
            raise OutOfOrder(
                f"lines are out of order by more than {len(self._times):,} different times, so that "
                "equal times cannot be counted exactly: sort the file by time (stable), then import it"
            )
        order = None if bool(np.all(time_us[1:] >= time_us[:-1])) else np.argsort(time_us, kind="stable")
        ordered = time_us if order is None else time_us[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        sizes = np.diff(np.append(starts, len(ordered)))
        seen_before = self._add(ordered[starts], sizes)
        ordinals = np.arange(len(ordered)) - np.repeat(starts - seen_before, sizes)
        self._forget(remembered)
        if order is None:
            return ordinals
        numbered = np.empty_like(ordinals)
        numbered[order] = ordinals
        return numbered

    def _add(self, times: I8, sizes: I8) -> I8:
        """Add to the counts of distinct rising times; return what they were before."""
        at = np.searchsorted(self._times, times)
        known = np.zeros(len(times), np.bool_)
        inside = at < len(self._times)
        known[inside] = self._times[at[inside]] == times[inside]
        before = np.zeros(len(times), np.int64)
        before[known] = self._counts[at[known]]
        self._counts[at[known]] += sizes[known]
        if not known.all():
            new = ~known
            self._times = np.insert(self._times, at[new], times[new])
            self._counts = np.insert(self._counts, at[new], sizes[new])
        return before

    def _forget(self, remembered: int) -> None:
        surplus = len(self._times) - remembered
        if surplus > 0:
            self._forgotten = max(self._forgotten, int(self._times[surplus - 1]))
            self._times = self._times[surplus:].copy()
            self._counts = self._counts[surplus:].copy()
