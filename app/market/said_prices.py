"""The newest `last` that a tick of an instrument carried, be it a trade or a quote. Pure.

In a quote it counts for nothing else, since feeds repeat the last trade there; who saves a quote with a price means it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.market.columns import Ticks


class SaidPrice(NamedTuple):
    """A price, and when it was (UTC microseconds)."""

    time_us: int
    price: float


class SaidPrices:
    """What the ticks that were shown to it said last, of each instrument.

    Of ticks of one batch the last one counts, which only is the newest if they came in order: good enough for what is
    about to be read from the database.
    """

    def __init__(self) -> None:
        self._newest: dict[str, SaidPrice] = {}

    def add(self, ticks: Ticks) -> None:
        """Take note of ticks."""
        rows = np.flatnonzero(ticks.last > 0)  # NaN is not
        if not len(rows):
            return
        ends = np.full(len(ticks.names), -1)
        ends[ticks.symbol[rows]] = rows  # of several rows of one symbol the last stays
        for name, row in zip(ticks.names, ends.tolist(), strict=True):
            if row >= 0:
                said = SaidPrice(int(ticks.time_us[row]), float(ticks.last[row]))
                held = self._newest.get(name)
                if held is None or held.time_us <= said.time_us:
                    self._newest[name] = said

    def forget(self, name: str) -> None:
        """Know nothing of an instrument (exact name) any more."""
        self._newest.pop(name, None)

    def get(self, name: str) -> SaidPrice | None:
        """Return the newest one of an instrument (exact name), None where there is none."""
        return self._newest.get(name)
