"""How orders are executed, over all strategies. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Count, Dataset, Maybe, Moment, Number, Share


class ExecutionMetrics(Struct, kw_only=True):
    """What is measured of executions at one moment."""

    timestamp: Moment
    orders_submitted: Annotated[Maybe[Count], Meta(description="orders submitted (count)")] = UNSET
    orders_filled: Annotated[Maybe[Count], Meta(description="orders filled (count)")] = UNSET
    orders_cancelled: Annotated[Maybe[Count], Meta(description="orders cancelled (count)")] = UNSET
    orders_rejected: Annotated[Maybe[Count], Meta(description="orders rejected (count)")] = UNSET
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
    help="How orders are executed, over all strategies",
)
