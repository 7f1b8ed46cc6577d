"""A declaration as SQL: its table, index and comments. Pure, lane side.

Migrations hold the text that this made at their time (python -m tests.integration.write_migration), never this code.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.datasets.declare import Column, Dataset, Kind

TYPES: dict[Kind, str] = {
    "symbol": "integer",
    "name": "text",
    "time": "timestamptz",
    "date": "date",
    "float": "float8",
    "int": "bigint",
    "bool": "boolean",
    "text": "text",
    "json": "jsonb",
}
LINE_CHARS = 120
RECEIVED = ("received_at", "When the newest row of this key was accepted (UTC, microseconds)")


def create_table(dataset: Dataset) -> str:
    """Return the statements that make a dataset's table, with its index by time and its comments."""
    lines = [f"    {quoted(column.column)} {_type(column, dataset.always(column))}," for column in dataset.columns]
    lines += [f"    {RECEIVED[0]} timestamptz NOT NULL,", f"    PRIMARY KEY ({_names(dataset.keys)})"]
    parted = "" if dataset.partitions is None else " PARTITION BY RANGE (time)"
    statements = [f"CREATE TABLE {dataset.table} (", *lines, f"){parted};", *_index(dataset)]
    statements.append(comment_on(f"TABLE {dataset.table}", dataset.help))
    for column in dataset.columns:
        statements.append(
            comment_on(f"COLUMN {dataset.table}.{quoted(column.column)}", comment(column, dataset.always(column)))
        )
    statements.append(comment_on(f"COLUMN {dataset.table}.{RECEIVED[0]}", RECEIVED[1]))
    return "\n".join(statements) + "\n"


def comment(column: Column, always: bool) -> str:
    """Return what the database says of a column."""
    if column.kind == "symbol":
        return "instruments.symbol_id"
    if column.column == "time":
        return "When it was (UTC, microseconds)"
    words = f"{column.help[0].upper()}{column.help[1:]}"
    return words if always else f"{words}; NULL: not known"


def quoted(name: str) -> str:
    """Return a column's name as an identifier: `end` is a word of SQL."""
    return f'"{name}"' if name in ("end", "start", "return", "date", "interval", "parameters") else name


def _type(column: Column, always: bool) -> str:
    kind = TYPES[column.kind]
    if column.choices:
        kind += f" CHECK ({quoted(column.column)} IN ({', '.join(map(_text, column.choices))}))"
    return f"{kind} NOT NULL" if always else kind


def _index(dataset: Dataset) -> Iterator[str]:
    """Yield the index that rows of all symbols are read by, unless the key itself begins so."""
    if dataset.order != dataset.keys:
        yield f"CREATE INDEX {dataset.table}_order ON {dataset.table} ({_names(dataset.order)});"
    for names in dataset.indexes:
        columns = tuple(dataset.by_name[name] for name in names)
        words = "_".join(column.column for column in columns)
        yield f"CREATE INDEX {dataset.table}_{words} ON {dataset.table} ({_names(columns)});"


def _names(columns: tuple[Column, ...]) -> str:
    return ", ".join(quoted(column.column) for column in columns)


def comment_on(of: str, words: str) -> str:
    """Return the statement that says something of a table or a column, in two lines where one is too long."""
    line = f"COMMENT ON {of} IS {_text(words)};"
    return line if len(line) <= LINE_CHARS else line.replace(" IS '", " IS\n    '", 1)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
