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

    def hear(self, committed: Committed) -> bool:
        """Take a commit, or hold it; tell whether it is news. One that is held is."""
        if self.positions is None or self._reading:
            self._hold(committed)
            return True
        return self._follow(self.positions, committed)

    def begin_reading(self) -> Positions:
        """Hold everything from now on; return behind which positions the database is to be read."""
        self._reading, self.hole = True, False
        return Positions() if self.positions is None else self.positions

    def end_reading(self, until: Positions | None) -> None:
        """Go on from where the database was read to; None: it could not be read, and there still is a hole."""
        self._reading = False
        if until is None:
            self.hole = True
        else:
            self.positions = until
        if self.positions is None:
            return
        held, self._held, self._held_size = self._held, deque(), 0
        for committed in held:
            self._follow(self.positions, committed)

    def update(self, before: Positions, until: Positions, lows_us: dict[int, int]) -> None:
        """Learn from the ledger which journals there are; nothing of them counts as seen that was not.

        before: a copy of the positions when the ledger began to be read; until: what the ledger says; lows_us: of the
        journals of which it has more, the position up to which everything was seen.
        """
        positions = self.positions
        if positions is None:
            return
        for journal in before.done_us.keys() - until.done_us.keys() - lows_us.keys():
            positions.done_us.pop(journal, None)
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

    def _hold(self, committed: Committed) -> None:
        size = 1 + len(committed.trades)
        if self._held_size + size > MAX_HELD:
            self._held.clear()
            self._held_size = 0
            self.hole = True
        self._held.append(committed)
        self._held_size += size
