"""Ratios of a company, a row a day. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Date, Maybe, Number, Symbol


class FinancialInfo(Struct, kw_only=True):
    """What is known of a company on a day."""

    symbol: Symbol
    date: Annotated[Date, Meta(description="day that it is of, on the exchange's calendar")]
    price: Annotated[Maybe[Amount], Meta(description="price of a share (the symbol's currency)")] = UNSET
    market_cap: Annotated[Maybe[Amount], Meta(description="market capitalisation (the symbol's currency)")] = UNSET
    pe_ratio: Annotated[Maybe[Number], Meta(description="price to earnings (ratio)")] = UNSET
    pb_ratio: Annotated[Maybe[Number], Meta(description="price to book value (ratio)")] = UNSET
    dividend_yield: Annotated[Maybe[Amount], Meta(description="yearly dividends to price (fraction: 0.01 is 1 %)")] = (
        UNSET
    )
    iv_30d: Annotated[Maybe[Amount], Meta(description="implied volatility of 30 days, yearly (fraction)")] = UNSET
    iv_rank: Annotated[
        Maybe[Amount], Meta(description="rank of iv_30d within the year (number, as the sender counts it)")
    ] = UNSET


DATASET = Dataset(
    name="financial_info",
    record=FinancialInfo,
    key=("symbol", "date"),
    time="date",
    policy="update",
    ahead=True,
    help="Ratios of a company, a row a symbol and day",
)
