"""What foreign investors bought and sold of a symbol so far in the session, as the exchange tells it. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Dataset, Maybe, Moment, Number, Symbol


class ForeignSnapshot(Struct, kw_only=True):
    """A snapshot of foreign trading."""

    symbol: Symbol
    timestamp: Moment
    f_buy_vol: Annotated[Maybe[Amount], Meta(description="bought by foreigners since the session began (shares)")] = (
        UNSET
    )
    f_sell_vol: Annotated[Maybe[Amount], Meta(description="sold by foreigners since the session began (shares)")] = (
        UNSET
    )
    f_net_vol: Annotated[
        Maybe[Number], Meta(description="bought less sold (shares); computed when absent and both are there")
    ] = UNSET
    # Without bounds: what is computed over a microsecond comes back by import, too.
    buy_speed_per_min: Annotated[
        Maybe[float],
        Meta(description="growth of f_buy_vol since the day's snapshot before (shares/min); computed when absent"),
    ] = UNSET
    sell_speed_per_min: Annotated[
        Maybe[float],
        Meta(description="growth of f_sell_vol since the day's snapshot before (shares/min); computed when absent"),
    ] = UNSET


# The volumes begin anew every day: between days there is no growth, nor where a volume shrinks. Read, not stored: a
# snapshot that comes late changes the speed of the next one. A quotient that is less than any float is an error in
# PostgreSQL.
_SPEED = """(
    SELECT CASE WHEN t.{volume} - p.{volume} BETWEEN 0 AND 1e-99 THEN 0
        WHEN t.{volume} > p.{volume}
        THEN (t.{volume} - p.{volume}) * 60 / extract(epoch FROM t.time - p.time)::float8 END
    FROM foreign_snapshots p
    WHERE p.symbol_id = t.symbol_id AND p.time < t.time AND p.{volume} IS NOT NULL
        AND p.time >= date_trunc('day', t.time, 'UTC')
    ORDER BY p.time DESC LIMIT 1)"""


DATASET = Dataset(
    name="foreign_snapshots",
    record=ForeignSnapshot,
    key=("symbol", "timestamp"),
    help="Foreign trading of a symbol, as snapshots of running totals",
    computed={
        "f_net_vol": "t.f_buy_vol - t.f_sell_vol",
        "buy_speed_per_min": _SPEED.format(volume="f_buy_vol"),
        "sell_speed_per_min": _SPEED.format(volume="f_sell_vol"),
    },
    computed_of=("foreign_snapshots",),
)
