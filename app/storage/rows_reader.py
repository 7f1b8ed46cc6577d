"""Read the records of any declared dataset by pages, in the order of its key: time first. Lane side."""

from __future__ import annotations

# ruff: noqa: S608 - names are those of declarations, values are bound by the driver
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.datasets.ddl import TYPES, quoted
from app.datasets.declare import Column, Dataset
from app.formats.table import NULL_INT, Field, Kind, Table, Values
from app.storage.tick_reader import timestamp

FETCH_ROWS = 500
"""Rows that the driver makes Python objects of at once: it holds the interpreter meanwhile."""

MAX_INT = (1 << 63) - 1
_DAY_US = 86_400_000_000
_KINDS: Mapping[str, Kind] = {"symbol": "text", "name": "text", "bool": "truth"}


@dataclass(slots=True)
class RowsPage:
    """Records in the asked order, the key of the last one, and whether there are more behind it."""

    table: Table
    last_key: bytes | None
    more: bool


@cache
def fields_of(dataset: Dataset) -> tuple[Field, ...]:
    """Return the columns of a dataset's records as they leave."""
    return tuple(_field(column) for column in dataset.columns)


def read_rows(
    cur: Cursor,
    dataset: Dataset,
    *,
    symbol_id: int | None,
    chosen: Mapping[str, str],
    start_us: int | None,
    end_us: int | None,
    after: bytes | None,
    descending: bool,
    max_rows: int,
) -> RowsPage:
    """Return at most `max_rows` records of [start_us, end_us), behind `after` in the asked direction.

    symbol_id: of one instrument, None: of all. chosen: values by field, of `dataset.filters`. A day counts as its
    midnight UTC. Raises ValueError for an `after` that no page of this dataset gave.
    """
    bounds = _range(dataset, start_us, end_us)
    order = [column for column in dataset.order if column.name not in chosen]
    if symbol_id is not None:
        order = [column for column in order if column.name != dataset.symbol]
    conditions, values = [*bounds[0]], dict(bounds[1])
    if symbol_id is not None:
        conditions.append("t.symbol_id = %(symbol_id)s")
        values["symbol_id"] = symbol_id
    for place, (name, value) in enumerate(chosen.items()):
        conditions.append(f"t.{quoted(dataset.by_name[name].column)} = %(chosen{place})s")
        values[f"chosen{place}"] = value
    if after is not None:
        condition, more = _behind(dataset, order, after, descending)
        conditions.append(condition)
        values |= more
    direction = " DESC" if descending else ""
    keys = ", ".join(f"{_ordered(dataset, column)}{direction}" for column in order)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    by_key = f"ORDER BY {keys}" if keys else ""
    chosen_rows = f"{where} {by_key} LIMIT %(limit)s"
    if dataset.joined:
        page = f"WITH page AS MATERIALIZED (SELECT t.* FROM {dataset.table} t {chosen_rows})"
        query = f"{page} {_select(dataset)} {dataset.joined} {by_key}"
    else:
        query = f"{_select(dataset)} {chosen_rows}"
    cur.execute(query, {**values, "limit": max_rows + 1})
    rows: list[tuple[Any, ...]] = []
    while part := cur.fetchmany(FETCH_ROWS):
        rows += part
    more_rows = len(rows) > max_rows
    rows = rows[:max_rows]
    fields = fields_of(dataset)
    width = len(fields) + len(dataset.order)
    listed: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * width
    table = Table(fields, [_values(field, column) for field, column in zip(fields, listed, strict=False)])
    last_key = None
    if rows:
        key_values = dict(zip([column.name for column in dataset.order], rows[-1][len(fields) :], strict=True))
        last_key = msgspec.msgpack.encode([key_values[column.name] for column in order])
    return RowsPage(table, last_key, more_rows)


def rows_version(cur: Cursor, dataset: Dataset, symbol_id: int | None, start_us: int | None, end_us: int | None) -> str:
    """Return what changes whenever a record of the range, or what it is computed from, is written or removed."""
    conditions, values = _range(dataset, start_us, end_us) if not dataset.computed_of else ([], {})
    if symbol_id is not None:
        conditions = [*conditions, "t.symbol_id = %(symbol_id)s"]
        values = {**values, "symbol_id": symbol_id}
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    # xmin: the transaction that wrote the row as it is now.
    versions = " UNION ALL ".join(
        f"SELECT t.xmin::text::bigint AS version FROM {table} t {where}"
        for table in dataset.computed_of or (dataset.table,)
    )
    cur.execute(f"SELECT count(*), sum(version) FROM ({versions}) rows", values)
    found = cur.fetchone()
    assert found is not None
    return f"{found[0]}.{found[1] or 0}"


@cache
def _select(dataset: Dataset) -> str:
    shown = [_shown(dataset, column) for column in dataset.columns]
    keys = [_plain(column, _ordered(dataset, column)) for column in dataset.order]
    has_ids = any(column.kind == "symbol" for column in dataset.columns)
    names = " LEFT JOIN instruments i USING (symbol_id)" if has_ids else ""
    return f"SELECT {', '.join([*shown, *keys])} FROM {'page' if dataset.joined else dataset.table} t{names}"


def _ordered(dataset: Dataset, column: Column) -> str:
    """Return what rows are ordered by: no symbol is before all of them."""
    value = f"t.{quoted(column.column)}"
    return value if dataset.always(column) else f"coalesce({value}, 0)"


def _shown(dataset: Dataset, column: Column) -> str:
    if column.kind == "symbol":
        return "i.symbol"
    value = f"t.{quoted(column.column)}"
    if column.name in dataset.computed:
        value = f"coalesce({value}, {dataset.computed[column.name]})"
    return _plain(column, value)


def _plain(column: Column, value: str) -> str:
    """Return a value as the driver reads it without loss."""
    if column.kind == "time":
        return f"(extract(epoch FROM {value}) * 1000000)::bigint"
    if column.kind == "date":
        return f"to_char({value}, 'YYYY-MM-DD')"  # whatever DateStyle is
    return f"{value}::text" if column.kind == "json" else value


def _range(dataset: Dataset, start_us: int | None, end_us: int | None) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if dataset.time is None:
        return conditions, values
    column = dataset.by_name[dataset.time]
    name = f"t.{quoted(column.column)}"
    for what, sign, us in (("start", ">=", start_us), ("end", "<", end_us)):
        if us is not None:
            if column.kind == "date":
                us = -(-us // _DAY_US) * _DAY_US
            conditions.append(f"{name} {sign} %({what})s::{TYPES[column.kind]}")
            values[what] = _moment(column, us)
    return conditions, values


def _moment(column: Column, us: int) -> str:
    text = timestamp(us)
    return text[:10] if column.kind == "date" else text


def _behind(dataset: Dataset, order: Sequence[Column], after: bytes, descending: bool) -> tuple[str, dict[str, Any]]:
    """Return the condition of the rows behind a key. Raises ValueError for what is none."""
    try:
        key = msgspec.msgpack.decode(after, type=list[int | float | str])
    except msgspec.DecodeError as error:
        raise ValueError("not a record's key") from error
    if not order or len(key) != len(order):
        raise ValueError("not a key of this dataset")
    values: dict[str, Any] = {}
    for place, (column, value) in enumerate(zip(order, key, strict=True)):
        if isinstance(value, str) != (column.kind in ("text", "name", "date")):
            raise ValueError("not a key of this dataset")
        if column.kind == "date":
            datetime.date.fromisoformat(str(value))
        if (isinstance(value, str) and "\0" in value) or (isinstance(value, int) and abs(value) > MAX_INT):
            raise ValueError("not a key of this dataset")
        values[f"after{place}"] = timestamp(int(value)) if column.kind == "time" else value
    left = ", ".join(_ordered(dataset, column) for column in order)
    right = ", ".join(f"%(after{place})s::{TYPES[column.kind]}" for place, column in enumerate(order))
    return f"({left}) {'<' if descending else '>'} ({right})", values


def _field(column: Column) -> Field:
    kind = _KINDS.get(column.kind, column.kind)
    words = "the symbol's name" if column.kind == "symbol" else column.help
    if column.name == "timestamp":
        words = "when it was, UTC"
    return Field(column.name, kind, words)  # type: ignore[arg-type]  # the kinds that are left are those of formats


def _values(field: Field, column: Sequence[Any]) -> Values:
    if field.kind in ("time", "int"):
        return np.array([NULL_INT if value is None else value for value in column], np.int64)
    if field.kind == "float":
        return np.array(column, np.float64)  # None becomes NaN
    return list(column)
