"""The bars that a commit may have changed, as `/api/bars` reads them. Lane side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from app.market.intervals import Buckets
from app.storage.bar_reader import BARS, BarQuery, read_bars
from app.storage.instruments import find

MAX_BARS = 500
"""Bars of one read, the newest: a late tick changes one, but many may lie between it and the newest one."""


@dataclass(frozen=True, slots=True)
class ChangedRange:
    """Bars of a symbol that hold ticks from low_us to high_us (UTC microseconds)."""

    symbol: str
    interval: str
    low_us: int
    high_us: int


class Bar(NamedTuple):
    """One bar of the bid (UTC, as without `tz`)."""

    start_us: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    ticks: int
    complete: bool


def changed_bars(cur: Cursor, asked: Sequence[ChangedRange], now_us: int) -> list[list[Bar]]:
    """Return the bars of each range, rising in time, complete where they ended by now_us; none of an unknown symbol."""
    return [_read(cur, one, now_us) for one in asked]


def _read(cur: Cursor, asked: ChangedRange, now_us: int) -> list[Bar]:
    known = find(cur, asked.symbol)
    if known is None:
        return []
    buckets = Buckets(asked.interval)
    query = BarQuery(buckets, "bid", buckets.start(asked.low_us), asked.high_us + 1, False, now_us)
    page = read_bars(
        cur, known.symbol_id, known.nonpositive_ok, query, after_us=None, descending=True, max_bars=MAX_BARS
    )
    table = page.table.backwards()
    at = {field.name: column for field, column in zip(BARS, table.columns, strict=True)}
    names = ("timestamp", "open", "high", "low", "close", "volume", "ticks", "complete")
    return [Bar(*row) for row in zip(*(list(_plain(at[name])) for name in names), strict=True)]


def _plain(column: object) -> Sequence[object]:
    return column.tolist() if hasattr(column, "tolist") else list(column)  # type: ignore[call-overload, no-any-return]
