"""A chain of option quotes as columns, and what the model adds where values were not sent. Pure, lane side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from app.market.option_symbols import contract_symbol
from app.market.options import (
    Bools,
    Floats,
    Market,
    greeks,
    implied_volatilities,
    in_the_money,
    worth,
    years_to,
)

GREEKS = ("delta", "gamma", "theta", "vega", "rho")
MODELLED = ("implied_volatility", *GREEKS)
"""What the model gives where it was not sent."""

SENT, COMPUTED, MIXED = "sent", "computed", "mixed"
"""greeks_source of a quote whose sender gave none: all of MODELLED that is there was sent, was computed, or some of
it was one and some the other."""

T = TypeVar("T")
Days = npt.NDArray[np.datetime64]
Times = npt.NDArray[np.int64]


@dataclass(slots=True)
class Chain:
    """n quotes, a contract each. Floats are NaN where nothing is known; prices in the currency of the underlying."""

    symbol: str
    """Canonical name of the underlying."""

    zone: str | None
    """Time zone of its exchange, an IANA name."""

    expirations: Days
    strikes: Floats
    calls: Bools
    times_us: Times
    bid: Floats
    ask: Floats
    last_price: Floats
    volume: Floats
    open_interest: Floats
    implied_volatility: Floats
    delta: Floats
    gamma: Floats
    theta: Floats
    vega: Floats
    rho: Floats
    underlyings: Floats
    """Price of the underlying when the quote was made."""

    in_the_money: list[bool | None] = field(default_factory=list)
    contract_symbols: list[str | None] = field(default_factory=list)
    greeks_sources: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.strikes)


def underlying_at(times_us: Times, price_times_us: Times, prices: Floats) -> Floats:
    """Return the newest of the prices (ascending in time) at each time; NaN before the first."""
    places = np.searchsorted(price_times_us, times_us, side="right") - 1
    if not len(prices):
        return np.full(len(times_us), np.nan)
    return np.where(places >= 0, prices[np.maximum(places, 0)], np.nan)


def complete(chain: Chain, market: Market) -> Chain:
    """Return the chain with what was not sent: volatility, greeks, whether it is in the money, contract symbol.

    Nothing that was sent is replaced: greeks that are missing are those of the volatility that was sent, if one was.
    A volatility of 0 is none: so vendors write that they have none.
    """
    sent = chain.implied_volatility
    chain = replace(chain, implied_volatility=np.where(sent > 0, sent, np.nan))
    missing = {name: np.isnan(getattr(chain, name)) for name in MODELLED}
    wanted = np.logical_or.reduce(list(missing.values()))
    found = {name: getattr(chain, name).copy() for name in MODELLED}
    if wanted.any():
        calls, spots, strikes = chain.calls[wanted], chain.underlyings[wanted], chain.strikes[wanted]
        years = years_to(chain.expirations[wanted], chain.times_us[wanted], chain.zone)
        volatilities = found["implied_volatility"][wanted]
        unknown = np.isnan(volatilities)
        prices = np.where(unknown, worth(chain.bid[wanted], chain.ask[wanted], chain.last_price[wanted]), np.nan)
        implied = implied_volatilities(prices, calls, spots, strikes, years, market)
        volatilities = np.where(unknown, implied, volatilities)
        modelled = greeks(volatilities, calls, spots, strikes, years, market)
        computed = {"implied_volatility": volatilities} | {name: getattr(modelled, name) for name in GREEKS}
        for name, values in computed.items():
            found[name][wanted] = np.where(missing[name][wanted], values, found[name][wanted])
    known = in_the_money(chain.calls, chain.underlyings, chain.strikes)
    return replace(
        chain,
        **found,
        in_the_money=_sent_or(chain.in_the_money, known),
        contract_symbols=_sent_or(chain.contract_symbols, _symbols(chain)),
        greeks_sources=_sources(chain, missing, found),
    )


def _sent_or(sent: list[T | None], other: list[T | None]) -> list[T | None]:
    return [a if a is not None else b for a, b in zip(sent, other, strict=True)] if sent else other


def _symbols(chain: Chain) -> list[str | None]:
    days: list[date] = chain.expirations.astype("M8[D]").tolist()
    rows = zip(days, chain.calls.tolist(), chain.strikes.tolist(), strict=True)
    return [contract_symbol(chain.symbol, day, "call" if call else "put", strike) for day, call, strike in rows]


def _sources(chain: Chain, missing: dict[str, Bools], found: dict[str, Floats]) -> list[str | None]:
    was_sent = ~np.logical_and.reduce(list(missing.values()))
    was_computed = np.logical_or.reduce([missing[name] & ~np.isnan(found[name]) for name in MODELLED])
    texts = np.select(
        [was_sent & was_computed, was_computed, was_sent], [MIXED, COMPUTED, SENT], default=""
    ).tolist()
    told = chain.greeks_sources or [None] * len(chain)
    # Who sent greeks may have said where they are from; where the model added to them, that is no longer all.
    return [
        given if given is not None and text in ("", SENT) else text or None
        for text, given in zip(texts, told, strict=True)
    ]
