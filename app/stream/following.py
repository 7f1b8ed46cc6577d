"""Follow what the journals commit: each commit once, in order, holes seen. Pure; greenlet side.

A commit that begins at its journal's position is taken; one that ends there or before was seen; one that begins behind
it shows a hole, and is held until the rows between were read from the database. While they are read all are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from app.market.committed import Committed, Trades
from app.market.positions import Positions

MAX_HELD = 50_000
"""Trades and commits held while a hole is filled, some 4 MB; beyond, they are let go and read from the database too."""

Took = Callable[[Trades, Positions], None]
"""Called with trades of one journal, in order of arrival, and the positions before them."""


class Follower:
    """A worker's place in what is committed. positions: None until they are known."""

    def __init__(self, took: Took) -> None:
        self._took = took
        self.positions: Positions | None = None
        self.hole = False
        """Whether something must be read from the database."""
        self._reading = False
        self._held: deque[Committed] = deque()
        self._held_size = 0
        self._first_us: dict[int, int] = {}
        """Before the positions are known: where the first commit that was heard of each journal begins."""

    def hear(self, committed: Committed, *, take: bool = True) -> bool:
        """Take a commit, or hold it; tell whether it is news. One that is held is.

        take: False leaves it to be read from the database; enough is on its way.
        """
        if self.positions is None:
            self._first_us.setdefault(committed.journal, committed.before_us)
        elif not self._reading and take:
            return self._follow(self.positions, committed)
        self.hole |= not take
        self._hold(committed)
        return True

    def begin(self, until: Positions) -> None:
        """Learn the positions for the first time: those of the ledger, or where the first commits began."""
        for journal, before_us in self._first_us.items():
            if before_us < until.done_us.get(journal, 0):
                until.done_us[journal] = before_us
        self.positions = until
        self._first_us = {}
        self._follow_held(until)

    def begin_reading(self) -> Positions:
        """Hold everything from now on; return behind which positions the database is to be read."""
        assert self.positions is not None
        self._reading, self.hole = True, False
        return self.positions

    def end_reading(self, until: Positions, *, whole: bool) -> None:
        """Go on from where the database was read to; whole: up to its end, so that there is no hole any more."""
        self._reading = False
        self.hole |= not whole
        self.positions = until
        self._follow_held(until)

    def update(self, before: Positions, until: Positions, lows_us: dict[int, int]) -> None:
        """Learn from the ledger which journals there are; nothing of them counts as seen that was not.

        before: a copy of the positions when the ledger began to be read; until: what the ledger says; lows_us: of the
        journals of which it has more, the position up to which everything was seen.
        """
        positions = self.positions
        if positions is None:
            return
        for journal in before.done_us.keys() - until.done_us.keys() - lows_us.keys():
            # One that goes on at this moment has entered anew, and is not finished.
            if positions.done_us.get(journal) == before.done_us[journal]:
                del positions.done_us[journal]
        for journal, done_us in {**until.done_us, **lows_us}.items():
            positions.done_us.setdefault(journal, done_us)
        positions.top_us = until.top_us

    def _follow(self, positions: Positions, committed: Committed) -> bool:
        journal = committed.journal
        seen_us = positions.done_us.get(journal, 0)
        if committed.after_us <= seen_us:
            return False
        if committed.before_us > seen_us:
            self.hole = True
            self._hold(committed)
            return True
        trades = committed.trades
        if len(trades):
            if committed.before_us < seen_us:
                trades = trades.take(trades.received_us > seen_us)
            self._took(trades, positions)
        positions.done_us[journal] = committed.after_us
        return True

    def _follow_held(self, positions: Positions) -> None:
        held, self._held, self._held_size = self._held, deque(), 0
        for committed in held:
            self._follow(positions, committed)

    def _hold(self, committed: Committed) -> None:
        size = 1 + len(committed.trades)
        if self._held_size + size > MAX_HELD:
            self._held.clear()
            self._held_size = 0
            self.hole = True
        self._held.append(committed)
        self._held_size += size
