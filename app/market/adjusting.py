"""What follows from daily closes: adjusted closes, returns and volatility. Pure; may run on a lane.

Arrays are float64, oldest day first, with NaN where a value is absent. Nothing here replaces a value that was given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.market.columns import F8, I8, Mask

WINDOW = 20
"""Returns that a volatility is made of: about a month of trading days."""

DAYS_A_YEAR = 252
"""Trading days by which the desk annualises, whatever the exchange."""

CASH = frozenset({"dividend", "cash_dividend", "special_dividend"})
"""`amount` a share leaves the company."""
SPLIT = frozenset({"split", "stock_split", "reverse_split"})
"""`ratio` shares stand where one stood: 7 for seven-for-one, 0.1 for one-for-ten."""
STOCK = frozenset({"stock_dividend", "bonus", "bonus_issue"})
"""`ratio` shares come to each one held: 0.05 for five percent."""


@dataclass(slots=True, frozen=True)
class Action:
    """A corporate action. ex_day: the first day traded without it (days since 1970-01-01).

    amount: cash a share, in the currency of the prices; ratio: as the kinds above say. Other kinds change no price.
    """

    ex_day: int
    kind: str
    amount: float | None = None
    ratio: float | None = None


def adjusted_closes(days: I8, closes: F8, actions: Iterable[Action]) -> F8:
    """Return the closes as if every action had always been in force: the newest stay as they are.

    days: since 1970-01-01, rising. Each close before an action's ex-day is multiplied by its factor, which is
    1 - amount / (the last close before it) for cash, 1 / ratio for a split, 1 / (1 + ratio) for shares (the way of
    CRSP). An action after the last day, or before the first, changes nothing. Raises ValueError for an action that
    lacks its number, or whose factor would not be positive.
    """
    if len(days) != len(closes) or np.any(np.diff(days) <= 0):
        raise ValueError("days must rise, one for each close")
    factors: F8 = np.ones(len(days))
    for action in actions:
        before = int(np.searchsorted(days, action.ex_day))
        if 0 < before < len(days):
            factors[:before] *= _factor(action, closes[:before])
    return closes * factors


def daily_returns(adjusted: F8) -> F8:
    """Return each day's change against the day before as a fraction (0.01: one percent); NaN on the first day.

    NaN too where either close is absent or not positive: a change from nothing is no number.
    """
    returns: F8 = np.full(len(adjusted), np.nan)
    known = np.where(adjusted > 0, adjusted, np.nan)
    returns[1:] = known[1:] / known[:-1] - 1.0
    return returns


def volatility(returns: F8, window: int = WINDOW, days_a_year: int = DAYS_A_YEAR) -> F8:
    """Return the sample standard deviation of the last `window` returns, annualised, as a fraction.

    NaN where fewer are there, or one of them is absent.
    """
    if window < 2:
        raise ValueError("a deviation needs two returns at least")
    found: F8 = np.full(len(returns), np.nan)
    if len(returns) >= window:
        # Over the windows themselves: running sums would carry the rounding of one wild day to all later ones.
        windows = np.lib.stride_tricks.sliding_window_view(returns, window)
        found[window - 1 :] = windows.std(axis=1, ddof=1) * math.sqrt(days_a_year)
    return found


@dataclass(slots=True, frozen=True)
class Filled:
    """Daily values without holes; `computed` tells, for each column, which of them were absent and are computed."""

    adj_close: F8
    daily_return: F8
    volatility: F8
    computed: dict[str, Mask]


def fill_absent(
    days: I8, closes: F8, adj_close: F8, daily_return: F8, volatility_: F8, actions: Iterable[Action]
) -> Filled:
    """Return what was given, and computed values where it was absent; what cannot be computed stays NaN.

    Returns are made of the given adjusted closes only if all are given: a vendor's adjustment and ours in one series
    would make a jump that nobody traded. Raises ValueError as `adjusted_closes` does.
    """
    own = adjusted_closes(days, closes, actions)
    series = own if np.isnan(adj_close).any() else adj_close
    made_returns = daily_returns(series)
    returns = np.where(np.isnan(daily_return), made_returns, daily_return)
    given = {"adj_close": adj_close, "daily_return": daily_return, "volatility": volatility_}
    made = {"adj_close": own, "daily_return": made_returns, "volatility": volatility(returns)}
    full = {name: np.where(np.isnan(values), made[name], values) for name, values in given.items()}
    computed = {name: np.isnan(values) & ~np.isnan(full[name]) for name, values in given.items()}
    return Filled(full["adj_close"], full["daily_return"], full["volatility"], computed)


def _factor(action: Action, closes_before: F8) -> float:
    if action.kind in CASH:
        known = closes_before[~np.isnan(closes_before)]
        if not len(known):
            return 1.0
        last = float(known[-1])
        factor = 1.0 - _number(action, "amount", action.amount) / last if last > 0 else math.nan
    elif action.kind in SPLIT:
        factor = 1.0 / (_number(action, "ratio", action.ratio) or math.nan)
    elif action.kind in STOCK:
        factor = 1.0 / ((1.0 + _number(action, "ratio", action.ratio)) or math.nan)
    else:
        return 1.0
    if not (0 < factor < math.inf):
        raise ValueError(f"the {action.kind} of day {action.ex_day} would leave no positive price")
    return factor


def _number(action: Action, name: str, value: float | None) -> float:
    if value is None or not math.isfinite(value):
        raise ValueError(f"the {action.kind} of day {action.ex_day} has no {name}")
    return value
