"""What the database knows of a stock: days, ratios, news, and the newest price that was said. Lane side."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.datasets.registry import DATASETS
from app.errors import BadParameter, UnknownSymbol
from app.formats.json_rows import Json
from app.formats.table import Table
from app.market.said_prices import SaidPrice
from app.storage.daily_reader import read_days
from app.storage.instruments import find
from app.storage.rows_reader import fields_of, read_rows
from app.storage.tick_reader import read_ticks

FINANCIAL_INFO, NEWS = DATASETS["financial_info"], DATASETS["news"]

MOST_DAYS = 10_000
"""Days of one answer. For more there are pages at /api/history."""

MOST_NEWS = 20
LOOK_BACK_TICKS = 1000
"""Among so many newest ticks a price is looked for that one of them said: of feeds that never say one they are all
looked through, a matter of 2 ms."""

_EPOCH = datetime.date(1970, 1, 1)
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class StockQuery:
    """What is asked of a stock.

    Days: of trading dates from `start` to `end`, both included; without start: of the year before `end`, or before
    the newest day. latest: of days and news the newest one only.
    """

    start: datetime.date | None = None
    end: datetime.date | None = None
    days: bool = True
    latest: bool = False


@dataclass(slots=True)
class StockFacts:
    """What is known of a stock. Days (oldest first) and news (newest first) are JSON arrays.

    said: the newest price that one of the newest ticks said. tick_us: time of the newest tick. close: the newest day's,
    with its time; None where there is none. financial_info: a value for each field of a record but its symbol.
    """

    symbol: str
    said: SaidPrice | None = None
    tick_us: int | None = None
    close: SaidPrice | None = None
    days: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"[]"))
    financial_info: dict[str, Any] = field(default_factory=dict)
    news: msgspec.Raw = field(default_factory=lambda: msgspec.Raw(b"[]"))


def read_price(cur: Cursor, ticker: str) -> StockFacts:
    """Return what a stock's price is made of, its close only where no tick has a price. Raises UnknownSymbol."""
    symbol_id, facts, is_quoted = _said(cur, ticker)
    if not is_quoted:
        facts.close = _newest_close(cur, symbol_id)
    return facts


def read_stock(cur: Cursor, ticker: str, query: StockQuery) -> StockFacts:
    """Return all that is known of a stock. Raises UnknownSymbol, BadParameter."""
    symbol_id, facts, _ = _said(cur, ticker)
    facts.close = _newest_close(cur, symbol_id)
    if query.days:
        facts.days = _days(cur, symbol_id, facts, query)
    facts.financial_info = _first(FINANCIAL_INFO, _newest(cur, FINANCIAL_INFO, symbol_id, 1))
    facts.news = _listed(_newest(cur, NEWS, symbol_id, 1 if query.latest else MOST_NEWS))
    return facts


def read_financial_info(cur: Cursor, ticker: str, day: datetime.date | None) -> tuple[str, Mapping[str, Any]]:
    """Return the symbol, and the newest ratios of a day or before. Raises UnknownSymbol."""
    found = find(cur, ticker)
    if found is None:
        raise UnknownSymbol(f"Unknown symbol: {ticker[:64]}")
    end_us = None if day is None else _end_of(day)
    return found.symbol, _first(FINANCIAL_INFO, _newest(cur, FINANCIAL_INFO, found.symbol_id, 1, end_us))


def _said(cur: Cursor, ticker: str) -> tuple[int, StockFacts, bool]:
    """Return the instrument's id, what its newest ticks say, and whether one of them has a bid or last."""
    found = find(cur, ticker)
    if found is None:
        raise UnknownSymbol(f"Unknown symbol: {ticker[:64]}")
    facts = StockFacts(found.symbol)
    table = read_ticks(cur, found.symbol_id, None, None, after=None, descending=True, max_rows=LOOK_BACK_TICKS).table
    if not len(table):
        return found.symbol_id, facts, False
    columns: dict[str, Any] = dict(zip((one.name for one in table.fields), table.columns, strict=True))
    facts.tick_us = int(columns["timestamp"][0])
    saying = np.flatnonzero(columns["last"] > 0)  # NaN is not
    if len(saying):
        facts.said = SaidPrice(int(columns["timestamp"][saying[0]]), float(columns["last"][saying[0]]))
    return found.symbol_id, facts, bool(len(saying) or (columns["bid"] > 0).any())


def _newest_close(cur: Cursor, symbol_id: int) -> SaidPrice | None:
    table = read_days(cur, symbol_id, None, None, descending=True, max_rows=1).table
    if not len(table):
        return None
    columns: dict[str, Any] = dict(zip((one.name for one in table.fields), table.columns, strict=True))
    return SaidPrice(int(columns["timestamp"][0]), float(columns["close"][0]))


def _days(cur: Cursor, symbol_id: int, facts: StockFacts, query: StockQuery) -> msgspec.Raw:
    start_us = None if query.start is None else _us(query.start)
    end_us = None if query.end is None else _end_of(query.end)
    if start_us is None and not query.latest:
        if facts.close is None:
            return msgspec.Raw(b"[]")
        newest = _EPOCH + datetime.timedelta(microseconds=facts.close.time_us)
        start_us = _us(_year_before(newest if query.end is None else min(query.end, newest)))
    found = read_days(
        cur, symbol_id, start_us, end_us, descending=query.latest, max_rows=1 if query.latest else MOST_DAYS
    )
    if found.more and not query.latest:
        raise BadParameter(
            f"start_date: at most {MOST_DAYS} days at once; /api/history/{facts.symbol}/daily answers them by pages"
        )
    return _listed(found.table)


def _newest(cur: Cursor, dataset: Dataset, symbol_id: int, most: int, end_us: int | None = None) -> Table:
    """Return the newest records of a symbol, the newest first."""
    return read_rows(
        cur,
        dataset,
        symbol_id=symbol_id,
        chosen={},
        start_us=None,
        end_us=end_us,
        after=None,
        descending=True,
        max_rows=most,
    ).table


def _listed(table: Table) -> msgspec.Raw:
    return msgspec.Raw(b"[" + Json(table.fields, "", {}).rows(table) + b"]")


def _first(dataset: Dataset, table: Table) -> dict[str, Any]:
    """Return the first record without its symbol; where there is none, a null for each of its fields."""
    names = [one.name for one in fields_of(dataset) if one.name != dataset.symbol]
    if not len(table):
        return dict.fromkeys(names)
    (record,) = msgspec.json.decode(_listed(table.slice(0, 1)), type=list[dict[str, Any]])
    return {name: record[name] for name in names}


def _year_before(day: datetime.date) -> datetime.date:
    if day.year == datetime.MINYEAR:
        return datetime.date.min
    return day.replace(year=day.year - 1, day=min(day.day, 28) if day.month == 2 else day.day)


def _us(day: datetime.date) -> int:
    return (day - _EPOCH).days * _DAY_US


def _end_of(day: datetime.date) -> int | None:
    """Return where the day after begins; None where there is none."""
    return None if day == datetime.date.max else _us(day) + _DAY_US
