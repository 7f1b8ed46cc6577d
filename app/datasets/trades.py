"""Trades: those that were sent as such, and those that are in trade ticks. Pure.

Sent trades are in the table `trades_sent`. What is read, here and by the view `trades`, unites them with the ticks that
are trades (`trades_between`, migration 0014), so nothing is stored twice, and ticks are received as ever.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Maybe, Moment, Number, Symbol
from app.market.flags import BUY, LAST, SELL, VOLUME
from app.market.identity import derive_seq

Seq = Annotated[int, Meta(gt=-(1 << 63), lt=1 << 52)]  # that one stands for null in answers

_SIDES = {"buy": BUY, "sell": SELL}


class Trade(Struct, kw_only=True):
    """A trade."""

    symbol: Symbol
    timestamp: Moment
    seq: Annotated[
        Maybe[Seq],
        Meta(description="ordinal at that time if >= 0 (the sender's), else derived from the content, as for ticks"),
    ] = UNSET
    price: Annotated[Number, Meta(description="what was paid (price)")]
    volume: Annotated[Maybe[Amount], Meta(description="how much (instrument's units)")] = UNSET
    value: Annotated[Maybe[Number], Meta(description="price x volume (the price's currency); computed when absent")] = (
        UNSET
    )
    trade_type: Annotated[
        Maybe[Literal["buy", "sell", "neutral"]],
        Meta(description="who crossed the spread; when absent by the quote: above its middle buy, below it sell"),
    ] = UNSET
    bid_price: Annotated[
        Maybe[Number], Meta(description="bid at that moment (price); the newest one of the ticks when absent")
    ] = UNSET
    ask_price: Annotated[
        Maybe[Number], Meta(description="ask at that moment (price); the newest one of the ticks when absent")
    ] = UNSET


def derive(columns: dict[str, list[Any]]) -> None:
    """Fill in `seq` where none was sent: the number that the tick of this trade would have."""
    rows = [at for at, seq in enumerate(columns["seq"]) if seq is UNSET or seq is None]
    if not rows:
        return
    names = sorted({columns["symbol"][at] for at in rows})
    numbers = {name: number for number, name in enumerate(names)}
    bid, ask, price, volume = (_floats(columns[name], rows) for name in ("bid_price", "ask_price", "price", "volume"))
    found = derive_seq(
        names,
        np.array([numbers[columns["symbol"][at]] for at in rows], np.int32),
        np.array([columns["timestamp"][at] for at in rows], np.int64),
        bid,
        ask,
        price,
        volume,
        np.array([LAST | VOLUME | _SIDES.get(columns["trade_type"][at], 0) for at in rows], np.int32),
    )
    for at, seq in zip(rows, found.tolist(), strict=True):
        columns["seq"][at] = seq


def _floats(values: list[Any], rows: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([values[at] if isinstance(values[at], float | int) else np.nan for at in rows], np.float64)


DATASET = Dataset(
    name="trades",
    record=Trade,
    key=("symbol", "timestamp", "seq"),
    derive=derive,
    stored_in="trades_sent",
    # By trades_between, which has to look for the quote.
    computed={name: f"t.{name}" for name in ("value", "trade_type", "bid_price", "ask_price")},
    help="Trades: sent ones, and those of trade ticks (flags & 8); a sent one stands for the tick of its key",
)
