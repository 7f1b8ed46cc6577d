"""Outliers: changes of price that are far from the day's others. Pure; may run on a lane.

A change is the logarithm of a price over the one before it that differs; a price that is said again is none, so that
hours of one price do not make every other change an outlier. Its score is the modified z-score of Iglewicz and Hoaglin
(How to Detect and Handle Outliers, ASQC 1993), 0.6745 (x - m) / MAD, where m is the centre and MAD the median of
|x - m|. Here m is 0 and not the median of the changes: where prices move by single ticks the median is a tick up or
down, half of the changes are nearly equal to it, so MAD about it is nothing and the other half are all outliers. About
0 it is the usual size of a change, and never 0, for no change is.
"""

from __future__ import annotations

import numpy as np

from app.market.columns import F8, I8, Mask

FEWEST_CHANGES = 20
"""Of fewer a median says little: then nobody knows whether there are outliers."""

MAD_TO_SIGMA = 0.6745
"""The third quartile of the standard normal distribution: what MAD is there, in deviations."""


def differing(prices: F8, before: float) -> Mask:
    """Return which prices differ from the one before, `before` being that of the first (NaN: there is none)."""
    return np.asarray(np.diff(prices, prepend=before) != 0)  # from NaN to a price is a difference, too


def log_changes(prices: F8) -> F8:
    """Return the changes from each price to the next: float64[n - 1]. All prices are above zero."""
    before = prices[:-1]
    return np.asarray(np.log1p((prices[1:] - before) / before))  # not 0 where the prices hardly differ


def scores(changes: F8) -> F8 | None:
    """Return the score of each change, none of which is 0; None: there are too few."""
    if len(changes) < FEWEST_CHANGES:
        return None
    return np.asarray(MAD_TO_SIGMA * changes / np.median(np.abs(changes)))


def outliers(times_us: I8, prices: F8, beyond: float) -> tuple[I8, F8] | None:
    """Return where the score of the change to a price is beyond: rows of `prices`, and the scores. None: too few.

    prices: above zero, each differing from the one before; times_us: theirs.
    """
    found = scores(log_changes(prices)) if len(prices) else None
    if found is None:
        return None
    rows = np.flatnonzero(np.abs(found) > beyond)
    return rows.astype(np.int64) + 1, found[rows]
