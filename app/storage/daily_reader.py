"""Read an instrument's days by pages: the rows of the view price_history_daily, with returns and volatility. Lane side.

Days are bounded before anything is made of them, which the view cannot know: a year of one symbol reads a year and the
twenty days before it, from which its first returns and volatilities are counted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.formats.table import NULL_INT, Field, Table, Values, empty
from app.storage.tick_reader import timestamp

DAYS: tuple[Field, ...] = (
    Field("timestamp", "time", "midnight UTC of the trading date"),
    Field("open", "float", "first price (the symbol's currency)"),
    Field("high", "float", "highest price (the symbol's currency)"),
    Field("low", "float", "lowest price (the symbol's currency)"),
    Field("close", "float", "last price, unadjusted (the symbol's currency)"),
    Field(
        "adj_close",
        "float",
        "the vendor's adjusted close, else computed from corporate_actions; null: one of them lacks its number",
    ),
    Field("volume", "float", "volume (the symbol's units); null: not known"),
    Field("daily_return", "float", "the vendor's, else the adjusted close's change since the day before (fraction)"),
    Field("volatility", "float", "the vendor's, else the deviation of the last 20 daily returns, yearly (fraction)"),
    Field("trading_value", "float", "price times volume (the symbol's currency); null: not known"),
    Field("source", "text", "the vendor; ticks: made of the ticks of the day"),
)
_KEY = struct.Struct(">q")

_TIMES = """
    (SELECT DISTINCT time FROM price_history
     WHERE symbol_id = %(symbol_id)s AND "interval" = '1d' AND {condition}
     ORDER BY time {order} LIMIT {limit})
    UNION
    (SELECT time FROM bars
     WHERE symbol_id = %(symbol_id)s AND resolution = 86400 AND coalesce(last_close, bid_close) IS NOT NULL
         AND {condition}
     ORDER BY time {order} LIMIT {limit})
    ORDER BY time {order} LIMIT {limit}
"""
# What the view says, of one symbol; change and factor as the functions day_changes and bar_factors have them.
_READ = """
    WITH page AS MATERIALIZED ({page}), edges AS MATERIALIZED (
        SELECT min(time) AS first, max(time) AS last FROM page
    ), before AS MATERIALIZED ({before}), factors AS MATERIALIZED (
        SELECT ex_dates, products FROM bar_factors(%(symbol_id)s, '1d', NULL)
    ), spans AS MATERIALIZED (
        SELECT coalesce((SELECT min(time) FROM before), edges.first) AS first, edges.last FROM edges
    ), days AS (
        SELECT v.* FROM (
            SELECT DISTINCT ON (p.time) p.time, p.open, p.high, p.low, p.close, p.adj_close, p.volume,
                p.daily_return, p.volatility, p.trading_value, p.source
            FROM price_history p
            WHERE p.symbol_id = %(symbol_id)s AND p."interval" = '1d'
                AND p.time >= (SELECT first FROM spans) AND p.time <= (SELECT last FROM spans)
            ORDER BY p.time, p.source
        ) v
        UNION ALL
        SELECT b.time,
            CASE WHEN b.last_close IS NOT NULL THEN b.last_open ELSE b.bid_open END,
            CASE WHEN b.last_close IS NOT NULL THEN b.last_high ELSE b.bid_high END,
            CASE WHEN b.last_close IS NOT NULL THEN b.last_low ELSE b.bid_low END,
            coalesce(b.last_close, b.bid_close), NULL, b.volume::float8, NULL, NULL, NULL, NULL
        FROM bars b
        WHERE b.symbol_id = %(symbol_id)s AND b.resolution = 86400 AND coalesce(b.last_close, b.bid_close) IS NOT NULL
            AND b.time >= (SELECT first FROM spans) AND b.time <= (SELECT last FROM spans)
            AND NOT EXISTS (
                SELECT FROM price_history p
                WHERE p.symbol_id = %(symbol_id)s AND p."interval" = '1d' AND p.time = b.time)
    ), pairs AS (
        SELECT d.*, lag(d.time) OVER by_time AS time_before, lag(d.close) OVER by_time AS close_before,
            lag(d.adj_close) OVER by_time AS adj_before
        FROM days d WINDOW by_time AS (ORDER BY d.time)
    ), changes AS (
        SELECT p.*, coalesce(p.daily_return, CASE
            WHEN p.adj_close IS NOT NULL AND p.adj_before IS NOT NULL THEN
                CASE WHEN p.adj_close >= 1e-9 AND p.adj_before >= 1e-9 THEN p.adj_close / p.adj_before - 1 END
            WHEN p.close >= 1e-9 AND p.close_before >= 1e-9 THEN
                p.close / (p.close_before * CASE
                    WHEN f.ex_dates IS NULL OR width_bucket((p.time_before AT TIME ZONE 'UTC')::date, f.ex_dates)
                        = width_bucket((p.time AT TIME ZONE 'UTC')::date, f.ex_dates) THEN 1
                    ELSE actions_factor(%(symbol_id)s, p.time_before, p.time, p.close_before) END) - 1
            END) AS change
        FROM pairs p LEFT JOIN factors f ON true
    ), told AS (
        SELECT c.*, coalesce(c.volatility, CASE WHEN count(c.change) OVER last_20 = 20
            THEN stddev_samp(c.change) OVER last_20 * sqrt(252) END) AS deviation
        FROM changes c WINDOW last_20 AS (ORDER BY c.time ROWS 19 PRECEDING)
    )
    SELECT (extract(epoch FROM t.time) * 1000000)::bigint, t.open, t.high, t.low, t.close,
        coalesce(t.adj_close, factored(t.close, t.time, f.ex_dates, f.products)),
        t.volume, t.change, t.deviation, t.trading_value, coalesce(t.source, 'ticks')
    FROM told t LEFT JOIN factors f ON true WHERE t.time >= (SELECT first FROM edges)
    ORDER BY t.time {order}
"""
_DAYS_BEFORE = 20
_VERSION = """
    SELECT count(*), sum(version) FROM (
        SELECT xmin::text::bigint AS version FROM price_history
        WHERE symbol_id = %(symbol_id)s AND "interval" = '1d'
        UNION ALL
        SELECT version FROM bars WHERE symbol_id = %(symbol_id)s AND resolution = 86400
        UNION ALL
        SELECT xmin::text::bigint FROM corporate_actions WHERE symbol_id = %(symbol_id)s
    ) rows
"""


@dataclass(slots=True)
class DaysPage:
    """Days in the asked order, the place of the last one, and whether there are more behind it."""

    table: Table
    last_key: bytes | None
    more: bool


def read_days(
    cur: Cursor,
    symbol_id: int,
    start_us: int | None,
    end_us: int | None,
    *,
    after: bytes | None = None,
    descending: bool = False,
    max_rows: int,
) -> DaysPage:
    """Return at most `max_rows` days of [start_us, end_us), by their start, behind `after` in the asked direction.

    Raises ValueError for an `after` that no page gave.
    """
    condition, values = _range(start_us, end_us)
    if after is not None:
        if len(after) != _KEY.size:
            raise ValueError("not a day's place")
        condition += f" AND time {'<' if descending else '>'} %(after)s::timestamptz"
        values["after"] = timestamp(_KEY.unpack(after)[0])
    order = "DESC" if descending else "ASC"
    page = _TIMES.format(condition=condition, order=order, limit="%(limit)s")
    before = _TIMES.format(condition="time < (SELECT first FROM edges)", order="DESC", limit=_DAYS_BEFORE)
    query = _READ.format(page=page, before=before, order=order)
    cur.execute(query, {**values, "symbol_id": symbol_id, "limit": max_rows + 1})
    found = cur.fetchall()
    rows = found[:max_rows]
    if not rows:
        return DaysPage(empty(DAYS), None, False)
    columns = list(zip(*rows, strict=True))
    table = Table(DAYS, [_values(field, column) for field, column in zip(DAYS, columns, strict=True)])
    return DaysPage(table, _KEY.pack(rows[-1][0]), len(found) > max_rows)


def days_version(cur: Cursor, symbol_id: int) -> str:
    """Return what changes whenever a day of the instrument, or what days are adjusted by, does.

    Of whatever range: returns and volatility follow from the days before it, adjusted closes from those behind it.
    """
    cur.execute(_VERSION, {"symbol_id": symbol_id})
    found = cur.fetchone()
    assert found is not None
    return f"{found[0]}.{found[1] or 0}"


def _range(start_us: int | None, end_us: int | None) -> tuple[str, dict[str, object]]:
    condition = "time >= %(start)s::timestamptz AND time < %(end)s::timestamptz"
    start = "-infinity" if start_us is None else timestamp(start_us)
    return condition, {"start": start, "end": "infinity" if end_us is None else timestamp(end_us)}


def _values(field: Field, column: tuple[Any, ...]) -> Values:
    if field.kind == "time":
        return np.array([NULL_INT if value is None else value for value in column], np.int64)
    if field.kind == "float":
        return np.array(column, np.float64)  # None becomes NaN
    return list(column)
