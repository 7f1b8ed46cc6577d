"""One reader's way from the stored trades to the live ones: nothing missing, nothing twice. Pure; greenlet side.

    replay = Replay()             before its first page is read; from then on every live update goes through `live`
    replay.hold()                 before each plan is read: what is held from here on is not in an older snapshot
    replay.reached(until)         all that the plan had was sent; False: too much came meanwhile, read on behind `until`
    ... send replay_complete ...
    replay.release()              what was held and was not in the plan, to be sent now
    replay.live(updates)          from now on what to send of them; when `done`, they can be sent as they are

A live update is in the plan when its journal's position there is not before it. Until the worker has itself seen all
that the plan had, the cursors of live updates are made anew with both: else who goes on from one got trades twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

import msgspec

from app.market.positions import Positions
from app.stream.messages import TradeUpdate
from app.stream.trades import cursor_of, place_of

MAX_HELD, MAX_HELD_BYTES = 2_000, 1 << 20
"""Live updates held for one reader; beyond, they are let go and read from the database in another round. It is
looked at, and queued, in one go: some 20 ms, and less than a reader's queue takes."""

_UPDATE_BYTES = 150
"""Of an update, its cursor not counted."""


class Replay:
    """What is held back for a reader, and what of it the reader has got already."""

    def __init__(self, symbols: Collection[str] | None = None, before: Replay | None = None) -> None:
        """Begin. symbols: of which trades are replayed (canonical; None: all); others pass. before: the last one."""
        self._before = None if before is None or before.done else before
        self._symbols = symbols
        self._until: Positions | None = None
        self._held: deque[TradeUpdate] = deque()
        self._held_bytes = 0
        self._too_much = False
        self._released = False
        self._passes = False

    @property
    def before(self) -> Replay | None:
        """Return the last one, if its live updates cannot be sent as they are yet: it counts if this one fails."""
        return self._before

    @property
    def done(self) -> bool:
        """Tell whether live updates can be sent as they are."""
        return self._passes and self._before is None

    def hold(self) -> None:
        """Hold what comes from now on, and nothing that came before."""
        self._let_go()
        self._too_much = False

    def reached(self, until: Positions) -> bool:
        """Note that all up to `until` was sent; False: another round is needed."""
        self._until = until
        return not self._too_much

    def release(self) -> list[TradeUpdate]:
        """Return what was held and is new, in order."""
        self._released = True
        held, self._held = self._held, deque()
        return self._new(held)

    def live(self, updates: Sequence[TradeUpdate]) -> Sequence[TradeUpdate]:
        """Return what to send of live updates now: nothing while they are held."""
        if self._before is not None:
            updates = self._before.live(updates)
            if self._before.done:
                self._before = None
        if self._passes:
            return updates
        return [found for update in updates for found in self._one(update)]

    def _one(self, update: TradeUpdate) -> Sequence[TradeUpdate]:
        if self._symbols is not None and update.symbol not in self._symbols:
            return [update]
        if self._released:
            return self._new([update])
        if not self._too_much:
            self._held.append(update)
            self._held_bytes += len(update.cursor) + _UPDATE_BYTES
        if len(self._held) > MAX_HELD or self._held_bytes > MAX_HELD_BYTES:
            self._let_go()
            self._too_much = True
        return []

    def _let_go(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def _new(self, updates: Iterable[TradeUpdate]) -> list[TradeUpdate]:
        until = self._until
        assert until is not None
        found = []
        for update in updates:
            if self._passes:
                found.append(update)
                continue
            seen, journal, received_us = place_of(update.cursor)
            if received_us <= until.done_us.get(journal, 0):
                continue
            if seen.behind(until):
                update = msgspec.structs.replace(update, cursor=cursor_of(seen.joined(until), journal))
            else:
                self._passes = True
            found.append(update)
        return found
