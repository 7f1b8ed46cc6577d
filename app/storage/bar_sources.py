"""What bars are made of: maintained bars and ticks, a bounded number at a time, in either direction. Lane side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.market.bar_series import BILLION, REST, Pieces, Series, Side, Sums, combine, of_ticks, sides_of
from app.market.bars import VOLUME_UNIT
from app.market.columns import F8, I8
from app.market.intervals import Buckets
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_columns, copy_floats
from app.storage.tick_reader import TickKey, read_ticks, timestamp

CHUNK_ROWS = 20_000
"""Bars or ticks in memory at a time, some 5 MB, whatever the range."""

FIRST_ROWS = 100
"""Bars read at first where fewer seem to do: reading some more costs less than asking again."""

EARLIEST_US = -2_208_988_800_000_000
LATEST_US = 7_258_118_400_000_000
"""1900 and 2200: there are no partitions for ticks outside."""

_MINUTE_US = 60_000_000
_MAX_SPAN_US = 28 * 86_400_000_000
"""Of ticks read by one statement: planning it costs time for each weekly partition that it touches."""

_BARS = """
    SELECT {columns} FROM bars
    WHERE symbol_id = %(symbol_id)s AND resolution = %(resolution)s
        AND time >= %(low)s::timestamptz AND time < %(high)s::timestamptz {having}
    ORDER BY time {order} LIMIT %(limit)s
"""
_PARTS = ("open", "high", "low", "close")
# int8 holds no more than 9e18 units of 1e-8, so exact sums come in two parts. Arithmetic on numeric is most of what a
# read costs: it is done only where there is a volume, and the division only where the sum is that large.
_EXACT = (
    "CASE WHEN {0} < %(large)s THEN 0 ELSE div({0}, %(billion)s)::bigint END",
    "(CASE WHEN {0} = 0 THEN 0 WHEN {0} < %(large)s THEN {0} * %(unit)s ELSE mod({0}, %(billion)s) * %(unit)s END)"
    "::bigint",
)
# The cast goes by way of a text, which takes as long as all the rest of a quote's bar.
_NEAREST = "CASE WHEN {0} = 0 THEN 0 ELSE {0}::float8 END"
_VOLUMES = ("volume", "buy_volume", "sell_volume")
_EXTENT = """
    SELECT (SELECT time FROM bars WHERE symbol_id = %(symbol_id)s AND resolution = 86400
                AND time >= %(low)s::timestamptz AND time < %(high)s::timestamptz {having} ORDER BY time LIMIT 1),
           (SELECT time FROM bars WHERE symbol_id = %(symbol_id)s AND resolution = 86400
                AND time >= %(low)s::timestamptz AND time < %(high)s::timestamptz {having} ORDER BY time DESC LIMIT 1)
"""


def extent(cur: Cursor, symbol_id: int, price: str, low_us: int, high_us: int) -> tuple[int, int] | None:
    """Return from where to where there are ticks with the price in [low_us, high_us), in whole days; None: nowhere."""
    day_us = 86_400_000_000
    bounds = {"symbol_id": symbol_id, "low": timestamp(low_us // day_us * day_us), "high": timestamp(high_us)}
    cur.execute(_EXTENT.format(having=_having(price)), bounds)
    row = cur.fetchone()
    assert row is not None
    if row[0] is None:
        return None
    first, last = (round(day.timestamp()) * 1_000_000 for day in row)
    return first, last + day_us


def finished_bars(
    cur: Cursor, symbol_id: int, resolution_s: int, price: str, low_us: int, high_us: int, descending: bool, rows: int
) -> Series:
    """Return at most `rows` maintained bars of [low_us, high_us) that have the price, the first in the direction."""
    names = sides_of(price)
    ways = [(names, _having(price))]
    if len(names) > 1:
        # The second side's prices lie at the far end of a row: rows are read that far only where the first one lacks.
        ways.insert(0, (names[:1], ""))
    for sides, having in ways:
        prices = [f"coalesce({', '.join(f'{name}_{part}' for name in sides)})" for part in _PARTS]
        columns = ["date_part('epoch', time)", *prices, *(_NEAREST.format(name) for name in _VOLUMES), "ticks::float8"]
        query = _BARS.format(columns=_named(columns), having=having, order="DESC" if descending else "")
        bound = cur.mogrify(query, _parameters(symbol_id, resolution_s, low_us, high_us, rows))
        found = copy_floats(cur, bound, [f"c{at}" for at in range(len(columns))])
        if not np.isnan(found[4]).any():
            break
    if descending:
        found = found[:, ::-1]
    time_s, opened, high, low, close, volume, bought, sold, ticks = found
    # Exact: bars begin with whole seconds, and counts stay below 2^53.
    time_us = time_s.astype(np.int64) * 1_000_000
    return Series(time_us, opened, high, low, close, volume, bought, sold, ticks.astype(np.int64))


def bar_pieces(
    cur: Cursor, symbol_id: int, resolution_s: int, price: str, low_us: int, high_us: int, descending: bool, rows: int
) -> Iterator[Pieces]:
    """Yield the maintained bars of [low_us, high_us): each part rising in time, the parts in the direction.

    rows: how many are probably needed; the first part has no more.
    """
    names = sides_of(price)
    columns = ["time", "ticks", *(part.format(name) for name in _VOLUMES for part in _EXACT)]
    columns += [f"coalesce({name}_{part}, 'NaN')" for name in names for part in _PARTS]
    query = _BARS.format(columns=_named(columns), having="", order="DESC" if descending else "")
    formats = (*[">i8"] * 8, *[">f8"] * (4 * len(names)))
    rows = min(max(rows, FIRST_ROWS), CHUNK_ROWS)
    while low_us < high_us:
        found = _read(cur, query, formats, symbol_id, resolution_s, low_us, high_us, rows)
        times = found[0]
        if len(times):
            yield _pieces([values[::-1] for values in found] if descending else found)
        if len(times) < rows:
            return
        last_us = int(times[-1])
        low_us, high_us = (low_us, last_us) if descending else (last_us + 1, high_us)
        rows = min(2 * rows, CHUNK_ROWS)


def tick_pieces(
    cur: Cursor,
    symbol_id: int,
    nonpositive_ok: bool,
    price: str,
    buckets: Buckets,
    low_us: int,
    high_us: int,
    descending: bool,
    rows: int,
) -> Iterator[Pieces]:
    """Yield the ticks of [low_us, high_us) combined into the buckets as far as they were read together.

    Each part rises in time, the parts come in the direction. rows: how many minutes are probably needed.
    """
    # A bucket within a minute that has no price has no bar; of a longer one its ticks count nevertheless.
    having = _having(price) if buckets.longest_s <= 60 else ""
    for start_us, end_us in _windows(cur, symbol_id, having, low_us, high_us, descending, rows):
        after: TickKey | None = None
        bars: list[Pieces] = []
        while True:
            page = read_ticks(cur, symbol_id, start_us, end_us, after=after, descending=False, max_rows=CHUNK_ROWS)
            if len(page.table):
                columns: dict[str, Any] = {
                    field.name: values for field, values in zip(page.table.fields, page.table.columns, strict=True)
                }
                prices: tuple[F8, F8, F8] = columns["bid"], columns["ask"], columns["last"]
                flags = columns["flags"].astype(np.int32)
                ticks = of_ticks(price, columns["timestamp"], *prices, columns["volume"], flags, nonpositive_ok)
                bars = [combine([*bars, ticks], buckets)]
            if not page.more:
                break
            after = page.last_key
        yield from bars


def _windows(
    cur: Cursor, symbol_id: int, having: str, low_us: int, high_us: int, descending: bool, rows: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of [low_us, high_us) in the direction that hold all its ticks, cut at minutes.

    The maintained minutes tell where ticks are: a range has CHUNK_ROWS of them at most, or is a single minute.
    """
    query = _BARS.format(columns=_named(["time", "ticks"]), having=having, order="DESC" if descending else "")
    rows = min(max(rows, 2), CHUNK_ROWS)
    start_us, end_us = low_us // _MINUTE_US * _MINUTE_US, high_us
    while start_us < end_us:
        found = _read(cur, query, (">i8", ">i8"), symbol_id, 60, start_us, end_us, rows)
        minutes, ticks = found
        for first, last in _cuts(minutes, ticks):
            one, other = int(minutes[first]), int(minutes[last])
            yield max(min(one, other), low_us), min(max(one, other) + _MINUTE_US, high_us)
        if len(minutes) < rows:
            return
        last_us = int(minutes[-1])
        start_us, end_us = (start_us, last_us) if descending else (last_us + _MINUTE_US, end_us)
        rows = min(2 * rows, CHUNK_ROWS)


def _cuts(minutes: I8, ticks: I8) -> Iterator[tuple[int, int]]:
    """Yield runs of minutes as (first, last) index, as long as the bounds allow."""
    before = np.append(0, np.cumsum(ticks))
    away_us = np.abs(minutes - minutes[:1])
    first = 0
    while first < len(minutes):
        enough = int(before.searchsorted(before[first] + CHUNK_ROWS, "right")) - 1
        near = int(away_us.searchsorted(away_us[first] + _MAX_SPAN_US, "right"))
        end = max(min(enough, near), first + 1)
        yield first, end - 1
        first = end


def _named(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} AS c{at}" for at, column in enumerate(columns))


def _having(price: str) -> str:
    return f"AND coalesce({', '.join(f'{name}_close' for name in sides_of(price))}) IS NOT NULL"


def _read(
    cur: Cursor,
    query: str,
    formats: tuple[str, ...],
    symbol_id: int,
    resolution_s: int,
    low_us: int,
    high_us: int,
    rows: int,
) -> list[Any]:
    """Return the query's columns, the first of them times."""
    parameters = _parameters(symbol_id, resolution_s, low_us, high_us, rows)
    names = [f"c{at}" for at in range(len(formats))]
    columns = copy_columns(cur, cur.mogrify(query, parameters), names, formats)
    columns[0] += POSTGRES_EPOCH_US
    return columns


def _parameters(symbol_id: int, resolution_s: int, low_us: int, high_us: int, rows: int) -> dict[str, Any]:
    return {
        "symbol_id": symbol_id,
        "resolution": resolution_s,
        "low": timestamp(low_us),
        "high": timestamp(high_us),
        "limit": rows,
        "billion": BILLION,
        "large": 90 * BILLION,
        "unit": VOLUME_UNIT,
    }


def _pieces(columns: list[Any]) -> Pieces:
    time_us, ticks, *halves = columns[:8]
    sums = []
    for billions, rest in zip(halves[::2], halves[1::2], strict=True):
        more, rest = np.divmod(rest, REST)
        sums.append(Sums(billions + more, rest))
    return Pieces(
        time_us=time_us,
        ticks=ticks,
        sums=(sums[0], sums[1], sums[2]),
        sides=tuple(Side(*columns[at : at + 4]) for at in range(8, len(columns), 4)),
    )
