"""Which bars are to be read when: touched ones at most every 250 ms, and each once more when it closes. Pure.

Times of `now_s` are monotonic, those in microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from app.market.intervals import Buckets
from app.stream.messages import BarUpdate

EVERY_S = 0.25
"""Least time between two reads of the bars of one symbol and interval."""

LATE_US = 2_000_000
"""What is watched is known here a little later; ticks of that time may have been stored unnoticed."""

MOST_KNOWN = 500
"""Bars of a symbol and interval of which it is known how they were sent: as many as one read gives."""

Key = tuple[str, str]
"""Symbol and interval."""


class BarWatch:
    """What is known of the bars that somebody watches."""

    def __init__(self) -> None:
        self._touched: dict[Key, tuple[int, int]] = {}
        self._not_before_s: dict[Key, float] = {}
        self._sent: dict[Key, dict[int, int]] = {}
        """As what each bar was last sent: its hash, by its start. Some 100 bytes a bar, which its text would exceed."""
        self._open: dict[Key, dict[int, int]] = {}
        """When the bars end that were sent and are not complete, by their starts."""
        self._newest: dict[Key, tuple[int, BarUpdate]] = {}
        self._watched: set[Key] = set()

    def watch(self, intervals: Mapping[str, Set[str]], now_us: int) -> None:
        """Learn what is watched now; of what is new the running bar is read, to be known when it closes."""
        watched = {(symbol, interval) for symbol, names in intervals.items() for interval in names}
        for key in self._watched - watched:
            for known in (self._touched, self._not_before_s, self._sent, self._open, self._newest):
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
        """Have the bars read that ended by then, each once."""
        for key, ends_us in self._open.items():
            for start_us in [start_us for start_us, end_us in ends_us.items() if end_us <= now_us]:
                del ends_us[start_us]
                self._touch(key, start_us, start_us)

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
        sent, ends_us = self._sent.setdefault(key, {}), self._open.setdefault(key, {})
        buckets = Buckets(key[1])
        found = []
        for start_us, bar in zip(starts_us, bars, strict=True):
            if bar.complete:
                ends_us.pop(start_us, None)
            else:
                ends_us[start_us] = buckets.next(start_us)
            if sent.get(start_us) != (version := hash(bar)):
                sent[start_us] = version
                found.append(bar)
        if len(sent) > MOST_KNOWN:
            self._sent[key] = {start_us: sent[start_us] for start_us in sorted(sent)[-MOST_KNOWN:]}
        if key not in self._newest or self._newest[key][0] <= starts_us[-1]:
            self._newest[key] = starts_us[-1], bars[-1]
        return found

    def running(self, symbols: Collection[str] | None, interval: str) -> list[BarUpdate]:
        """Return the running bars of symbols (None: all) as they were last sent, where somebody watches them."""
        return [
            bar
            for (symbol, name), (_, bar) in self._newest.items()
            if name == interval and not bar.complete and (symbols is None or symbol in symbols)
        ]

    def _touch(self, key: Key, low_us: int, high_us: int) -> None:
        known = self._touched.get(key, (low_us, high_us))
        self._touched[key] = min(known[0], low_us), max(known[1], high_us)
