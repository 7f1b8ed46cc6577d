"""What a worker shows once a second of what it owns, in its slot's book. Greenlet side.

Gauges are of now, and none of a dead worker counts; counters go on over the workers of a slot.
"""

from __future__ import annotations

import time

from app.pipeline.books import Book
from app.pipeline.flusher import Flusher
from app.pipeline.window import MemoryBudget
from app.reads import Reads
from app.stream.hub import Hub

_COUNTERS = ("sent", "skipped", "too_slow")


class Gauges:
    """Copies a worker's numbers into its slot's book."""

    def __init__(self, slot: Book, reads: Reads, hub: Hub, flusher: Flusher, budget: MemoryBudget) -> None:
        self._slot, self._reads, self._hub, self._flusher, self._budget = slot, reads, hub, flusher, budget
        self._told = dict.fromkeys(_COUNTERS, 0)
        self._behind_since_us: int | None = None
        self.tick()

    def tick(self) -> None:
        """Show what is so now; to be called every second."""
        slot = self._slot
        for kind, (lanes, busy, waiting) in self._reads.use().items():
            slot[f"{kind}_lanes"], slot[f"{kind}_lanes_busy"], slot[f"{kind}_lanes_waiting"] = lanes, busy, waiting
        slot["ws_open"] = len(self._hub)
        for name in _COUNTERS:
            value: int = getattr(self._hub, name)
            slot.add(f"ws_{name}", value - self._told[name])
            self._told[name] = value
        slot["journals"] = len(self._flusher.sources)
        slot["buffer_bytes"] = self._budget.used_bytes
        slot["flush_lag_us"] = self._lag_us(time.time_ns() // 1000)

    def _lag_us(self, now_us: int) -> int:
        """Return how long the oldest row has waited; of rows on disk only it is known since when they were seen."""
        behind = [source.window.oldest_us for source in self._flusher.sources if source.window.pending_rows > 0]
        if not behind:
            self._behind_since_us = None
            return 0
        if None in behind and self._behind_since_us is None:
            self._behind_since_us = now_us
        known = [at for at in [*behind, self._behind_since_us] if at is not None]
        return max(0, now_us - min(known))
