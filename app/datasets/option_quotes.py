"""Quotes of option contracts, by underlying. Pure.

Quotes are stored as they were sent. Volatility and greeks that were not are computed where chains are read
(`market/option_chain.py`), by the underlying's price and the rate as they are known then.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import MAX_NUMBER, Amount, Dataset, Date, Maybe, Moment, Name, Number, Symbol

Strike = Annotated[float, Meta(gt=0, le=MAX_NUMBER)]


class OptionQuote(Struct, kw_only=True):
    """A quote of an option contract."""

    symbol: Symbol
    expiration_date: Annotated[Date, Meta(description="last day of the contract, on the exchange's calendar")]
    strike_price: Annotated[Strike, Meta(description="what the underlying is bought or sold for (price)")]
    option_type: Annotated[Literal["call", "put"], Meta(description="call or put")]
    timestamp: Moment
    bid: Annotated[Maybe[Amount], Meta(description="bid (price); 0: nobody bids")] = UNSET
    ask: Annotated[Maybe[Amount], Meta(description="ask (price)")] = UNSET
    last_price: Annotated[Maybe[Amount], Meta(description="last trade (price)")] = UNSET
    volume: Annotated[Maybe[Amount], Meta(description="traded since the day began (contracts)")] = UNSET
    open_interest: Annotated[Maybe[Amount], Meta(description="open interest (contracts)")] = UNSET
    implied_volatility: Annotated[
        Maybe[Amount], Meta(description="implied volatility, yearly (fraction: 0.25 is 25 %); 0: the sender has none")
    ] = UNSET
    delta: Annotated[Maybe[Number], Meta(description="change of the price for 1 of the underlying (ratio)")] = UNSET
    gamma: Annotated[Maybe[Number], Meta(description="change of delta for 1 of the underlying (1/price)")] = UNSET
    theta: Annotated[Maybe[Number], Meta(description="change of the price for a calendar day (price/day)")] = UNSET
    vega: Annotated[Maybe[Number], Meta(description="change of the price for a point of volatility, 0.01 (price)")] = (
        UNSET
    )
    rho: Annotated[Maybe[Number], Meta(description="change of the price for a point of the rate, 0.01 (price)")] = UNSET
    in_the_money: Annotated[
        Maybe[bool], Meta(description="whether exercise pays; computed when absent and underlying_price is there")
    ] = UNSET
    contract_symbol: Annotated[
        Maybe[Name], Meta(description="name of the contract; computed in OCC form (21 characters) when absent")
    ] = UNSET
    greeks_source: Annotated[
        Maybe[Name], Meta(description="who computed volatility and greeks that were sent (name)")
    ] = UNSET
    underlying_price: Annotated[Maybe[Amount], Meta(description="price of the underlying at that time (price)")] = UNSET


# Read, not stored: with on_duplicate=update it would replace the name that a quote before was sent with.
_CONTRACT_SYMBOL = """(
    SELECT occ_symbol(i.symbol, t.expiration_date, t.option_type, t.strike_price)
    FROM instruments i WHERE i.symbol_id = t.symbol_id)"""
_IN_THE_MONEY = """
    CASE t.option_type
        WHEN 'call' THEN t.underlying_price > t.strike_price ELSE t.underlying_price < t.strike_price END"""

DATASET = Dataset(
    name="option_quotes",
    record=OptionQuote,
    key=("symbol", "expiration_date", "strike_price", "option_type", "timestamp"),
    policy="update",
    # With the whole key behind: else a chain that comes again is found by whole chains before a month is analyzed.
    indexes=(("symbol", "timestamp", "expiration_date", "strike_price", "option_type"),),
    computed={"contract_symbol": _CONTRACT_SYMBOL, "in_the_money": _IN_THE_MONEY},
    partitions="month",
    help="Quotes of option contracts; symbol is the underlying",
)
