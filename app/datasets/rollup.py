"""What is kept of a dataset by minute, five minutes and hour: its rollup, as SQL. Pure, lane side.

A rollup is a table `NAME_rollup`: a row for each key (less its time), resolution and bucket that has records. Of each
number it has `FIELD_count` (records that have one), `FIELD_sum`, `FIELD_min`, `FIELD_max` and `FIELD_last`, of each
text `FIELD_last`; the last is that of the newest record which has one. Buckets begin at multiples of their length since
1970, and are made again from the stored records, the longer from the shorter ones, in the transaction of a flush that
touches them (`storage/rollups.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from app.datasets.ddl import TYPES, comment_on, quoted
from app.datasets.declare import Column, Dataset

RESOLUTIONS_S = (60, 300, 3600)
"""Each a multiple of the one before."""

_OF_BUCKETS = (
    ("resolution", "integer NOT NULL", "Length of the bucket (seconds): 60, 300 or 3600"),
    ("time", "timestamptz NOT NULL", "Start of the bucket (UTC)"),
)
_OF_RECORDS = (
    ("rows", "bigint NOT NULL", "Records in the bucket (count)"),
    ("first_time", "timestamptz", "Time of its first record (UTC, microseconds)"),
    ("last_time", "timestamptz", "Time of its last record (UTC, microseconds)"),
)


@dataclass(frozen=True, slots=True)
class RollupColumn:
    """A column of a rollup that is made of a field. of: count, sum, min, max or last."""

    field: Column
    of: str

    @property
    def name(self) -> str:
        """Return the column's name."""
        return f"{self.field.column}_{self.of}"

    @property
    def type(self) -> str:
        """Return the column's type: whole numbers have exact sums, however many there are."""
        if self.of == "count":
            return "bigint"
        if self.of == "sum" and self.field.kind == "int":
            return "numeric"
        return TYPES[self.field.kind]


def rollup_table(dataset: Dataset) -> str:
    """Return the name of a dataset's rollup."""
    return f"{dataset.table}_rollup"


def rollup_columns(dataset: Dataset) -> tuple[RollupColumn, ...]:
    """Return the columns that are made of fields."""
    made = []
    for column in dataset.values:
        kinds = ("count", "sum", "min", "max", "last") if column.kind in ("float", "int") else ("last",)
        made += [RollupColumn(column, of) for of in kinds]
    return tuple(made)


def rollup_keys(dataset: Dataset) -> tuple[Column, ...]:
    """Return the columns of the dataset's key less its time."""
    return tuple(column for column in dataset.keys if column.name != dataset.time)


def create_rollup(dataset: Dataset) -> str:
    """Return the statements that make a dataset's rollup, with its index by time and its comments."""
    table, keys = rollup_table(dataset), rollup_keys(dataset)
    names = "".join(f"{quoted(column.column)}, " for column in keys)
    lines = [f"    {quoted(column.column)} {TYPES[column.kind]} NOT NULL," for column in keys]
    lines += [f"    {name} {kind}," for name, kind, _ in (*_OF_BUCKETS, *_OF_RECORDS)]
    lines += [f"    {column.name} {column.type}," for column in rollup_columns(dataset)]
    statements = [f"CREATE TABLE {table} (", *lines, f"    PRIMARY KEY ({names}resolution, time)"]
    # By resolution, so that a week of five minutes lies together, and not among its minutes.
    statements.append(") PARTITION BY LIST (resolution);")
    for seconds in RESOLUTIONS_S:
        statements.append(
            f"CREATE TABLE {table}_{seconds}\n"
            f"    PARTITION OF {table} FOR VALUES IN ({seconds}) WITH (fillfactor = 70);"
        )
    if keys:
        order = ", ".join(["resolution", "time", *(quoted(column.column) for column in keys)])
        statements.append(f"CREATE INDEX {table}_order ON {table} ({order});")
    words = f"{dataset.help}: by minute, five minutes and hour"
    statements.append(comment_on(f"TABLE {table}", words))
    for key in keys:
        said = "instruments.symbol_id" if key.kind == "symbol" else f"{key.help[0].upper()}{key.help[1:]}"
        statements.append(comment_on(f"COLUMN {table}.{quoted(key.column)}", said))
    for name, _, said in (*_OF_BUCKETS, *_OF_RECORDS):
        statements.append(comment_on(f"COLUMN {table}.{name}", said))
    for column in rollup_columns(dataset):
        statements.append(comment_on(f"COLUMN {table}.{column.name}", _words(column)))
    return "\n".join(statements) + "\n"


def _words(column: RollupColumn) -> str:
    help_ = column.field.help
    if column.of == "count":
        return f"Records that have {column.field.name} (count)"
    what = {"sum": "Sum", "min": "Least", "max": "Greatest", "last": "Newest"}[column.of]
    return f"{what} of: {help_}; NULL: no record has one"


# Names are those of declarations, never a user's.
# ruff: noqa: S608
def remaking(dataset: Dataset) -> tuple[tuple[int, str], ...]:
    """Return the statements that make buckets again from what is stored, by resolution (s), in this order.

    Their parameters are arrays, those of the key by column and `starts` (s), and `low` and `high` (s), around all.
    """
    table, keys = rollup_table(dataset), [quoted(column.column) for column in rollup_keys(dataset)]
    arrays = [f"%({column.column})s::{TYPES[column.kind]}[]" for column in rollup_keys(dataset)]
    columns = rollup_columns(dataset)
    touched = (
        f"(SELECT {''.join(f'{key}, ' for key in keys)}to_timestamp(start) AS time "
        f"FROM unnest({', '.join([*arrays, '%(starts)s::bigint[]'])}) AS u ({', '.join([*keys, 'start'])})) b"
    )
    order = ", ".join([*(f"b.{key}" for key in keys), "b.time"])
    listed = ", ".join([*keys, "resolution", "time"])
    begun = "".join(f"b.{key}, " for key in keys)
    same = "".join(f"t.{key} = b.{key} AND " for key in keys)
    names = ["rows", "first_time", "last_time", *(column.name for column in columns)]
    sets = ", ".join(f"{name} = excluded.{name}" for name in names)
    remake = []
    for finer, seconds in zip((0, *RESOLUTIONS_S), RESOLUTIONS_S, strict=False):
        made = _of_buckets(columns) if finer else _of_records(columns)
        source = f"{table} t WHERE t.resolution = {finer} AND" if finer else f"{dataset.table} t WHERE"
        # The bounds prune partitions; made in a LATERAL, each bucket is a range of the index, whatever is guessed.
        remake.append(
            (
                seconds,
                f"INSERT INTO {table} ({listed}, {', '.join(names)}) "
                f"SELECT {begun}{seconds}, b.time, m.* FROM {touched} CROSS JOIN LATERAL ("
                f"SELECT {', '.join(made)} FROM {source} {same}"
                f"t.time >= b.time AND t.time < b.time + interval '{seconds} seconds' "
                "AND t.time >= to_timestamp(%(low)s) AND t.time < to_timestamp(%(high)s)"
                f") m ({', '.join(names)}) WHERE m.rows > 0 ORDER BY {order} "
                f"ON CONFLICT ({listed}) DO UPDATE SET {sets}",
            )
        )
    return tuple(remake)


def _of_records(columns: tuple[RollupColumn, ...]) -> list[str]:
    made = ["count(*)", "min(t.time)", "max(t.time)"]
    for column in columns:
        name = f"t.{quoted(column.field.column)}"
        if column.of == "count":
            made.append(f"count({name})")
        elif column.of == "last":
            made.append(_last(name))
        elif column.of == "sum":
            made.append(f"sum({name} ORDER BY t.time)::{column.type}")
        else:
            made.append(f"{column.of}({name})")
    return made


def _of_buckets(columns: tuple[RollupColumn, ...]) -> list[str]:
    made = ["sum(t.rows)::bigint", "min(t.first_time)", "max(t.last_time)"]
    for column in columns:
        name = f"t.{column.name}"
        if column.of == "last":
            made.append(_last(name))
        elif column.of in ("min", "max"):
            made.append(f"{column.of}({name})")
        else:
            made.append(f"sum({name} ORDER BY t.time)::{column.type}")
    return made


def _last(name: str) -> str:
    # All ordered aggregates share one order, that of the index.
    return f"(array_agg({name} ORDER BY t.time) FILTER (WHERE {name} IS NOT NULL))[count({name})]"
