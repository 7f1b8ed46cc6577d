"""How orders are executed, over all strategies. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Count, Dataset, Maybe, Moment, Number, Share


class ExecutionMetrics(Struct, kw_only=True):
    """What is measured of executions at one moment."""

    timestamp: Moment
    orders_submitted: Annotated[Maybe[Count], Meta(description="orders submitted since the last one (count)")] = UNSET
    orders_filled: Annotated[Maybe[Count], Meta(description="orders filled since the last one (count)")] = UNSET
    orders_cancelled: Annotated[Maybe[Count], Meta(description="orders cancelled since the last one (count)")] = UNSET
    orders_rejected: Annotated[Maybe[Count], Meta(description="orders rejected since the last one (count)")] = UNSET
    fill_rate: Annotated[Maybe[Share], Meta(description="orders filled of those submitted (fraction)")] = UNSET
    avg_latency_ms: Annotated[Maybe[Amount], Meta(description="mean time from order to answer (ms)")] = UNSET
    avg_slippage_bps: Annotated[
        Maybe[Number], Meta(description="mean price paid beyond the expected one (hundredths of a percent)")
    ] = UNSET


DATASET = Dataset(
    name="execution_metrics",
    record=ExecutionMetrics,
    key=("timestamp",),
    policy="update",
    retention="metrics",
    aggregates={
        "orders_submitted": "sum",
        "orders_filled": "sum",
        "orders_cancelled": "sum",
        "orders_rejected": "sum",
        "fill_rate": "avg",
        "avg_latency_ms": "avg",
        "avg_slippage_bps": "avg",
    },
    partitions="month",
    rollup=True,
    help="How orders are executed, over all strategies",
)
