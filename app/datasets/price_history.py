"""Bars as vendors and other systems have them, daily ones above all. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Maybe, Moment, Name, Number, Symbol


class PriceBar(Struct, kw_only=True):
    """A bar of a symbol, from one source."""

    symbol: Symbol
    interval: Annotated[
        Literal["1s", "5s", "15s", "30s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"],
        Meta(description="length of the bar"),
    ]
    timestamp: Annotated[Moment, Meta(description="start of the bar; of a day, midnight UTC of its trading date")]
    source: Annotated[Name, Meta(description="who made the bar (word)")]
    open: Annotated[Number, Meta(description="first price (the symbol's currency)")]
    high: Annotated[Number, Meta(description="highest price (the symbol's currency)")]
    low: Annotated[Number, Meta(description="lowest price (the symbol's currency)")]
    close: Annotated[Number, Meta(description="last price, unadjusted (the symbol's currency)")]
    adj_close: Annotated[
        Maybe[Number],
        Meta(description="close, adjusted for corporate actions since (the symbol's currency); computed when absent"),
    ] = UNSET
    volume: Annotated[Maybe[Amount], Meta(description="volume (the symbol's units)")] = UNSET
    daily_return: Annotated[
        Maybe[Number],
        Meta(description="change of adj_close since the day before (fraction: 0.01 is 1 %); computed when absent"),
    ] = UNSET
    volatility: Annotated[
        Maybe[Amount],
        Meta(description="deviation of the last 20 daily returns, yearly (fraction); computed when absent"),
    ] = UNSET
    trading_value: Annotated[Maybe[Amount], Meta(description="price times volume (the symbol's currency)")] = UNSET


# Read, not stored: a corporate action or a bar that comes late changes them. Once for each series of a page, because
# they follow from rows around it. These functions say what market/adjusting.py says.
_JOINED = """
    LEFT JOIN (
        SELECT s.symbol_id, s."interval", s.source, f.ex_dates, f.products
        FROM (SELECT DISTINCT symbol_id, "interval", source FROM page WHERE adj_close IS NULL) s
        CROSS JOIN LATERAL bar_factors(s.symbol_id, s."interval", s.source) f
    ) f ON f.symbol_id = t.symbol_id AND f."interval" = t."interval" AND f.source = t.source
    LEFT JOIN (
        SELECT s.symbol_id, s.source, c.time, c.daily_return, c.volatility
        FROM (
            SELECT symbol_id, source, min(time) AS first, max(time) AS last
            FROM page WHERE "interval" = '1d' GROUP BY symbol_id, source
        ) s
        CROSS JOIN LATERAL day_changes(s.symbol_id, s.source, s.first, s.last) c
    ) c ON t."interval" = '1d' AND c.symbol_id = t.symbol_id AND c.source = t.source AND c.time = t.time
"""

DATASET = Dataset(
    name="price_history",
    record=PriceBar,
    key=("symbol", "interval", "timestamp", "source"),
    policy="update",
    help="Bars by symbol, interval, time and who made them",
    computed={
        "adj_close": "factored(t.close, t.time, f.ex_dates, f.products)",
        "daily_return": "c.daily_return",
        "volatility": "c.volatility",
    },
    joined=_JOINED,
    computed_of=("price_history", "corporate_actions"),
)
