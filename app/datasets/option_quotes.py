"""Quotes of option contracts, by underlying. Pure.

Volatility and greeks are stored as they were sent; what was not sent is computed where chains are read
(`market/option_chain.py`), by the underlying's price and the rate as they are known then.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import MAX_NUMBER, Amount, Dataset, Date, Maybe, Moment, Name, Number, Symbol
from app.market.option_symbols import contract_symbol

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
    vega: Annotated[
        Maybe[Number], Meta(description="change of the price for a point of volatility, 0.01 (price)")
    ] = UNSET
    rho: Annotated[Maybe[Number], Meta(description="change of the price for a point of the rate, 0.01 (price)")] = UNSET
    in_the_money: Annotated[
        Maybe[bool], Meta(description="whether exercise pays; computed when absent and underlying_price is there")
    ] = UNSET
    contract_symbol: Annotated[
        Maybe[Name], Meta(description="name of the contract; in OCC form (21 characters) when absent")
    ] = UNSET
    greeks_source: Annotated[
        Maybe[Name], Meta(description="who computed volatility and greeks that were sent (name)")
    ] = UNSET
    underlying_price: Annotated[
        Maybe[Amount], Meta(description="price of the underlying at that time (price)")
    ] = UNSET


def complete(values: dict[str, Any]) -> None:
    """Fill in what follows from the record itself: the contract's symbol, and whether it is in the money.

    values: by field, the symbol by its name, the date a date or as YYYY-MM-DD.
    """
    kind, strike, day = values["option_type"], values["strike_price"], values["expiration_date"]
    if values.get("contract_symbol") is None:
        expiration = day if isinstance(day, Date) else Date.fromisoformat(day)
        values["contract_symbol"] = contract_symbol(values["symbol"], expiration, kind, strike)
    price = values.get("underlying_price")
    if values.get("in_the_money") is None and price is not None and price > 0:
        values["in_the_money"] = price > strike if kind == "call" else price < strike


DATASET = Dataset(
    name="option_quotes",
    record=OptionQuote,
    key=("symbol", "expiration_date", "strike_price", "option_type", "timestamp"),
    policy="update",
    complete=complete,
    help="Quotes of option contracts; symbol is the underlying",
)
