"""Columns as pyarrow arrays, without copying numbers. Pure, lane side.

pyarrow is imported when first needed, here and beside: it costs 40 MB. The arrays are made from buffers, since
pyarrow.array would import pandas wherever that is installed, which costs another 60 MB and half a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from app.formats.table import NULL_INT, Field, Table, Values


def arrow_schema(fields: Sequence[Field]) -> Any:
    """Return the pyarrow.Schema of the fields: timestamp[us, UTC], int64, double, bool, string, date32."""
    import pyarrow as pa

    types = {
        "time": pa.timestamp("us", "UTC"),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "text": pa.string(),
        "date": pa.date32(),
        "json": pa.string(),
        "truth": pa.bool_(),
    }
    return pa.schema([pa.field(field.name, types[field.kind], nullable=field.kind != "bool") for field in fields])


def arrow_batch(table: Table, schema: Any) -> Any:
    """Return the table as a pyarrow.RecordBatch of that schema, sharing its numbers."""
    import pyarrow as pa

    arrays = [
        arrow_array(field, values, arrow.type)
        for field, values, arrow in zip(table.fields, table.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def arrow_array(field: Field, values: Values, arrow_type: Any) -> Any:
    """Return a column as a pyarrow.Array of that type, null where the field's kind says so."""
    import pyarrow as pa

    if isinstance(values, list):
        make = {"date": _date_array, "truth": _truth_array}.get(field.kind, _text_array)
        return make(values)
    if field.kind == "bool":
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(arrow_type, len(values), [None, pa.py_buffer(bits)])
    # A table read backwards has negative strides, and pyarrow would take other bytes for what they are not.
    values = np.ascontiguousarray(values, np.float64 if field.kind == "float" else np.int64)
    nulls = np.isnan(values) if field.kind == "float" else values == NULL_INT
    return pa.Array.from_buffers(arrow_type, len(values), [_validity(nulls), pa.py_buffer(values)])


@cache
def arrow_text(text: str) -> Any:
    """Return a constant as a pyarrow.Scalar: a str handed to pyarrow.compute would import pandas too."""
    return _text_array([text])[0]


def _truth_array(truths: Any) -> Any:
    import pyarrow as pa

    bits = np.packbits([bool(truth) for truth in truths], bitorder="little")
    nulls = np.fromiter((truth is None for truth in truths), np.bool_, len(truths))
    return pa.Array.from_buffers(pa.bool_(), len(truths), [_validity(nulls), pa.py_buffer(bits)])


def _date_array(dates: Any) -> Any:
    import pyarrow as pa

    days = np.array(["NaT" if date is None else date for date in dates], "M8[D]")
    numbers = days.astype(np.int64).astype(np.int32)
    return pa.Array.from_buffers(pa.date32(), len(dates), [_validity(np.isnat(days)), pa.py_buffer(numbers)])


def _text_array(texts: Any) -> Any:
    import pyarrow as pa

    encoded = [b"" if text is None else text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(texts)), out=offsets[1:])
    nulls = np.fromiter((text is None for text in texts), np.bool_, len(texts))
    return pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)), _validity(nulls)
    )


def _validity(nulls: npt.NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(~nulls, bitorder="little")) if nulls.any() else None
