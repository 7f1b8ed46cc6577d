"""Read what a range of metrics comes to: how many records, and of each number the least, greatest, mean and last.

Lane side. The statements must see one snapshot.
"""

from __future__ import annotations

# ruff: noqa: S608 - names are those of declarations, values are bound by the driver
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor as Cursor

from app.datasets.ddl import quoted
from app.datasets.rollup import RESOLUTIONS_S
from app.storage.metrics_pieces import Bound, Chosen, cut, pieces, resolutions
from app.storage.tick_reader import timestamp

_OF = ("count", "sum", "min", "max")
_FIGURES = 5
"""Columns of a field: count, sum, least, greatest, and the time of the newest piece that has one."""


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """Of a field's values; None where no record has one. last: that of the newest record which has one."""

    min: float | None = None
    max: float | None = None
    avg: float | None = None
    last: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Records of a range; times UTC microseconds since 1970, None where there are no records."""

    rows: int
    first_us: int | None
    last_us: int | None
    fields: dict[str, FieldSummary]


def read_summary(cur: Cursor, chosen: Chosen) -> Summary:
    """Return what these records come to, all together; of two that are equally new the greater key is the last."""
    names = list(chosen.dataset.aggregates)
    parts = list(cut(chosen.start_us, chosen.end_us, resolutions(chosen.dataset)))
    if not parts:
        return Summary(0, None, None, {name: FieldSummary() for name in names})
    source, bound = pieces(chosen, parts, [(name, of) for name in names for of in _OF], "s")
    made = ["coalesce(sum(p.rows), 0)::bigint", _us("min(p.first_time)"), _us("max(p.last_time)")]
    for place in range(0, len(names) * len(_OF), len(_OF)):
        count, total, least, most = (f"p.w{place + at}" for at in range(len(_OF)))
        made += [f"sum({count})::bigint", f"sum({total})::float8", f"min({least})::float8", f"max({most})::float8"]
        made.append(f"max(p.time) FILTER (WHERE {count} > 0)")
    cur.execute(f"SELECT {', '.join(made)} FROM ({source}) p", bound)
    row = cur.fetchone()
    assert row is not None
    rows, first_us, last_us, *figures = row
    fields = {}
    for place, name in enumerate(names):
        count, total, least, most, newest = figures[place * _FIGURES : (place + 1) * _FIGURES]
        last = _last(cur, chosen, name, newest) if count else None
        fields[name] = FieldSummary(least, most, total / count, last) if count else FieldSummary()
    return Summary(rows, first_us, last_us, fields)


def _last(cur: Cursor, chosen: Chosen, name: str, newest: Any) -> float | None:
    """Return the newest value of a field. newest: where the newest piece begins that has one; no piece is longer."""
    dataset = chosen.dataset
    bound: Bound = {"newest": newest, "end": timestamp(chosen.end_us), "longest": RESOLUTIONS_S[-1]}
    column = f"t.{quoted(dataset.by_name[name].column)}"
    conditions = [
        f"{column} IS NOT NULL",
        "t.time >= %(newest)s",
        "t.time < %(newest)s + make_interval(secs => %(longest)s)",
        "t.time < %(end)s::timestamptz",
    ]
    if chosen.symbol_id is not None:
        conditions.append("t.symbol_id = %(symbol_id)s")
        bound["symbol_id"] = chosen.symbol_id
    for field, text in chosen.texts.items():
        conditions.append(f"t.{quoted(dataset.by_name[field].column)} = %(text_{field})s")
        bound[f"text_{field}"] = text
    order = ", ".join(f"t.{quoted(one.column)} DESC" for one in dataset.order)
    cur.execute(
        f"SELECT {column}::float8 FROM {dataset.table} t WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT 1",
        bound,
    )
    found = cur.fetchone()
    return None if found is None else float(found[0])


def _us(time: str) -> str:
    return f"(extract(epoch FROM {time}) * 1000000)::bigint"
