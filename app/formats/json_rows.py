"""Rows as JSON objects: one document with a list, or NDJSON. Pure, lane side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
import numpy as np

from app.formats.table import NULL_INT, Field, Table, Values
from app.formats.times import time_texts

COLUMN_ROWS = 5_000
"""Rows whose columns become Python lists at once: about 0.5 ms for ten columns."""

OBJECT_ROWS = 500
"""Rows that msgspec encodes in one call, which holds the interpreter: about 0.25 ms for ten columns. More would make
the event loop wait longer, and 5,000 at once are only 5 % quicker."""

_encoder = msgspec.json.Encoder()


class Ndjson:
    """One JSON object a line, with the members in the order of the fields."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._row = _row_type(tuple(field.name for field in fields))

    def head(self) -> bytes:
        """Return nothing: NDJSON is its rows."""
        return b""

    def rows(self, table: Table) -> bytes:
        """Return a line for each row, b"" for none."""
        return b"".join(_encoder.encode_lines(rows) for rows in _objects(self._row, table))

    def tail(self, next_page_token: str | None) -> bytes:
        """Return nothing: NDJSON has no place for a token."""
        return b""


class Json:
    """One JSON object: the members of `extra`, the rows as the list `list_name`, and `next_page_token`."""

    def __init__(self, fields: Sequence[Field], list_name: str, extra: Mapping[str, str | None]) -> None:
        self._row = _row_type(tuple(field.name for field in fields))
        self._head = _encoder.encode({**extra, list_name: []})[: -len(b"]}")]
        self._between = b""

    def head(self) -> bytes:
        """Return what comes before the first row."""
        return self._head

    def rows(self, table: Table) -> bytes:
        """Return the rows with the commas between them, and before them if others went before."""
        parts: list[bytes] = []
        for rows in _objects(self._row, table):
            parts += self._between, _encoder.encode(rows)[1:-1]
            self._between = b","
        return b"".join(parts)

    def tail(self, next_page_token: str | None) -> bytes:
        """Return what comes after the last row."""
        return b'],"next_page_token":' + _encoder.encode(next_page_token) + b"}"


@lru_cache(256)
def _row_type(names: tuple[str, ...]) -> Callable[..., object]:
    # A Struct is made and encoded twice as quickly as a dict. The attributes are numbered, since a field may be
    # called `return`.
    attributes = {f"f{place}": name for place, name in enumerate(names)}
    return msgspec.defstruct("Row", [(name, Any) for name in attributes], rename=attributes, gc=False)


def _objects(row: Callable[..., object], table: Table) -> Iterator[list[object]]:
    for start in range(0, len(table), COLUMN_ROWS):
        part = table.slice(start, start + COLUMN_ROWS)
        columns = [_as_list(field, values) for field, values in zip(part.fields, part.columns, strict=True)]
        for first in range(0, len(part), OBJECT_ROWS):
            yield list(map(row, *(values[first : first + OBJECT_ROWS] for values in columns)))


def _as_list(field: Field, values: Values) -> list[Any]:
    if isinstance(values, list):
        if field.kind == "json":
            return [None if text is None else msgspec.Raw(str(text).encode()) for text in values]
        return values
    if field.kind in ("float", "bool"):
        return cast(list[Any], values.tolist())  # msgspec writes NaN as null
    texts: list[Any] = [*time_texts(values)] if field.kind == "time" else values.tolist()
    for place in np.flatnonzero(values == NULL_INT).tolist():
        texts[place] = None
    return texts
