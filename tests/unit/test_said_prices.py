"""The newest `last` of an instrument's ticks, kept from batch to batch."""

from __future__ import annotations

import math

import numpy as np

from app.market.columns import Ticks
from app.market.said_prices import SaidPrice, SaidPrices


def ticks(*rows: tuple[str, int, float]) -> Ticks:
    """Return ticks of (symbol, time_us, last)."""
    names = sorted({symbol for symbol, _, _ in rows})
    zeros = np.zeros(len(rows))
    return Ticks(
        names,
        np.array([names.index(symbol) for symbol, _, _ in rows], np.int32),
        np.array([time_us for _, time_us, _ in rows], np.int64),
        np.zeros(len(rows), np.int64),
        zeros,
        zeros,
        np.array([last for _, _, last in rows]),
        zeros,
        zeros,
        np.full(len(rows), 6, np.int32),
    )


def test_each_instrument_has_the_newest_price_that_one_of_its_ticks_said() -> None:
    said = SaidPrices()
    said.add(ticks(("A", 1, 1.5), ("B", 1, 7.5), ("A", 2, 2.5), ("A", 3, math.nan), ("B", 3, 0.0)))
    assert said.get("A") == SaidPrice(2, 2.5)
    assert said.get("B") == SaidPrice(1, 7.5)
    assert said.get("C") is None


def test_a_later_batch_counts_unless_it_is_older() -> None:
    said = SaidPrices()
    said.add(ticks(("A", 5, 1.5)))
    said.add(ticks(("A", 4, 2.5)))
    assert said.get("A") == SaidPrice(5, 1.5)
    said.add(ticks(("A", 5, 3.5)))
    assert said.get("A") == SaidPrice(5, 3.5)
    said.add(ticks(("B", 9, math.nan)))
    assert said.get("B") is None
