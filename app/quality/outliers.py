"""Outliers: changes of price that are far from the day's others. Pure; may run on a lane.

A change is the logarithm of a price over the one before it that differs; a price that is said again is none, so that
hours of one price do not make every other change an outlier. Its score is the modified z-score of Iglewicz and Hoaglin
(How to Detect and Handle Outliers, ASQC 1993): 0.6745 (x - median) / MAD, MAD being the median of |x - median|. Where
MAD is 0 (more than half of the changes are alike), (x - median) / (1.2533 MeanAD) stands for it, MeanAD being the mean
of |x - median|, as in IBM's SPSS; where that is 0 too all changes are alike, and every score is 0.
"""

from __future__ import annotations

import numpy as np

from app.market.columns import F8, I8, Mask

FEWEST_CHANGES = 20
"""Of fewer a median says little: then nobody knows whether there are outliers."""

MAD_TO_SIGMA = 0.6745
"""The third quartile of the standard normal distribution: what MAD is there, in deviations."""
MEAN_AD_TO_SIGMA = 1.253314
"""The root of pi / 2: one over what the mean of |x| is there."""


def differing(prices: F8, before: float) -> Mask:
    """Return which prices differ from the one before, `before` being that of the first (NaN: there is none)."""
    return np.asarray(np.diff(prices, prepend=before) != 0)  # from NaN to a price is a difference, too


def log_changes(prices: F8) -> F8:
    """Return the changes from each price to the next: float64[n - 1]. All prices are above zero."""
    return np.asarray(np.diff(np.log(prices)))


def scores(changes: F8) -> F8 | None:
    """Return the score of each change; None: there are too few."""
    if len(changes) < FEWEST_CHANGES:
        return None
    off = changes - np.median(changes)
    mad = float(np.median(np.abs(off)))
    if mad > 0:
        return np.asarray(MAD_TO_SIGMA * off / mad)
    mean_ad = float(np.mean(np.abs(off)))
    return np.asarray(off / (MEAN_AD_TO_SIGMA * mean_ad)) if mean_ad > 0 else off


def outliers(times_us: I8, prices: F8, beyond: float) -> tuple[I8, F8] | None:
    """Return where the score of the change to a price is beyond: rows of `prices`, and the scores. None: too few.

    prices: above zero, each differing from the one before; times_us: theirs.
    """
    found = scores(log_changes(prices)) if len(prices) else None
    if found is None:
        return None
    rows = np.flatnonzero(np.abs(found) > beyond)
    return rows.astype(np.int64) + 1, found[rows]
