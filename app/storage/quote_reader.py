"""Read quotes: newest prices, and the price that their change is counted from. Lane side.

Sessions are found in Python: whoever writes a time zone that PostgreSQL does not know into `instruments` must not take
everybody's quotes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extensions import cursor as Cursor

from app.market.quotes import Key, Point, QuoteRow
from app.market.sessions import Sessions

_HOUR_US, _DAY_US = 3_600_000_000, 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = 'SELECT symbol FROM instruments ORDER BY symbol COLLATE "C"'
_NEWEST = """
    SELECT * FROM newest_quotes(%s, %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[],
        %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])
"""

Edges = tuple[datetime | None, ...]
"""Of a session: where prices before it end, that time's day and hour (UTC) first; its end; where its own close is, day
and hour first, or None where the newest tick is not after it."""

_UNKNOWN: Edges = (None,) * 7
_NOT_CLOSED: Edges = (None,) * 3


class QuoteReader:
    """Reads quotes, of one database; any number of lanes at a time.

    The statement is told in which session the newest tick is, which only its answer can tell. It is nearly always the
    one of the time before; where it is not, the quote is read again.
    """

    def __init__(self) -> None:
        self._edges: dict[str, Edges] = {}

    def read(self, cur: Cursor, symbols: Sequence[str] | None) -> list[QuoteRow]:
        """Return the quotes of these instruments (exact names), in that order, or of all, by name.

        Instruments without ticks have a row without prices; names that are none are left out. Each row is of one
        moment, even where the cursor has a transaction for each statement.
        """
        if symbols is None:
            cur.execute(_NAMES)
            symbols = [name for (name,) in cur.fetchall()]
        sessions = Sessions()
        rows: dict[str, QuoteRow] = {}
        left: Sequence[str] = symbols
        while left:
            again = []
            for row in _newest(cur, left, [self._edges.get(name, _UNKNOWN) for name in left]):
                rows[row.symbol] = row
                edges = _edges(sessions, row)
                if edges is not None and edges != self._edges.get(row.symbol):
                    self._edges[row.symbol] = edges
                    again.append(row.symbol)
            left = again
        return [rows[name] for name in symbols if name in rows]


def chart_side(cur: Cursor, symbol: str) -> str:
    """Return whose prices a chart of the instrument (exact name) shows: last if it has trades, else bid."""
    cur.execute("SELECT last IS NOT NULL FROM current WHERE symbol = %s", (symbol,))
    row = cur.fetchone()
    return "last" if row is not None and row[0] else "bid"


def _newest(cur: Cursor, symbols: Sequence[str], edges: Sequence[Edges]) -> list[QuoteRow]:
    told: list[list[datetime | None] | None] = [list(moments) for moments in zip(*edges, strict=True)]
    if not any(told[-1] or ()):
        told[-3:] = [None] * 3  # in market hours: a plan without them
    cur.execute(_NEWEST, (list(symbols), *told))
    return [_row(found) for found in cur.fetchall()]


def _edges(sessions: Sessions, row: QuoteRow) -> Edges | None:
    """Return what the statement has to be told; None for a row without a price."""
    if row.key is None or (row.last is None and row.bid is None):
        return None
    span = sessions.of(row.key.time_us, row.market)
    closed = row.key.time_us >= span.close_us
    return (*_before(span.cut_us), _time(span.end_us), *(_before(span.close_us) if closed else _NOT_CLOSED))


def _before(us: int) -> Edges:
    return _time(us // _DAY_US * _DAY_US), _time(us // _HOUR_US * _HOUR_US), _time(us)


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _row(found: tuple[Any, ...]) -> QuoteRow:
    symbol, digits, exchange, zone, bid, bid_key, ask, ask_key, last, last_key, tick_key, *values = found[:-6]
    before, before_key, first, first_key, closing, closing_key = found[-6:]
    row = QuoteRow(
        symbol,
        digits,
        exchange,
        zone,
        _point(bid, bid_key),
        _point(ask, ask_key),
        _point(last, last_key),
        None if tick_key is None else _key(tick_key),
        *values,
    )
    row.before, row.open = _point(before, before_key), _point(first, first_key)
    row.closing = _point(closing, closing_key)
    return row


def _point(price: float | None, key: Any) -> Point | None:
    return None if price is None or key is None else Point(_key(key), price)


def _key(key: Any) -> Key:
    return Key(int.from_bytes(key[:8], "big"), int.from_bytes(key[8:16], "big"))
