"""Bars for those who watch them: read again after commits that touched them, closed by the clock. Greenlet side."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import gevent
from gevent.event import Event

from app.errors import DatabaseAway, RequestError
from app.market.committed import Touched
from app.market.rfc3339 import rfc3339
from app.reads import PAGE, Reads
from app.storage.changed_bars import ChangedRange, changed_bars
from app.stream.bar_watch import EVERY_S, BarWatch
from app.stream.hub import Hub
from app.stream.messages import BarUpdate

WATCHED_EVERY_S = 0.5
"""How soon it is known what nobody watches any more, and which symbols there are."""

KEYS_A_READ = 50
"""Symbols and intervals read in one go: some 20 ms of a query lane."""

CLOSE_GRACE_S = 0.5
"""What a flush may take beyond its interval until a bar counts as complete."""

RETRY_S = 1.0

log = logging.getLogger("tickhub")


class LiveBars:
    """The bars of a worker's readers. flush_interval_s: after it the last ticks of a bar are in the database."""

    def __init__(self, reads: Reads, hub: Hub, flush_interval_s: float) -> None:
        self._reads, self._hub = reads, hub
        self._grace_us = round((flush_interval_s + CLOSE_GRACE_S) * 1_000_000)
        self._watch = BarWatch()
        self._intervals: dict[str, set[str]] = {}
        self._wake = Event()

    @property
    def watched(self) -> bool:
        """Tell whether anybody watches bars."""
        return bool(self._intervals)

    def touched(self, ranges: Iterable[Touched]) -> None:
        """Note what a commit stored."""
        for one in ranges:
            intervals = self._intervals.get(one.symbol)
            if intervals:
                self._watch.touch(one.symbol, intervals, one.low_us, one.high_us)
                self._wake.set()

    def missed(self, since_us: int) -> None:
        """Note that commits of what arrived since then (UTC microseconds) were not heard."""
        self._watch.touch_all(since_us, time.time_ns() // 1000)
        self._wake.set()

    def look(self) -> None:
        """Learn what is watched; to be called when somebody begins to: commits count from now on."""
        self._intervals = self._hub.bar_intervals()
        self._watch.watch(self._intervals, time.time_ns() // 1000)
        self._wake.set()

    def running(self, symbols: Sequence[str] | None, interval: str) -> list[BarUpdate]:
        """Return the running bars (canonical symbols, None: all) that somebody watches already, for who joins them.

        Those that nobody watches yet are read at once, and reach the reader by the hub.
        """
        return self._watch.running(None if symbols is None else set(symbols), interval)

    def run(self) -> None:
        """Read and send for ever; to be spawned as a greenlet."""
        looked_s = float("-inf")
        while True:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            try:
                if time.monotonic() - looked_s >= WATCHED_EVERY_S:
                    looked_s = time.monotonic()
                    self.look()
                self._watch.close(time.time_ns() // 1000 - self._grace_us)
                while self._send():
                    pass
            except (DatabaseAway, RequestError) as error:
                log.debug("live bars were not read: %s", error)
            except Exception:
                log.exception("live bars failed")
                gevent.sleep(RETRY_S)  # whatever is committed meanwhile: or there was a line in the log for each

    def _send(self) -> bool:
        """Read and send what is due; tell whether there may be more."""
        due = self._watch.take(time.monotonic(), KEYS_A_READ)
        if not due:
            return False
        asked = [ChangedRange(*key, *ends_us) for key, ends_us in due.items()]
        now_us = time.time_ns() // 1000 - self._grace_us
        try:
            found = self._reads.run(PAGE, changed_bars, asked, now_us)
        except BaseException:
            self._watch.put_back(due)
            raise
        for key, bars in zip(due, found, strict=True):
            updates = [
                BarUpdate(*key, rfc3339(b.start_us), b.open, b.high, b.low, b.close, b.volume, b.ticks, b.complete)
                for b in bars
            ]
            changed = self._watch.changed(key, updates, [bar.start_us for bar in bars])
            if changed:
                self._hub.bars(changed)
                self._hub.give_way()  # a late start, or a late tick, may mean more of them than a queue takes
        return len(due) == KEYS_A_READ
