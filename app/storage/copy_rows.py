"""Rows of fixed width as PostgreSQL's binary COPY format, built by numpy. Lane side, pure.

Format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY. A row is a 16-bit field count, then
each field as a 32-bit length and its bytes, big-endian. NULLs would change a row's width: the columns that are NULL
in all rows of a call are left out of the column list instead.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_INT = struct.Struct(">i")
_FIELDS = len(_HEADER) + 2
"""Where the first field of the first row begins, behind the count of fields."""

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC in microseconds since 1970: timestamptz counts from there."""

READ_BYTES = 256 * 1024
"""How much libpq is handed at a time; psycopg2's default of 8 kB costs a call into Python for every 80 ticks."""

Column = tuple[str, str, npt.NDArray[Any]]
"""(name, big-endian dtype, values)."""


@lru_cache(maxsize=64)
def _row_dtype(formats: tuple[str, ...]) -> np.dtype[Any]:
    fields: list[tuple[str, str]] = [("n", ">i2")]
    for index, code in enumerate(formats):
        fields += [(f"l{index}", ">i4"), (f"v{index}", code)]
    return np.dtype(fields)


def binary_rows(columns: Sequence[Column]) -> bytes:
    """Return the rows as a binary COPY stream."""
    formats = tuple(code for _, code, _ in columns)
    dtype = _row_dtype(formats)
    rows = np.empty(len(columns[0][2]), dtype)
    rows["n"] = len(columns)
    for index, (_, code, values) in enumerate(columns):
        rows[f"l{index}"] = np.dtype(code).itemsize
        rows[f"v{index}"] = values
    return b"".join((_HEADER, rows.tobytes(), _TRAILER))


def copy_in(cur: Cursor, table: str, columns: Sequence[Column]) -> None:
    """COPY the rows into `table` (a name of our own, never a user's)."""
    names = ", ".join(name for name, _, _ in columns)
    cur.copy_expert(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)", io.BytesIO(binary_rows(columns)), READ_BYTES)


def copy_out(cur: Cursor, query: str, formats: Sequence[str]) -> npt.NDArray[Any]:
    """Run a query whose columns are all NOT NULL and of fixed width; return fields v0, v1, ... as an array."""
    out = io.BytesIO()
    cur.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", out)
    data = out.getbuffer()
    dtype = _row_dtype(tuple(formats))
    count = (len(data) - len(_HEADER) - len(_TRAILER)) // dtype.itemsize
    return np.frombuffer(data, dtype, count, len(_HEADER))


def copy_columns(
    cur: Cursor, query: bytes | str, names: Sequence[str], formats: Sequence[str]
) -> list[npt.NDArray[Any]]:
    """Run a query whose columns are all NOT NULL and of fixed width; return them as arrays of native numbers.

    names: of the query's columns. formats: ">i4", ">i8", ">f8"; integers come as int64.

    The server makes an array of each column and sends all of it as one row. That costs it a quarter more than rows
    would, and spares a turn of the interpreter's lock for every row: next to a busy event loop each may take 0.5 ms.
    """
    data = _one_row(cur, query, ", ".join(f"array_agg({name})" for name in names))
    at = _FIELDS
    found: list[npt.NDArray[Any]] = []
    for code in formats:
        values, at = _array(data, at, code, 1)
        found.append(values.astype(np.float64 if code == ">f8" else np.int64))
    return found


def copy_floats(cur: Cursor, query: bytes | str, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Run a query whose columns are all double precision; return them as the rows of a matrix, NULL as NaN.

    One array of all is a quarter cheaper for the server than an array a column (`copy_columns`, which see).
    """
    row = ", ".join(f"coalesce({name}, 'NaN')" for name in names)
    values, _ = _array(_one_row(cur, query, f"array_agg(ARRAY[{row}])"), _FIELDS, ">f8", 2)
    return np.ascontiguousarray(values.reshape(-1, len(names)).T.astype(np.float64))


def _one_row(cur: Cursor, query: bytes | str, values: str) -> memoryview:
    """Return the COPY stream of one row: what `values`, of our own, makes of a query whose values are bound."""
    text = query if isinstance(query, str) else query.decode()
    out = io.BytesIO()
    cur.copy_expert(f"COPY (SELECT {values} FROM ({text}) AS page) TO STDOUT (FORMAT binary)", out)  # noqa: S608
    return out.getbuffer()


def _array(data: memoryview, at: int, code: str, dimensions: int) -> tuple[npt.NDArray[Any], int]:
    """Return the numbers of the array field at `at`, none of which is NULL, and where the next field begins.

    Format: ndim, flags, element type, then size and lower bound of each dimension (int32 each), then length and bytes
    of each number.
    """
    (length,) = _INT.unpack_from(data, at)
    at += _INT.size
    if length < 0:  # of no rows there is no array
        return np.zeros(0, code), at
    head = (3 + 2 * dimensions) * _INT.size
    numbers = np.dtype([("length", ">i4"), ("value", code)])
    return np.frombuffer(data, numbers, (length - head) // numbers.itemsize, at + head)["value"], at + length


def timestamps(us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return UTC microseconds since 1970 as PostgreSQL counts them."""
    return us - POSTGRES_EPOCH_US
