"""Who is due when, in slots of time: those who are due within one are served together. Pure."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

T = TypeVar("T")

SLOT_S = 0.01
"""Texts are made for those who are due together; so often at most."""


class Schedule(Generic[T]):
    """Items by the time at which they are due, in seconds of any clock. Put again, an item is due at that time only."""

    def __init__(self) -> None:
        self._slot_of: dict[T, int] = {}
        self._slots: dict[int, list[T]] = {}
        self._order: list[int] = []

    def put(self, item: T, when_s: float) -> None:
        """Have an item due in the first slot that begins at that time or later."""
        self._put(item, math.ceil(when_s / SLOT_S))

    def put_now(self, item: T, now_s: float) -> None:
        """Have an item due at once."""
        self._put(item, math.floor(now_s / SLOT_S))

    def due(self, now_s: float) -> list[T]:
        """Take out and return those that are due, each once."""
        slot_now = math.floor(now_s / SLOT_S)
        found = []
        while self._order and self._order[0] <= slot_now:
            slot = heapq.heappop(self._order)
            for item in self._slots.pop(slot):
                if self._slot_of.get(item) == slot:
                    del self._slot_of[item]
                    found.append(item)
        return found

    def next_s(self) -> float | None:
        """Return when the next slot begins that somebody is in."""
        return self._order[0] * SLOT_S if self._order else None

    def _put(self, item: T, slot: int) -> None:
        if self._slot_of.get(item) == slot:
            return
        self._slot_of[item] = slot  # where it was before it is passed over
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = [item]
            heapq.heappush(self._order, slot)
        else:
            items.append(item)
