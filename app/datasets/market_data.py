"""The market as it was at moments, collected from the live feed. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Count, Dataset, Maybe, Moment, Number, Symbol


class MarketData(Struct, kw_only=True):
    """A symbol at one moment."""

    symbol: Symbol
    timestamp: Moment
    last_price: Annotated[Maybe[Number], Meta(description="last price (price)")] = UNSET
    bid: Annotated[Maybe[Number], Meta(description="bid (price)")] = UNSET
    ask: Annotated[Maybe[Number], Meta(description="ask (price)")] = UNSET
    volume: Annotated[Maybe[Amount], Meta(description="traded since the moment before (instrument's units)")] = UNSET
    trades: Annotated[Maybe[Count], Meta(description="trades since the moment before (count)")] = UNSET
    spread_bps: Annotated[Maybe[Number], Meta(description="ask - bid to their middle (hundredths of a percent)")] = (
        UNSET
    )


DATASET = Dataset(
    name="market_data",
    record=MarketData,
    key=("symbol", "timestamp"),
    policy="update",
    retention="metrics",
    aggregates={
        "last_price": "last",
        "bid": "last",
        "ask": "last",
        "volume": "sum",
        "trades": "sum",
        "spread_bps": "avg",
    },
    partitions="month",
    rollup=True,
    help="Symbols at moments, collected from the live feed",
)
