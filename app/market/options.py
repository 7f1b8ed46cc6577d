"""Black-Scholes-Merton: implied volatilities and greeks of many contracts at once. Pure, lane side.

The formulas are pyvolr's (Jaeckel, "Let's Be Rational", 2015, for the volatility): arrays, without the interpreter's
lock where they are long, no pandas and no scipy. It is imported here only, and when first needed.

All arrays are float64 and as long as each other, NaN for what is not known, in the arguments as in the results. Rates
and yields are continuously compounded, a year: 0.04 = 4 %. The model is of European options: where an American one is
worth more than it allows (a put deep in the money), there is no solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from app.market.intervals import known_zone

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

YEAR_US = 365 * 86_400_000_000
"""Actual/365, as CBOE counts time to expiry for its VIX: minutes, of a year of 525,600."""

EXPIRY_TIME = time(16)
"""When contracts of a day expire, on the clock of the exchange. Options on US stocks do at 16:00 in New York; other
markets lie within hours of it, which is nothing but on the last day."""

EXPIRY_ZONE = "America/New_York"
"""Whose clock that is where the instrument's time zone is not known."""

_SMALLEST_STEP = 1e-4
"""A hundredth of a point of volatility: where it moves the price by less than rounding does, the price says nothing
about the volatility, and what a solver finds is noise."""

_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Market:
    """What the model takes beside prices.

    rate: risk-free, dividend_yield: of the underlying; both a year, continuously compounded.
    """

    rate: float
    dividend_yield: float


@dataclass(frozen=True, slots=True)
class Greeks:
    """Sensitivities in the units in which vendors and DerivaGem show them.

    delta: for 1 of the underlying; gamma: of delta, for 1 of the underlying; theta: for a calendar day that passes;
    vega: for a point of volatility (0.01); rho: for a point of the rate (0.01).
    """

    delta: Floats
    gamma: Floats
    theta: Floats
    vega: Floats
    rho: Floats


def worth(bid: Floats, ask: Floats, last: Floats) -> Floats:
    """Return what each contract is worth by its quote: what a volatility is implied from.

    The middle of bid and ask; the last price only where neither side was sent. NaN where nobody bids, where only one
    side is known, and where the sides are crossed: none of these has one worth.
    """
    two_sided = (bid > 0) & (ask >= bid)
    none_sent = np.isnan(bid) & np.isnan(ask) & (last > 0)
    return np.where(two_sided, (bid + ask) / 2, np.where(none_sent, last, np.nan))


def years_to(expirations: npt.NDArray[np.datetime64], times_us: npt.NDArray[np.int64], zone: str | None) -> Floats:
    """Return the years from each time (UTC microseconds) to the end of each expiration day; 0 or less: it is over.

    zone: of the exchange, an IANA name; None, or one that is none: New York.
    """
    days, places = np.unique(expirations.astype("M8[D]"), return_inverse=True)
    ends = np.array([_expiry_us(day, zone) for day in days.tolist()], np.int64)
    return np.asarray((ends[places] - times_us) / YEAR_US)


def implied_volatilities(
    prices: Floats, calls: Bools, underlyings: Floats, strikes: Floats, years: Floats, market: Market
) -> Floats:
    """Return the yearly volatility (0.25 = 25 %) at which the model gives each price; NaN where there is none.

    There is none for what has expired or has no price, for a price outside the model's bounds, and where the price
    hardly depends on volatility, so that it tells none (deep in the money or out of it).
    """
    from pyvolr import bs

    flags = _flags(calls)
    found = np.asarray(
        bs.implied_vol(
            prices, flags, underlyings, strikes, years, market.rate, market.dividend_yield, on_error="ignore"
        ),
        np.float64,
    )
    found = np.where(found > 0, found, np.nan)
    vega = bs.vega(underlyings, strikes, years, market.rate, found, market.dividend_yield)
    told = vega * _SMALLEST_STEP > _ROUNDING * np.maximum(underlyings, strikes)
    return np.where(told, found, np.nan)


def greeks(
    volatilities: Floats, calls: Bools, underlyings: Floats, strikes: Floats, years: Floats, market: Market
) -> Greeks:
    """Return the greeks of each contract at its volatility; NaN where it has none, or has expired."""
    from pyvolr import bs

    alive = (volatilities > 0) & (years > 0) & (underlyings > 0) & (strikes > 0)
    found = cast(
        dict[str, Floats],
        bs.greeks(_flags(calls), underlyings, strikes, years, market.rate, volatilities, market.dividend_yield),
    )
    units = {"delta": 1.0, "gamma": 1.0, "theta": 1 / 365, "vega": 0.01, "rho": 0.01}
    return Greeks(**{name: np.where(alive, found[name] * unit, np.nan) for name, unit in units.items()})


def in_the_money(calls: Bools, underlyings: Floats, strikes: Floats) -> list[bool | None]:
    """Tell whether exercising each contract at once would pay; None where the underlying's price is not known."""
    pays = np.where(calls, underlyings > strikes, underlyings < strikes)
    told: list[bool | None] = pays.tolist()
    for place in np.flatnonzero(np.isnan(underlyings)).tolist():
        told[place] = None
    return told


def _flags(calls: Bools) -> npt.NDArray[np.int8]:
    return np.where(calls, 1, -1).astype(np.int8)


@lru_cache(maxsize=4096)
def _expiry_us(day: date, zone: str | None) -> int:
    clock = ZoneInfo(zone if zone and known_zone(zone) else EXPIRY_ZONE)
    end = datetime.combine(day, EXPIRY_TIME, clock).astimezone(UTC)
    return round(end.timestamp() * 1_000_000)
