"""What a range of metrics is put together of: records, and buckets of their rollup, as SQL. Lane side.

A range is cut into whole hours, five minutes and minutes, which are read from the rollup, and what is left of a minute
at its ends, which is read from the records. So the pieces hold exactly the records in [start, end), whatever the two
are.
"""

from __future__ import annotations

# ruff: noqa: S608 - names are those of declarations, values are bound by the driver
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.datasets.ddl import quoted
from app.datasets.declare import Dataset
from app.datasets.rollup import RESOLUTIONS_S, rollup_keys, rollup_table
from app.storage.tick_reader import timestamp

Bound = dict[str, Any]
"""Parameters of a statement, by name."""

RECORDS = 0
"""Stands for the records themselves among the resolutions."""

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which records of a dataset: of [start_us, end_us) UTC, and of what.

    symbol_id: of one instrument; None: of all. texts: values by field that keys must have.
    """

    dataset: Dataset
    start_us: int
    end_us: int
    symbol_id: int | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Times [low_us, high_us), and the seconds of the buckets that cover them exactly; RECORDS: none do."""

    resolution_s: int
    low_us: int
    high_us: int


def resolutions(dataset: Dataset, interval_s: int | None = None) -> list[int]:
    """Return the resolutions of a dataset's rollup, rising; with an interval those that it is made of."""
    if not dataset.rollup:
        return []
    return [seconds for seconds in RESOLUTIONS_S if interval_s is None or interval_s % seconds == 0]


def cut(start_us: int, end_us: int, resolutions_s: Sequence[int]) -> Iterator[Part]:
    """Yield the parts of [start_us, end_us) in order of time, of the longest buckets first where they fit."""
    if start_us >= end_us:
        return
    if not resolutions_s:
        yield Part(RECORDS, start_us, end_us)
        return
    *shorter, longest = resolutions_s
    step_us = longest * _US
    low_us, high_us = -(-start_us // step_us) * step_us, end_us // step_us * step_us
    if low_us >= high_us:
        yield from cut(start_us, end_us, shorter)
        return
    yield from cut(start_us, low_us, shorter)
    yield Part(longest, low_us, high_us)
    yield from cut(high_us, end_us, shorter)


def pieces(chosen: Chosen, parts: Sequence[Part], wanted: Sequence[tuple[str, str]], tag: str) -> tuple[str, Bound]:
    """Return SQL whose rows are the records and buckets of these parts, and its parameters.

    Its columns: those of the key but time, `time`, `rows`, `first_time`, `last_time`, and w0, w1, ... for each (field,
    of) of `wanted`; of: count, sum, min, max or last. tag: tells its parameters from those of others.
    """
    dataset = chosen.dataset
    keys = "".join(f"t.{quoted(column.column)}, " for column in rollup_keys(dataset))
    conditions = [f"t.{quoted(dataset.by_name[name].column)} = %(text_{name})s" for name in chosen.texts]
    bound: Bound = {f"text_{name}": text for name, text in chosen.texts.items()}
    if chosen.symbol_id is not None:
        conditions.append("t.symbol_id = %(symbol_id)s")
        bound["symbol_id"] = chosen.symbol_id
    selects = []
    for place, part in enumerate(parts):
        low, high = f"low_{tag}{place}", f"high_{tag}{place}"
        bound |= {low: timestamp(part.low_us), high: timestamp(part.high_us)}
        where = [f"t.time >= %({low})s::timestamptz", f"t.time < %({high})s::timestamptz", *conditions]
        if part.resolution_s == RECORDS:
            table, told = dataset.table, "1 AS rows, t.time AS first_time, t.time AS last_time"
        else:
            table, told = rollup_table(dataset), "t.rows, t.first_time, t.last_time"
            where.append(f"t.resolution = {part.resolution_s}")
        made = "".join(
            f", {_value(dataset, name, of, part.resolution_s)} AS w{at}" for at, (name, of) in enumerate(wanted)
        )
        selects.append(f"SELECT {keys}t.time, {told}{made} FROM {table} t WHERE {' AND '.join(where)}")
    return " UNION ALL ".join(selects), bound


def _value(dataset: Dataset, name: str, of: str, resolution_s: int) -> str:
    column = dataset.by_name[name].column
    if resolution_s != RECORDS:
        return f"t.{column}_{of}"
    return f"(t.{quoted(column)} IS NOT NULL)::int" if of == "count" else f"t.{quoted(column)}"
