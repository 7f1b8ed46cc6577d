"""Executions of a strategy's orders. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Maybe, Moment, Name, Number, Symbol


class Fill(Struct, kw_only=True):
    """An execution."""

    trade_id: Annotated[Name, Meta(description="what the broker calls it (name)")]
    timestamp: Moment
    symbol: Symbol
    side: Annotated[Literal["buy", "sell"], Meta(description="buy or sell")]
    quantity: Annotated[Amount, Meta(description="how much (instrument's units)")]
    price: Annotated[Number, Meta(description="at what price (price)")]
    latency_ms: Annotated[Maybe[Amount], Meta(description="time from order to fill (ms)")] = UNSET
    slippage_bps: Annotated[
        Maybe[Number], Meta(description="price paid beyond the expected one (hundredths of a percent)")
    ] = UNSET
    strategy: Annotated[Maybe[Name], Meta(description="strategy whose order it was (name)")] = UNSET


DATASET = Dataset(
    name="fills",
    record=Fill,
    key=("trade_id",),
    policy="update",
    indexes=(("symbol", "timestamp"),),
    also_by=("strategy",),
    help="Executions of orders",
)
