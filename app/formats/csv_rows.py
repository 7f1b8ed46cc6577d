"""Rows as CSV with a header line, line ends LF. Pure, lane side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.formats.arrow_columns import arrow_array, arrow_schema, arrow_text
from app.formats.table import NULL_INT, Field, Table, Values
from app.formats.times import time_bytes

SLICE_ROWS = 20_000
"""Rows made into text at once: some 2 MB of it. More is no quicker and takes more memory."""


class Csv:
    """A line for each row; text in quotes only where it must be, and "" for an empty one: null is nothing.

    A float always has a point or an exponent (440.0), so that a reader which guesses a column's type from the first
    rows guesses right.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = tuple(fields)
        self._types = arrow_schema(fields).types

    def head(self) -> bytes:
        """Return the line of names, which are words."""
        return ",".join(field.name for field in self._fields).encode() + b"\n"

    def rows(self, table: Table) -> bytes:
        """Return a line for each row, b"" for none."""
        return b"".join(
            self._lines(table.slice(start, start + SLICE_ROWS)) for start in range(0, len(table), SLICE_ROWS)
        )

    def tail(self, next_page_token: str | None) -> bytes:
        """Return nothing: CSV has no place for a token."""
        return b""

    def _lines(self, table: Table) -> bytes:
        # pyarrow.csv.write_csv would quote every text and time, and takes twice as long.
        import pyarrow.compute as pc

        ends = [","] * (len(self._fields) - 1) + ["\n"]
        columns = [
            _texts(field, values, arrow_type, end)
            for field, values, arrow_type, end in zip(table.fields, table.columns, self._types, ends, strict=True)
        ]
        _, offsets, text = pc.binary_join_element_wise(*columns, arrow_text("")).buffers()
        return bytes(memoryview(text)[: np.frombuffer(offsets, np.int32)[-1]])


def _texts(field: Field, values: Values, arrow_type: Any, end: str) -> Any:
    """Return a column as a pyarrow.StringArray of what stands between the commas, each with the `end` behind it."""
    if field.kind == "time":
        return _time_texts(values, end)
    import pyarrow as pa
    import pyarrow.compute as pc

    array = arrow_array(field, values, arrow_type)
    # Neighbours repeat: prices, sizes and flags have far fewer values than rows, and only those are formatted. Floats
    # are told apart by their bits, since -0.0 equals 0.0.
    if field.kind == "float":
        array = array.view(pa.int64())
    coded = array.dictionary_encode(null_encoding="encode")
    different = coded.dictionary
    if field.kind == "float":
        texts = different.view(pa.float64()).cast(pa.string())
        exact = pc.or_(pc.match_substring(texts, "."), pc.match_substring(texts, "e"))
        texts = pc.if_else(exact, texts, _joined(texts, arrow_text(".0")))
    elif field.kind in ("text", "json"):
        texts = _quoted(different)
    else:
        texts = different.cast(pa.string())
    texts = _joined(pc.fill_null(texts, arrow_text("")), arrow_text(end))
    return pc.array_take(texts, coded.indices, boundscheck=False)


def _time_texts(times_us: Any, end: str) -> Any:
    import pyarrow as pa

    texts = time_bytes(times_us, b"Z" + end.encode())
    width = texts.itemsize
    nulls = times_us == NULL_INT
    offsets = np.arange(0, (len(times_us) + 1) * width, width, dtype=np.int32)
    if nulls.any():
        kept = np.ones((len(texts), width), np.bool_)
        kept[nulls, :-1] = False
        texts = texts.view(np.uint8).reshape(kept.shape)[kept]
        np.cumsum(kept.sum(axis=1), out=offsets[1:])
    return pa.StringArray.from_buffers(len(times_us), pa.py_buffer(offsets), pa.py_buffer(texts))


def _quoted(texts: Any) -> Any:
    import pyarrow.compute as pc

    doubled = pc.replace_substring(texts, '"', '""')
    must = pc.or_(pc.equal(texts, arrow_text("")), pc.match_substring_regex(texts, '[",\r\n]'))
    return pc.if_else(must, _joined(arrow_text('"'), doubled, arrow_text('"')), texts)


def _joined(*texts: Any) -> Any:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*texts, arrow_text(""))
