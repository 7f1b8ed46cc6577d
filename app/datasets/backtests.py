"""Backtests and their results. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Count, Dataset, Maybe, Moment, Name, Number, Share, Symbol


class Backtest(Struct, kw_only=True, rename={"return_": "return"}):
    """A backtest."""

    backtest_id: Annotated[Name, Meta(description="the backtest (name)")]
    strategy_name: Annotated[Maybe[Name], Meta(description="the strategy that was tried (name)")] = UNSET
    symbol: Annotated[Maybe[Symbol], Meta(description="the symbol that it was tried on")] = UNSET
    start: Annotated[Maybe[Moment], Meta(description="first time of the data")] = UNSET
    end: Annotated[Maybe[Moment], Meta(description="time before which the data ends")] = UNSET
    parameters: Annotated[Maybe[dict[str, Any]], Meta(description="what the strategy was set to (object)")] = UNSET
    initial_equity: Annotated[Maybe[Amount], Meta(description="money at the start (account's currency)")] = UNSET
    final_equity: Annotated[Maybe[Number], Meta(description="money at the end (account's currency)")] = UNSET
    return_: Annotated[Maybe[Number], Meta(description="final to initial equity, less 1 (fraction)")] = UNSET
    sharpe: Annotated[Maybe[Number], Meta(description="Sharpe ratio, yearly (ratio)")] = UNSET
    max_drawdown: Annotated[Maybe[Share], Meta(description="deepest fall from a height (fraction)")] = UNSET
    win_rate: Annotated[Maybe[Share], Meta(description="trades that won (fraction)")] = UNSET
    trades: Annotated[Maybe[Count], Meta(description="trades (count)")] = UNSET


DATASET = Dataset(
    name="backtests",
    record=Backtest,
    key=("backtest_id",),
    time=None,
    policy="update",
    also_by=("strategy_name",),
    help="Backtests and their results",
)
