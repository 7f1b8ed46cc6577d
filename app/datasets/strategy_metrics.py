"""How a strategy does, as it tells itself. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Count, Dataset, Maybe, Moment, Name, Number, Share


class StrategyMetrics(Struct, kw_only=True):
    """What a strategy measures at one moment."""

    strategy_name: Annotated[Name, Meta(description="the strategy (name)")]
    timestamp: Moment
    pnl: Annotated[Maybe[Number], Meta(description="profit and loss so far (account's currency)")] = UNSET
    daily_pnl: Annotated[Maybe[Number], Meta(description="profit and loss of the day (account's currency)")] = UNSET
    positions: Annotated[Maybe[Count], Meta(description="open positions (count)")] = UNSET
    signals: Annotated[Maybe[Count], Meta(description="signals so far (count)")] = UNSET
    win_rate: Annotated[Maybe[Share], Meta(description="trades that won (fraction: 0.5 is half)")] = UNSET


DATASET = Dataset(
    name="strategy_metrics",
    record=StrategyMetrics,
    key=("strategy_name", "timestamp"),
    policy="update",
    retention="metrics",
    aggregates={
        "pnl": "last",
        "daily_pnl": "last",
        "positions": "last",
        "signals": "last",
        "win_rate": "avg",
    },
    partitions="month",
    rollup=True,
    help="How strategies do",
)
