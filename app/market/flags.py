"""MetaTrader 5's tick flags (TICK_FLAG_*); other bits occur in the wild and are stored as they are."""

from __future__ import annotations

import numpy as np

from app.market.columns import F8, I4, Mask

BID = 2
ASK = 4
LAST = 8
VOLUME = 16
BUY = 32
SELL = 64


def is_trade(flags: I4) -> Mask:
    """Return which ticks are trades: bool[n]. A quote's last and volume are stale repeats."""
    return np.asarray((flags & LAST) != 0)


def sides(flags: I4, volume: F8) -> tuple[F8, F8]:
    """Return what each tick adds to the buyers' and the sellers' volume: two float64[n], 0 for quotes."""
    bought = (flags & (LAST | BUY)) == (LAST | BUY)
    sold = (flags & (LAST | SELL)) == (LAST | SELL)
    return np.where(bought, volume, 0.0), np.where(sold, volume, 0.0)
