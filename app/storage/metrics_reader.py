"""Read metrics by intervals: of each field the average, sum, least, greatest or last value of each. Lane side.

The answer is that of the records in the range, to its ends (`metrics_pieces.py`): an interval that the range cuts has
what lies inside. The statements must see one snapshot.
"""

from __future__ import annotations

# ruff: noqa: S608 - names are those of declarations, values are bound by the driver
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.datasets.ddl import quoted
from app.datasets.declare import Aggregate, Column
from app.datasets.rollup import rollup_keys
from app.formats.table import NULL_INT, Field, Kind, Table, Values, empty
from app.storage.copy_rows import copy_columns
from app.storage.metrics_pieces import Bound, Chosen, Part, cut, pieces, resolutions

FETCH_ROWS = 500
"""Rows that the driver makes Python objects of at once: it holds the interpreter meanwhile."""

_EXACT = float(1 << 53)
"""Whole numbers below this are exact as floats, which is how they come."""

_EPOCH = "TIMESTAMPTZ '1970-01-01 00:00:00Z'"


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """Which records, by intervals of so many seconds from 1970 on (a multiple of 60), and what becomes of each field.

    aggregates: by field; a text has `last`.
    """

    chosen: Chosen
    interval_s: int
    aggregates: Mapping[str, Aggregate]


def fields_of(query: MetricsQuery) -> tuple[Field, ...]:
    """Return the columns of an answer: the key less its time, the interval's start, the fields."""
    names = [Field(column.name, "text", column.help) for column in rollup_keys(query.chosen.dataset)]
    shown = [
        Field(column.name, _kind(column, of), column.help)
        for column, of in zip(_columns(query), query.aggregates.values(), strict=True)
    ]
    return (*names, Field("timestamp", "time", "where the interval begins, UTC"), *shown)


def read_metrics(cur: Cursor, query: MetricsQuery, max_rows: int) -> Table | None:
    """Return the intervals that have records, by time and then by name (fields_of); None: they are more than that.

    A column of whole numbers is one of floats where one of them is beyond what is exact.
    """
    fields = list(fields_of(query))
    statement = _intervals(query, max_rows + 1)
    if statement is None:
        return empty(fields)
    has_texts = any(column.kind == "text" for column in (*rollup_keys(query.chosen.dataset), *_columns(query)))
    names, times_us, found = (_fetched if has_texts else _copied)(cur, query, cur.mogrify(*statement))
    if len(times_us) > max_rows:
        return None
    ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
    order = np.lexsort((np.array([ranks[name] for name in names], np.int64), times_us))
    columns: list[Values] = [times_us[order]]
    if fields[0].name != "timestamp":
        columns.insert(0, [names[at] for at in order.tolist()])
    for one in found:
        field = fields[len(columns)]
        if isinstance(one, list):
            columns.append([one[at] for at in order.tolist()])
            continue
        if field.kind == "int" and (np.abs(one) >= _EXACT).any():
            fields[len(columns)] = Field(field.name, "float", field.help)
        elif field.kind == "int":
            unknown = np.isnan(one)
            one = np.where(unknown, NULL_INT, np.where(unknown, 0, one).astype(np.int64))
        columns.append(one[order])
    return Table(tuple(fields), columns)


def _intervals(query: MetricsQuery, limit: int) -> tuple[str, Bound] | None:
    """Return the statement whose rows are intervals: names, `at` (microseconds since 1970), v0, v1, ...; None: none."""
    chosen = query.chosen
    wanted = list(dict.fromkeys(pair for name, of in query.aggregates.items() for pair in _needed(name, of)))
    whole, others = list[Part](), list[Part]()
    for part in cut(chosen.start_us, chosen.end_us, resolutions(chosen.dataset, query.interval_s)):
        # Nothing of such a bucket's interval is in any other part.
        (whole if part.resolution_s == query.interval_s else others).append(part)
    keys = "".join(f"p.{quoted(column.column)}, " for column in rollup_keys(chosen.dataset))
    selects, bound = list[str](), Bound()
    for parts, grouped in ((whole, False), (others, True)):
        if not parts:
            continue
        source, more = pieces(chosen, parts, wanted, "gw"[not grouped])
        bound |= more
        at = f"date_bin('{query.interval_s} seconds', p.time, {_EPOCH})" if grouped else "p.time"
        made = "".join(
            f", {_made(query, name, of, wanted, grouped)} AS v{place}"
            for place, (name, of) in enumerate(query.aggregates.items())
        )
        group = f" GROUP BY {keys}{at}" if grouped else ""
        selects.append(
            f"SELECT {keys}(extract(epoch FROM {at}) * 1000000)::bigint AS at{made} FROM ({source}) p{group}"
        )
    return (f"SELECT * FROM ({' UNION ALL '.join(selects)}) i LIMIT {limit}", bound) if selects else None


def _needed(name: str, of: Aggregate) -> list[tuple[str, str]]:
    return [(name, "sum"), (name, "count")] if of == "avg" else [(name, of)]


def _made(query: MetricsQuery, name: str, of: Aggregate, wanted: Sequence[tuple[str, str]], grouped: bool) -> str:
    """Return the SQL of a field's value, of one piece or of a group of them."""
    value, *counts = (f"p.w{wanted.index(pair)}" for pair in _needed(name, of))
    if grouped and of == "last":
        # All ordered aggregates share one order.
        value = f"(array_agg({value} ORDER BY p.time) FILTER (WHERE {value} IS NOT NULL))[count({value})]"
    elif grouped:
        value = f"{'sum' if of == 'avg' else of}({value})"
        counts = [f"sum({count})" for count in counts]
    if query.chosen.dataset.by_name[name].kind == "text":
        return value
    return f"{value}::float8" + "".join(f" / nullif({count}, 0)::float8" for count in counts)


def _copied(cur: Cursor, query: MetricsQuery, statement: bytes) -> tuple[list[str], Any, list[Any]]:
    """Return names, times and columns of numbers, in any order. No texts are among them but symbols."""
    keys = [column.column for column in rollup_keys(query.chosen.dataset)]
    values = [f"v{place}" for place in range(len(query.aggregates))]
    shown = ", ".join([*keys, "at", *(f"coalesce({value}, 'NaN') AS {value}" for value in values)])
    formats = [*[">i4"] * len(keys), ">i8", *[">f8"] * len(values)]
    columns = copy_columns(cur, f"SELECT {shown} FROM ({statement.decode()}) c", [*keys, "at", *values], formats)
    if not keys:
        return [""] * len(columns[0]), columns[0], columns[1:]
    ids = columns[0].tolist()
    cur.execute("SELECT symbol_id, symbol FROM instruments WHERE symbol_id = ANY(%s)", (sorted(set(ids)),))
    symbols = dict(cur.fetchall())
    return (
        [symbols.get(one, f"#{one}") for one in ids],
        columns[1],
        columns[2:],
    )  # who removes instruments does it in SQL


def _fetched(cur: Cursor, query: MetricsQuery, statement: bytes) -> tuple[list[str], Any, list[Any]]:
    """Return names, times and columns, texts among them, in any order."""
    cur.execute(statement)
    rows: list[tuple[Any, ...]] = []
    while part := cur.fetchmany(FETCH_ROWS):
        rows += part
    has_names = bool(rollup_keys(query.chosen.dataset))
    listed: list[Sequence[Any]] = [()] * (has_names + 1 + len(query.aggregates))
    if rows:
        listed = list(zip(*rows, strict=True))
    names = list(listed.pop(0)) if has_names else [""] * len(rows)
    columns = [
        list(values) if column.kind == "text" else np.array(values, np.float64)
        for column, values in zip(_columns(query), listed[1:], strict=True)
    ]
    return names, np.array(listed[0], np.int64), columns


def _columns(query: MetricsQuery) -> list[Column]:
    return [query.chosen.dataset.by_name[name] for name in query.aggregates]


def _kind(column: Column, of: Aggregate) -> Kind:
    if column.kind == "text":
        return "text"
    return "int" if column.kind == "int" and of != "avg" else "float"
