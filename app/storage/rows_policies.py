"""What a row of a dataset does to the one of its key that is stored: the policies, as SQL. Lane side.

Rows are staged by COPY and inserted, but for those whose key is stored: that asks the key's own index, whatever the
planner knows of the table, and mostly it is all. Where some were left out, and the policy looks at them, all are then
found (and locked, by key, where they are to change), and its UPDATE changes them; the inserted ones are found as they
were sent. A row that is not found has been removed by somebody meanwhile: `Raced`, again.

`update` takes a row that was accepted before the stored one's last for late (workers flush on their own): it fills in
what is null, and replaces nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from psycopg2.extensions import cursor as Cursor

from app.datasets.ddl import TYPES, quoted
from app.datasets.declare import Column, Dataset, Policy
from app.storage.rows_folding import Row
from app.storage.tick_reader import timestamp

_NULL = "\\N"


class Raced(Exception):
    """Somebody else inserted or removed one of the keys meanwhile."""


@dataclass(slots=True)
class Applied:
    """How many keys were there, how many rows were stored, or were there already; those that are there otherwise."""

    found: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Statements:
    stage: str
    copy: str
    insert: str
    lock: str
    own_times: str
    differing: str
    changed: str
    update: str


def apply_policy(cur: Cursor, dataset: Dataset, policy: Policy, rows: Sequence[Row]) -> Applied:
    """Write rows by the policy: of distinct keys, or (`error`) all of keys that are stored.

    Raises Raced, and what the database says of a row.
    """
    applied = Applied()
    if not rows:
        return applied
    sql = _statements(dataset)
    updates = policy in ("update", "keep_newest")
    cur.execute(sql.stage)
    cur.copy_expert(sql.copy, io.BytesIO(_copy_lines(dataset, rows)))
    newer = _not_older(dataset) if policy == "keep_newest" else "s.received_at >= t.received_at"
    counts = {"newer": newer, "counts": "TRUE" if policy == "update" else newer}
    cur.execute(sql.insert)
    applied.stored = cur.rowcount
    applied.found = len(rows) - cur.rowcount
    if applied.found and policy != "ignore":
        if updates:
            cur.execute(sql.lock)
        cur.execute(sql.changed.format_map(counts) if updates else sql.differing)
        matches: list[tuple[int, bool]] = cur.fetchall()
        if len(matches) < len(rows):
            raise Raced
        differing = [rows[ord_] for ord_, differs in matches if differs]
        if updates:
            cur.execute(sql.update.format_map(counts))
            applied.stored += len(differing)
        else:
            applied.conflicts = differing
    applied.duplicates = len(rows) - applied.stored - len(applied.conflicts)
    return applied


def lock_stored(cur: Cursor, dataset: Dataset, rows: Sequence[Row]) -> list[int | None]:
    """Return for each row its own time (UTC microseconds) as it is stored, None where its key is not, and lock those.

    Of datasets that have one beside their key.
    """
    sql = _statements(dataset)
    cur.execute(sql.stage)
    cur.copy_expert(sql.copy, io.BytesIO(_copy_lines(dataset, rows)))
    cur.execute(sql.lock)
    cur.execute(sql.own_times)
    times: dict[int, int] = dict(cur.fetchall())
    return [times.get(ord_) for ord_ in range(len(rows))]


# Names are those of declarations, never a user's.
# ruff: noqa: S608
@cache
def _statements(dataset: Dataset) -> _Statements:
    columns = [quoted(column.column) for column in dataset.columns]
    keys = [quoted(column.column) for column in dataset.keys]
    values = [(quoted(column.column), bit) for bit, column in enumerate(dataset.values)]
    same_key = " AND ".join(
        f"t.{key} {'=' if dataset.always(column) else 'IS NOT DISTINCT FROM'} s.{key}"
        for key, column in zip(keys, dataset.keys, strict=True)
    )
    typed = ", ".join(f"{quoted(column.column)} {TYPES[column.kind]}" for column in dataset.columns)
    sorted_keys = ", ".join(f"s.{key}" for key in keys)
    # {newer}: whether the staged row counts before the stored one; {counts}: whether it counts at all.
    new = [
        f"CASE WHEN (s.sent >> {bit}) & 1 = 1 AND {{counts}} AND ({{newer}} OR t.{value} IS NULL) "
        f"THEN s.{value} ELSE t.{value} END"
        for value, bit in values
    ]
    sets = "".join(f"{value} = {said}, " for (value, _), said in zip(values, new, strict=True))
    old = ", ".join(f"t.{value}" for value, _ in values)
    differing = " OR ".join(f"t.{value} IS DISTINCT FROM s.{value}" for value, _ in values) or "FALSE"
    changed = f"ROW({old}) IS DISTINCT FROM ROW({', '.join(new)})" if values else "FALSE"
    listed = ", ".join(columns)
    staged = f"staged_{dataset.table}"
    # An instrument's number is taken before its key is looked at: they would run out of updates sent all day long.
    absent = f"WHERE NOT EXISTS (SELECT FROM {dataset.table} t WHERE {same_key})" if dataset.adds_symbols else ""
    return _Statements(
        stage=f"DROP TABLE IF EXISTS pg_temp.{staged}; CREATE TEMP TABLE {staged} "
        f"(ord integer, sent bigint, {typed}, received_at timestamptz) ON COMMIT DROP",
        copy=f"COPY {staged} (ord, sent, {listed}, received_at) FROM STDIN",
        insert=f"INSERT INTO {dataset.table} ({listed}, received_at) SELECT {listed}, received_at FROM {staged} s "
        f"{absent} ORDER BY {sorted_keys} ON CONFLICT DO NOTHING",
        lock=f"SELECT FROM {dataset.table} t JOIN {staged} s ON {same_key} ORDER BY {sorted_keys} "
        "FOR NO KEY UPDATE OF t",
        own_times=""
        if dataset.own_time is None
        else "SELECT s.ord, "
        f"(extract(epoch FROM t.{quoted(dataset.own_time.column)}) * 1000000)::bigint "
        f"FROM {dataset.table} t JOIN {staged} s ON {same_key}",
        differing=f"SELECT s.ord, {differing} FROM {dataset.table} t JOIN {staged} s ON {same_key}",
        changed=f"SELECT s.ord, {changed} FROM {dataset.table} t JOIN {staged} s ON {same_key}",
        # Also where nothing changes: what was accepted before this must not count as newer when it comes.
        update=f"UPDATE {dataset.table} t SET {sets}received_at = greatest(t.received_at, s.received_at) "
        f"FROM {staged} s WHERE {same_key} AND ({changed} OR s.received_at > t.received_at)",
    )


def _not_older(dataset: Dataset) -> str:
    """Return whether a staged row is not older than the stored one: by its own time, else by when it was accepted."""
    own = dataset.own_time
    if own is None:
        return "s.received_at >= t.received_at"
    name = quoted(own.column)
    return f"(coalesce(s.{name} >= t.{name}, s.received_at >= t.received_at))"


def _copy_lines(dataset: Dataset, rows: Sequence[Row]) -> bytes:
    """Return the rows as COPY's text: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2."""
    places = {name: place for place, name in enumerate(dataset.key)}
    # By columns: choosing by kind for each cell takes as long as all else that is done to a row.
    cells = [list(map(str, range(len(rows)))), _sent(dataset, rows)]
    for column in dataset.columns:
        name, at = column.name, places.get(column.name)
        values = [row.values.get(name) for row in rows] if at is None else [row.key[at] for row in rows]
        cells.append(_cells(column, values))
    cells.append([timestamp(row.received_us) for row in rows])
    return ("\n".join(map("\t".join, zip(*cells, strict=True))) + "\n").encode()


def _sent(dataset: Dataset, rows: Sequence[Row]) -> list[str]:
    """Return which values were sent, as bits; rows of a request mostly have the same."""
    bits = {column.name: 1 << bit for bit, column in enumerate(dataset.values)}
    known: dict[tuple[str, ...], str] = {}
    told = []
    for row in rows:
        names = tuple(row.values)
        found = known.get(names)
        if found is None:
            found = known[names] = str(sum(bits[name] for name in names))
        told.append(found)
    return told


def _cells(column: Column, values: Sequence[Any]) -> list[str]:
    match column.kind:
        case "text" | "name" | "json":
            return [_NULL if value is None else _escaped(str(value)) for value in values]
        case "time":
            return [_NULL if value is None else timestamp(value) for value in values]
        case "float":
            return [_NULL if value is None else repr(float(value)) for value in values]
        case "bool":
            return [_NULL if value is None else "t" if value else "f" for value in values]
        case _:
            return [_NULL if value is None else str(value) for value in values]


def _escaped(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text if text.isprintable() else text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
