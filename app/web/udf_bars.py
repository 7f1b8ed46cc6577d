"""UDF's bars, read and made into bytes. Lane side: a chart's 20,000 bars would hold the event loop for long."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.errors import BadParameter, UnknownSymbol
from app.formats.table import Table
from app.storage.instruments import find
from app.storage.quote_reader import chart_side
from app.web.market import bar_source

MOST_BARS = 20_000
"""Bars of one answer: 2 MB. Part of a range would look like all there is of it, so a longer one is refused."""

_SLICE = 2_000
"""Numbers that msgspec encodes in one call, which holds the interpreter: about 0.2 ms."""

_COLUMNS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


def read_history(
    cur: Cursor, symbol: str, interval: str, start_s: int | None, to_s: int, countback: int | None
) -> bytes:
    """Return the answer: the bars in [start_s, to_s), epoch seconds, or the `countback` ones before `to_s`.

    interval: one of INTERVALS. Raises UnknownSymbol, and BadParameter for a range that is none or has too many bars.
    """
    known = find(cur, symbol)
    if known is None:
        raise UnknownSymbol(f"Unknown symbol: {symbol[:64]}")
    price = chart_side(cur, known.symbol)
    start_us = None if countback or start_s is None else start_s * 1_000_000
    end_us = to_s * 1_000_000
    if start_us is not None and end_us < start_us:
        raise BadParameter("to: is before from")
    source = bar_source(interval, price, "UTC", start_us, end_us)
    page = source.read(cur, known, after=None, descending=True, max_rows=countback or MOST_BARS)
    if page.more and start_us is not None:
        raise BadParameter(f"from: more than {MOST_BARS} bars lie before `to`: ask for fewer, or with countback")
    if len(page.table):
        return bars_json(page.table.backwards())
    if start_us is not None:
        older = bar_source(interval, price, "UTC", None, start_us)
        found = older.read(cur, known, after=None, descending=True, max_rows=1).table.columns[0]
        if len(found):
            return msgspec.json.encode({"s": "no_data", "nextTime": int(found[0] or 0) // 1_000_000})
    return b'{"s":"no_data"}'


def bars_json(table: Table) -> bytes:
    """Return bars in ascending order (fields of BARS) as UDF's columns."""
    columns = {field.name: np.asarray(values) for field, values in zip(table.fields, table.columns, strict=True)}
    parts = [b'{"s":"ok","t":[', b",".join(_numbers(columns["timestamp"] // 1_000_000))]
    for short, name in _COLUMNS.items():
        parts += b'],"%s":[' % short.encode(), b",".join(_numbers(columns[name]))
    return b"".join([*parts, b"]}"])


def _numbers(values: npt.NDArray[np.int64 | np.float64]) -> Iterator[bytes]:
    for start in range(0, len(values), _SLICE):
        yield msgspec.json.encode(values[start : start + _SLICE].tolist())[1:-1]
