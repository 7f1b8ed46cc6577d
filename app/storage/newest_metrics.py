"""Read the newest record of each name of the metrics: of each symbol, strategy and host. Lane side.

One statement for all of them. Names are found by jumps through the index of the key, so what it takes goes by the
number of names, not of records.
"""

from __future__ import annotations

# ruff: noqa: S608 - names are those of declarations
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from psycopg2.extensions import cursor as Cursor

from app.datasets.ddl import quoted
from app.datasets.declare import Column, Dataset
from app.datasets.rollup import rollup_keys

MOST_NAMES = 10_000
"""Names of a dataset: one that makes up names fills no memory."""


class Newest(msgspec.Struct):
    """The newest record of a name. values: of its fields but those of the key; None: not known."""

    time_us: int
    values: dict[str, Any]


def read_newest(cur: Cursor, datasets: Iterable[Dataset]) -> dict[str, dict[str, Newest]]:
    """Return the newest records by dataset and name; "" where a dataset's key is its time alone."""
    listed = {dataset.name: dataset for dataset in datasets}
    cur.execute(" UNION ALL ".join(f"({_newest(dataset)})" for dataset in listed.values()))
    found: dict[str, dict[str, Newest]] = {name: {} for name in listed}
    while part := cur.fetchmany(500):  # the driver holds the interpreter meanwhile
        for dataset, name, time_us, texts in part:
            values = msgspec.json.decode(texts)
            fields = listed[dataset].values
            found[dataset][name] = Newest(
                time_us, {field.name: value for field, value in zip(fields, values, strict=True)}
            )
    return found


@cache
def _newest(dataset: Dataset) -> str:
    values = ", ".join(f"t.{quoted(column.column)}" for column in dataset.values)
    columns = f"(extract(epoch FROM t.time) * 1000000)::bigint AS time_us, json_build_array({values})::text AS record"
    keys = rollup_keys(dataset)
    if not keys:
        named = f"'{dataset.name}' AS dataset, '' AS name"
        return f"SELECT {named}, {columns} FROM {dataset.table} t ORDER BY t.time DESC LIMIT 1"
    (key,) = keys
    column = quoted(key.column)
    name, instruments = _name(key)
    return f"""
        WITH RECURSIVE names AS (
            (SELECT {column} AS key FROM {dataset.table} ORDER BY {column} LIMIT 1)
            UNION ALL
            SELECT (SELECT n.{column} FROM {dataset.table} n WHERE n.{column} > names.key ORDER BY n.{column} LIMIT 1)
            FROM names WHERE names.key IS NOT NULL)
        SELECT '{dataset.name}' AS dataset, {name} AS name, newest.time_us, newest.record
        FROM names CROSS JOIN LATERAL (
            SELECT {columns} FROM {dataset.table} t WHERE t.{column} = names.key ORDER BY t.time DESC LIMIT 1
        ) newest{instruments}
        WHERE names.key IS NOT NULL LIMIT {MOST_NAMES}
    """


def _name(key: Column) -> tuple[str, str]:
    if key.kind == "symbol":
        return "i.symbol", " JOIN instruments i ON i.symbol_id = names.key"
    return "names.key", ""
