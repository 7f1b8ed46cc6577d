"""Which bars are to be read when: touched ones at most every 250 ms, and each once more when it closes. Pure.

Times of `now_s` are monotonic, those in microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from app.market.intervals import Buckets
from app.stream.messages import BarUpdate

EVERY_S = 0.25
"""Least time between two reads of the bars of one symbol and interval."""

LATE_US = 2_000_000
"""What is watched is known here a little later; ticks of that time may have been stored unnoticed."""

Key = tuple[str, str]
"""Symbol and interval."""


class BarWatch:
    """What is known of the bars that somebody watches."""

    def __init__(self) -> None:
        self._touched: dict[Key, tuple[int, int]] = {}
        self._not_before_s: dict[Key, float] = {}
        self._sent: dict[Key, dict[str, BarUpdate]] = {}
        self._running: dict[Key, int] = {}
        """Where the newest bar ends that was sent and is not complete."""
        self._watched: set[Key] = set()

    def watch(self, intervals: Mapping[str, Set[str]], now_us: int) -> None:
        """Learn what is watched now; of what is new the running bar is read, to be known when it closes."""
        watched = {(symbol, interval) for symbol, names in intervals.items() for interval in names}
        for key in self._watched - watched:
            for known in (self._touched, self._not_before_s, self._sent, self._running):
                known.pop(key, None)
        for key in watched - self._watched:
            self._touch(key, now_us - LATE_US, now_us)
        self._watched = watched

    def touch(self, symbol: str, intervals: Iterable[str], low_us: int, high_us: int) -> None:
        """Note that ticks of a symbol were stored, of these times."""
        for interval in intervals:
            if (symbol, interval) in self._watched:
                self._touch((symbol, interval), low_us, high_us)

    def touch_all(self, low_us: int, high_us: int) -> None:
        """Have everything read that is watched: commits were not heard, of ticks of these times."""
        for key in self._watched:
            self._touch(key, low_us, high_us)

    def close(self, now_us: int) -> None:
        """Have the bars read that ended by then."""
        for key, end_us in self._running.items():
            if end_us <= now_us:
                self._touch(key, end_us - 1, end_us - 1)

    def take(self, now_s: float, most: int) -> dict[Key, tuple[int, int]]:
        """Return what is to be read now: the first and the last time of the ticks that came, by key."""
        due: dict[Key, tuple[int, int]] = {}
        for key, ends_us in self._touched.items():
            if len(due) < most and self._not_before_s.get(key, now_s) <= now_s:
                due[key] = ends_us
        for key in due:
            del self._touched[key]
            self._not_before_s[key] = now_s + EVERY_S
        return due

    def put_back(self, due: Mapping[Key, tuple[int, int]]) -> None:
        """Have it read again: it could not be."""
        for key, (low_us, high_us) in due.items():
            self._touch(key, low_us, high_us)

    def changed(self, key: Key, bars: Sequence[BarUpdate], starts_us: Sequence[int]) -> list[BarUpdate]:
        """Return those of the bars read (rising in time) that are not as they were last sent."""
        if key not in self._watched or not bars:
            return []
        sent = self._sent.get(key, {})
        found = [bar for bar in bars if sent.get(bar.timestamp) != bar]
        sent = {**sent, **{bar.timestamp: bar for bar in bars}}
        # The newest ones are those that change again and again.
        self._sent[key] = {timestamp: sent[timestamp] for timestamp in sorted(sent)[-4:]}
        end_us = Buckets(key[1]).next(starts_us[-1])
        if not bars[-1].complete:
            self._running[key] = end_us
        elif self._running.get(key, 0) <= end_us:
            self._running.pop(key, None)
        return found

    def _touch(self, key: Key, low_us: int, high_us: int) -> None:
        known = self._touched.get(key, (low_us, high_us))
        self._touched[key] = min(known[0], low_us), max(known[1], high_us)
