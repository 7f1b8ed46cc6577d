"""Merge bars and newest values into the database, exactly, in whatever order they come. Lane side.

Each of the two is one statement over all rows, sorted by key: every transaction locks them in one order.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.market.bars import SIDES, VOLUME_UNIT, BarRows, CurrentRows, Keys

_SIDE_COLUMNS = (
    ("open", "float8"),
    ("high", "float8"),
    ("low", "float8"),
    ("close", "float8"),
    ("open_key", "bytea"),
    ("close_key", "bytea"),
)
_BAR_COLUMNS: tuple[tuple[str, str], ...] = (
    ("symbol_id", "integer"),
    ("resolution", "integer"),
    ("time", "timestamptz"),
    ("ticks", "bigint"),
    ("volume", "numeric"),
    ("buy_volume", "numeric"),
    ("sell_volume", "numeric"),
    ("spread_min", "float8"),
    ("spread_max", "float8"),
    *((f"{side}_{column}", kind) for side in SIDES for column, kind in _SIDE_COLUMNS),
)
# Without a new key the comparison is unknown, so CASE keeps what is there; LEAST and GREATEST skip NULLs.
_MERGE_SIDE = """
    {s}_open = CASE WHEN bars.{s}_open_key IS NULL OR excluded.{s}_open_key < bars.{s}_open_key
        THEN excluded.{s}_open ELSE bars.{s}_open END,
    {s}_high = greatest(bars.{s}_high, excluded.{s}_high),
    {s}_low = least(bars.{s}_low, excluded.{s}_low),
    {s}_close = CASE WHEN bars.{s}_close_key IS NULL OR excluded.{s}_close_key > bars.{s}_close_key
        THEN excluded.{s}_close ELSE bars.{s}_close END,
    {s}_open_key = least(bars.{s}_open_key, excluded.{s}_open_key),
    {s}_close_key = greatest(bars.{s}_close_key, excluded.{s}_close_key)"""

_BARS_TEMPLATE = """
    INSERT INTO bars ({columns}, version) SELECT rows.*, %s FROM unnest({arrays}) AS rows
    ON CONFLICT (symbol_id, resolution, time) DO UPDATE SET
    version = excluded.version,
    ticks = bars.ticks + excluded.ticks,
    volume = bars.volume + excluded.volume,
    buy_volume = bars.buy_volume + excluded.buy_volume,
    sell_volume = bars.sell_volume + excluded.sell_volume,
    spread_min = least(bars.spread_min, excluded.spread_min),
    spread_max = greatest(bars.spread_max, excluded.spread_max),{sides}
"""
_MERGE_BARS = _BARS_TEMPLATE.format(
    columns=", ".join(name for name, _ in _BAR_COLUMNS),
    arrays=", ".join(f"%s::{kind}[]" for _, kind in _BAR_COLUMNS),
    sides=",".join(_MERGE_SIDE.format(s=side) for side in SIDES),
)
_CURRENT_COLUMNS: tuple[tuple[str, str], ...] = (
    ("symbol", "text"),
    ("bid", "float8"),
    ("ask", "float8"),
    ("last", "float8"),
    ("spread", "float8"),
    ("volume", "float8"),
    ("buy_volume", "float8"),
    ("sell_volume", "float8"),
    ("flags", "integer"),
    ("last_updated", "timestamptz"),
    ("bid_key", "bytea"),
    ("ask_key", "bytea"),
    ("last_key", "bytea"),
    ("tick_key", "bytea"),
)
_NEWEST_PRICE = """
    {p} = CASE WHEN current.{p}_key IS NULL OR excluded.{p}_key > current.{p}_key
        THEN excluded.{p} ELSE current.{p} END,
    {p}_key = greatest(current.{p}_key, excluded.{p}_key)"""
_OF_NEWEST_TICK = """
    {c} = CASE WHEN excluded.tick_key > current.tick_key THEN excluded.{c} ELSE current.{c} END"""
_CURRENT_TEMPLATE = """
    INSERT INTO current ({columns}) SELECT * FROM unnest({arrays})
    ON CONFLICT (symbol) DO UPDATE SET{assignments},
    tick_key = greatest(current.tick_key, excluded.tick_key)
"""
_MERGE_CURRENT = _CURRENT_TEMPLATE.format(
    columns=", ".join(name for name, _ in _CURRENT_COLUMNS),
    arrays=", ".join(f"%s::{kind}[]" for _, kind in _CURRENT_COLUMNS),
    assignments=",".join(
        [_NEWEST_PRICE.format(p=price) for price in ("bid", "ask", "last")]
        + [
            _OF_NEWEST_TICK.format(c=column)
            for column in ("spread", "volume", "buy_volume", "sell_volume", "flags", "last_updated")
        ]
    ),
)


def merge_bars(cur: Cursor, rows: BarRows) -> None:
    """Add the bars of ticks that were not there before to `bars`, in the open transaction.

    rows: as `aggregate` returns them, sorted by key. Every bar that is written gets one new version (range_version.py).
    Waits for other transactions that merged the same bars.
    """
    if not len(rows):
        return
    columns: list[Any] = [
        # Random, not counted: what a restored database counts anew would name other contents with old numbers.
        secrets.randbits(63),
        _integers(rows.symbol_id),
        _integers(rows.resolution_s),
        _times(rows.time_us),
        _integers(rows.ticks),
        _sums(rows.volume),
        _sums(rows.buy_volume),
        _sums(rows.sell_volume),
        _floats(rows.spread_min),
        _floats(rows.spread_max),
    ]
    for name in SIDES:
        side = rows.sides[name]
        columns += [_floats(values) for values in (side.open, side.high, side.low, side.close)]
        columns += [_keys(side.open_key), _keys(side.close_key)]
    cur.execute(_MERGE_BARS, columns)


def merge_current(cur: Cursor, rows: CurrentRows, names: Mapping[int, str]) -> None:
    """Move `current` on to these values where they are newer, in the open transaction.

    names: the canonical symbol by symbol_id. Rows are locked in the order of symbol.
    """
    if not len(rows):
        return
    symbols = [names[symbol_id] for symbol_id in rows.symbol_id.tolist()]
    order = np.array(sorted(range(len(symbols)), key=symbols.__getitem__))
    columns: list[Any] = [
        [symbols[row] for row in order],
        *(_floats(values[order]) for values in (rows.bid, rows.ask, rows.last, rows.spread)),
        *(_floats(values[order]) for values in (rows.volume, rows.buy_volume, rows.sell_volume)),
        _integers(rows.flags[order]),
        _times(rows.time_us[order]),
        *(_keys(keys[order]) for keys in (rows.bid_key, rows.ask_key, rows.last_key, rows.key)),
    ]
    cur.execute(_MERGE_CURRENT, columns)


# Array literals, because psycopg2 would quote each of some 2,500 values of a flush: 1.5 ms instead of 0.3.


def _array(texts: Iterable[str]) -> str:
    return "{" + ",".join(texts) + "}"


def _integers(values: npt.NDArray[np.integer]) -> str:
    return _array(map(str, values.tolist()))


def _floats(values: npt.NDArray[np.float64]) -> str:
    return _array([repr(value) for value in values.tolist()]).replace("nan", "NULL")


def _times(time_us: npt.NDArray[np.int64]) -> str:
    return _array(text + "Z" for text in np.datetime_as_string(time_us.astype("M8[us]")).tolist())


def _sums(values: list[int]) -> str:
    return _array([f"{value // VOLUME_UNIT}.{value % VOLUME_UNIT:08d}" for value in values])


def _keys(keys: Keys) -> str:
    digits, width = keys.tobytes().hex(), 2 * keys.itemsize
    none = "0" * width
    texts = [digits[at : at + width] for at in range(0, len(digits), width)]
    return _array(["NULL" if text == none else f'"\\\\x{text}"' for text in texts])
