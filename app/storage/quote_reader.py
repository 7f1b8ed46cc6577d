"""Read quotes: newest prices, and the price that their change is counted from. Lane side.

Two statements. Sessions are found between them, in Python: whoever writes a time zone that PostgreSQL does not know
into `instruments` must not take everybody's quotes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor

from app.market.quotes import Key, Point, QuoteRow
from app.market.sessions import Sessions

_HOUR_US, _DAY_US = 3_600_000_000, 86_400_000_000

_NEWEST = """
    SELECT i.symbol_id, i.symbol, i.digits, i.timezone, c.bid, c.bid_key, c.ask, c.ask_key, c.last, c.last_key,
        c.tick_key, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags
    FROM instruments i LEFT JOIN current c ON c.symbol = i.symbol
"""
_OF_ALL = f'{_NEWEST} ORDER BY i.symbol COLLATE "C"'
_OF_SOME = f"{_NEWEST} WHERE i.symbol = ANY(%s)"

# The last price before a session: from the bars that fill the time before it with the fewest of them, which are some
# of its hour's minutes, then of its day's hours, then days. The LIMITs stop at the first that has a price.
_REFERENCES = """
    SELECT s.number, b.price, b.key, o.price, o.key
    FROM unnest(%(ids)s::integer[], %(trades)s::boolean[], %(days)s::bigint[], %(hours)s::bigint[],
            %(starts)s::bigint[], %(ends)s::bigint[])
        WITH ORDINALITY AS q (symbol_id, trades, day, hour, start, end_, number)
    CROSS JOIN LATERAL (SELECT q.number, q.symbol_id, q.trades,
        to_timestamp(q.day) AS day, to_timestamp(q.hour) AS hour,
        to_timestamp(q.start) AS start, to_timestamp(q.end_) AS end_) s
    LEFT JOIN LATERAL (
        (SELECT CASE WHEN s.trades THEN last_close ELSE bid_close END AS price,
                CASE WHEN s.trades THEN last_close_key ELSE bid_close_key END AS key
         FROM bars WHERE symbol_id = s.symbol_id AND resolution = 60 AND time >= s.hour AND time < s.start
             AND s.hour < s.start AND CASE WHEN s.trades THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN s.trades THEN last_close ELSE bid_close END,
                CASE WHEN s.trades THEN last_close_key ELSE bid_close_key END
         FROM bars WHERE symbol_id = s.symbol_id AND resolution = 3600 AND time >= s.day AND time < s.hour
             AND s.day < s.hour AND CASE WHEN s.trades THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN s.trades THEN last_close ELSE bid_close END,
                CASE WHEN s.trades THEN last_close_key ELSE bid_close_key END
         FROM bars WHERE symbol_id = s.symbol_id AND resolution = 86400 AND time < s.day
             AND CASE WHEN s.trades THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN s.trades THEN last_open ELSE bid_open END AS price,
               CASE WHEN s.trades THEN last_open_key ELSE bid_open_key END AS key
        FROM bars WHERE b.price IS NULL AND symbol_id = s.symbol_id AND resolution = 60
            AND time >= s.start AND time < s.end_
            AND CASE WHEN s.trades THEN last_open ELSE bid_open END IS NOT NULL
        ORDER BY time LIMIT 1
    ) o ON true
"""


def read_quotes(cur: Cursor, symbols: Sequence[str] | None) -> list[QuoteRow]:
    """Return the quotes of these instruments (exact names), in that order, or of all, by name.

    Instruments without ticks have a row without prices; names that are none are left out.
    """
    if symbols is None:
        cur.execute(_OF_ALL)
    else:
        cur.execute(_OF_SOME, (list(symbols),))
    ids: dict[str, int] = {}
    rows: dict[str, QuoteRow] = {}
    for found in cur.fetchall():
        ids[found[1]], rows[found[1]] = found[0], _row(found)
    _read_references(cur, [(ids[name], row) for name, row in rows.items()])
    return list(rows.values()) if symbols is None else [rows[name] for name in symbols if name in rows]


def chart_side(cur: Cursor, symbol: str) -> str:
    """Return whose prices a chart of the instrument (exact name) shows: last if it has trades, else bid."""
    cur.execute("SELECT last IS NOT NULL FROM current WHERE symbol = %s", (symbol,))
    row = cur.fetchone()
    return "last" if row is not None and row[0] else "bid"


def _row(found: tuple[Any, ...]) -> QuoteRow:
    _, symbol, digits, zone, bid, bid_key, ask, ask_key, last, last_key, tick_key, *rest = found
    return QuoteRow(
        symbol,
        digits,
        zone,
        _point(bid, bid_key),
        _point(ask, ask_key),
        _point(last, last_key),
        None if tick_key is None else _key(tick_key),
        *rest,
    )


def _read_references(cur: Cursor, rows: Sequence[tuple[int, QuoteRow]]) -> None:
    """Fill `before` and `open` of the rows that have a price."""
    sessions = Sessions()
    asked, columns = [], []
    for symbol_id, row in rows:
        if row.key is not None and (row.last is not None or row.bid is not None):
            start_us, end_us = sessions.of(row.key.time_us, row.timezone)
            edges = (start_us // _DAY_US * _DAY_US, start_us // _HOUR_US * _HOUR_US, start_us, end_us)
            asked.append(row)
            columns.append((symbol_id, row.side == "last", *(edge // 1_000_000 for edge in edges)))
    if not asked:
        return
    names = ("ids", "trades", "days", "hours", "starts", "ends")
    cur.execute(_REFERENCES, dict(zip(names, map(list, zip(*columns, strict=True)), strict=True)))
    for number, before, before_key, first, first_key in cur.fetchall():
        row = asked[number - 1]
        row.before, row.open = _point(before, before_key), _point(first, first_key)


def _point(price: float | None, key: Any) -> Point | None:
    return None if price is None or key is None else Point(_key(key), price)


def _key(key: Any) -> Key:
    return Key(int.from_bytes(key[:8], "big"), int.from_bytes(key[8:16], "big"))
