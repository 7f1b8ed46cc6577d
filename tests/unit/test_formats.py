"""Every format says the same, to the last bit, and the usual readers read it back."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.formats import arrow_rows, csv_rows, json_rows
from app.formats.encoders import MIMETYPES, Encoder, Format, Gzipped, make_encoder
from app.formats.table import NULL_INT, Field, Table, empty
from app.formats.times import time_texts

FORMATS: list[Format] = ["json", "ndjson", "csv", "arrow", "parquet"]

FIELDS = (
    Field("timestamp", "time"),
    Field("price", "float"),
    Field("seq", "int"),
    Field("complete", "bool"),
    Field("return", "text"),  # a dataset has a field of this name
    Field("seen_at", "time"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)

Row = tuple[Any, ...]
"""A row's values as Python has them: datetime, float, int, bool, str, None."""


def micros(moment: datetime | None) -> int:
    return NULL_INT if moment is None else (moment - EPOCH) // US


def moment(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def table(rows: Sequence[Row]) -> Table:
    if not rows:
        return empty(FIELDS)
    times, prices, seqs, flags, texts, seen = zip(*rows, strict=True)
    return Table(
        FIELDS,
        [
            np.array([micros(value) for value in times], np.int64),
            np.array([math.nan if value is None else value for value in prices], np.float64),
            np.array([NULL_INT if value is None else value for value in seqs], np.int64),
            np.array(flags, np.bool_),
            list(texts),
            np.array([micros(value) for value in seen], np.int64),
        ],
    )


def encoder(form: Format, fields: Sequence[Field] = FIELDS) -> Encoder:
    return make_encoder(form, fields, list_name="ticks", extra={"symbol": "TSLA", "interval": "1m"})


def written(into: Encoder, tables: Sequence[Table], token: str | None = None) -> bytes:
    return b"".join([into.head(), *(into.rows(part) for part in tables), into.tail(token)])


def bits(value: Any) -> Any:
    """Return what makes -0.0 differ from 0.0, and 1 from 1.0 and True."""
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def same(got: Sequence[Row], expected: Sequence[Row]) -> None:
    assert [[bits(value) for value in row] for row in got] == [[bits(value) for value in row] for row in expected]


# What each reader makes of the bytes: rows of Python's own values


def parsed(text: str | None) -> datetime | None:
    return None if text is None else datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def of_objects(objects: list[dict[str, Any]]) -> list[Row]:
    assert all(list(found) == [field.name for field in FIELDS] for found in objects)
    rows = [tuple(found.values()) for found in objects]
    return [(parsed(row[0]), *row[1:5], parsed(row[5])) for row in rows]


def by_json(data: bytes) -> list[Row]:
    return of_objects(json.loads(data)["ticks"])


def by_ndjson(data: bytes) -> list[Row]:
    return of_objects([json.loads(line) for line in data.split(b"\n")[:-1]])


def by_csv(data: bytes) -> list[Row]:
    # Python's own reader takes "" for nothing, so the empty text is marked before.
    lines = csv.reader(io.StringIO(data.decode().replace(',"",', ",<empty>,"), newline=""))
    assert next(lines) == [field.name for field in FIELDS]
    return [
        (
            parsed(line[0] or None),
            float(line[1]) if line[1] else None,
            int(line[2]) if line[2] else None,
            {"true": True, "false": False}[line[3]],
            None if line[4] == "" else line[4].replace("<empty>", ""),
            parsed(line[5] or None),
        )
        for line in lines
    ]


def by_arrow(data: bytes) -> list[Row]:
    return of_arrow(pa.ipc.open_stream(data).read_all())


def by_parquet(data: bytes) -> list[Row]:
    return of_arrow(pq.read_table(io.BytesIO(data)))


def of_arrow(found: pa.Table) -> list[Row]:
    found.validate(full=True)
    assert found.schema.names == [field.name for field in FIELDS]
    time = pa.timestamp("us", "UTC")
    assert found.schema.types == [time, pa.float64(), pa.int64(), pa.bool_(), pa.string(), time]
    columns = [
        [None if value is None else moment(value) for value in column.cast(pa.int64()).to_pylist()]
        if column.type == time
        else column.to_pylist()
        for column in found.columns
    ]
    return list(zip(*columns, strict=True))


READERS: dict[str, Callable[[bytes], list[Row]]] = {
    "json": by_json,
    "ndjson": by_ndjson,
    "csv": by_csv,
    "arrow": by_arrow,
    "parquet": by_parquet,
}

moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)).map(
    lambda naive: naive.replace(tzinfo=UTC)
)
floats = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 1e300, 1e16, 1e15, 1e-5]),
    st.sampled_from([0.1, 100.0, 123456789012.0, 2.0**53, 440.01, 1e22, 9007199254740993.0]),
    st.floats(allow_nan=False, allow_infinity=False),
)
ints = st.one_of(st.sampled_from([0, -1, 2**63 - 1, -(2**63) + 1, 2**53 + 1]), st.integers(-(2**63) + 1, 2**63 - 1))
texts = st.one_of(
    st.sampled_from(["", '"', '""', ",", "\n", "\r\n", "a,b", 'say "no"', " x ", "NaN", "null"]),
    st.sampled_from(["ü€😀", "a\tb", "\\", "'"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<>"), max_size=8),
)
rows_of_values = st.lists(
    st.tuples(
        st.none() | moments,
        st.none() | floats,
        st.none() | ints,
        st.booleans(),
        st.none() | texts,
        st.none() | moments,
    ),
    max_size=30,
)
SOME = [
    (moment(1_768_326_883_000_000), 440.0, 1, True, "buy", None),
    (moment(1_768_326_883_000_001), None, None, False, None, moment(0)),
    (moment(1_768_413_283_999_999), -0.0, -7, True, "", moment(-1)),
]


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS)
@given(rows=rows_of_values)
@example(rows=SOME)
@example(rows=[])
@settings(deadline=None)
def test_every_format_gives_back_the_same_values_to_the_last_bit(form: Format, rows: list[Row]) -> None:
    same(READERS[form](written(encoder(form), [table(rows)])), rows)


@pytest.mark.parametrize("form", FORMATS)
@given(rows=rows_of_values, cuts=st.lists(st.integers(0, 30), max_size=5))
@settings(deadline=None, max_examples=50)
def test_many_slices_make_the_same_answer_as_one(form: Format, rows: list[Row], cuts: list[int]) -> None:
    whole = table(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    data = written(encoder(form), [whole.slice(*edge) for edge in pairwise(edges)])
    same(READERS[form](data), rows)
    if form not in ("arrow", "parquet"):
        assert data == written(encoder(form), [whole])


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_longer_than_any_inner_slice_comes_out_whole(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "OBJECT_ROWS", 3)
    monkeypatch.setattr(json_rows, "COLUMN_ROWS", 7)
    monkeypatch.setattr(csv_rows, "SLICE_ROWS", 7)
    monkeypatch.setattr(arrow_rows, "ROW_GROUP_ROWS", 7)
    rows = [(moment(place * 10**9), place / 7, place, place % 2 == 0, f"row {place}", None) for place in range(64)]
    data = written(encoder(form), [table(rows[:20]), table(rows[20:22]), table(rows[22:])])
    same(READERS[form](data), rows)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_read_backwards_are_written_as_they_stand(form: Format) -> None:
    same(READERS[form](written(encoder(form), [table(SOME).backwards()])), SOME[::-1])


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_an_answer_too(form: Format) -> None:
    assert READERS[form](written(encoder(form), [])) == []
    assert READERS[form](written(encoder(form), [empty(FIELDS)])) == []


@pytest.mark.parametrize("form", FORMATS)
def test_gzip_holds_exactly_the_plain_answer(form: Format) -> None:
    tables = [table(SOME), table(SOME * 5000), table([])]
    squeezed = written(Gzipped(encoder(form)), tables, "next")
    assert gzip.decompress(squeezed) == written(encoder(form), tables, "next")


def test_gzip_streams_instead_of_keeping_all_for_the_end() -> None:
    rng = np.random.default_rng(1)
    fields = (Field("price", "float"),)
    pages = [Table(fields, [rng.random(5000)]) for _ in range(8)]
    into = Gzipped(encoder("csv", fields))
    into.head()
    sent = [len(into.rows(page)) for page in pages]
    assert sum(sent) > 10 * len(into.tail(None))


def test_json_is_one_object_with_the_extra_members_first_and_the_token_last() -> None:
    data = written(encoder("json"), [table(SOME[:2])], "abc")
    assert data == (
        b'{"symbol":"TSLA","interval":"1m","ticks":['
        b'{"timestamp":"2026-01-13T17:54:43.000000Z","price":440.0,"seq":1,"complete":true,"return":"buy",'
        b'"seen_at":null},'
        b'{"timestamp":"2026-01-13T17:54:43.000001Z","price":null,"seq":null,"complete":false,"return":null,'
        b'"seen_at":"1970-01-01T00:00:00.000000Z"}'
        b'],"next_page_token":"abc"}'
    )
    bars = make_encoder("json", FIELDS, list_name="bars", extra={})
    assert written(bars, []) == b'{"bars":[],"next_page_token":null}'


def test_csv_quotes_only_what_must_be_and_tells_an_empty_text_from_none() -> None:
    texts = ["buy", None, "", "a b", "a,b", 'say "no"', "two\nlines", "cr\r", " x"]
    fields = (Field("text", "text"), Field("n", "int"))
    numbers = np.arange(len(texts), dtype=np.int64)
    data = written(encoder("csv", fields), [Table(fields, [list(texts), numbers])])
    assert data.decode() == (
        'text,n\nbuy,0\n,1\n"",2\na b,3\n"a,b",4\n"say ""no""",5\n"two\nlines",6\n"cr\r",7\n x,8\n'
    )


def test_an_empty_page_adds_nothing() -> None:
    assert [encoder(form).rows(empty(FIELDS)) for form in FORMATS if form != "parquet"] == [b""] * 4


def test_a_whole_float_keeps_its_point_in_csv_so_that_readers_see_a_float_column() -> None:
    fields = (Field("volume", "float"),)
    volumes = np.array([1.0, -0.0, 1e16, 5e-324, 0.5, math.nan, 12345678901.0])
    lines = written(encoder("csv", fields), [Table(fields, [volumes])]).decode().splitlines()[1:]
    assert lines[:2] == ["1.0", "-0.0"]
    assert all(set(line) & {".", "e"} for line in lines if line)
    many = Table(fields, [np.concatenate([np.ones(500), [0.5]])])
    assert pl.read_csv(written(encoder("csv", fields), [many])).schema == {"volume": pl.Float64}


@given(st.lists(moments, min_size=1, max_size=50))
@example([moment(-62_135_596_800_000_000), moment(253_402_300_799_999_999), moment(-1), moment(0)])
def test_times_are_written_as_the_calendar_has_them(times: list[datetime]) -> None:
    got = time_texts(np.array([micros(value) for value in times], np.int64))
    assert got == [f"{value:%Y}".rjust(4, "0") + f"{value:-%m-%dT%H:%M:%S.%fZ}" for value in times]


# The readers people use


def many_rows() -> list[Row]:
    rng = np.random.default_rng(3)
    return [
        (
            moment(1_768_326_883_000_000 + place * 250_001),
            None if place % 5 == 1 else float(rng.integers(1, 10**9)) / 10 ** int(rng.integers(0, 9)),
            None if place % 7 == 3 else int(rng.integers(-(2**62), 2**62)),
            bool(rng.integers(2)),
            [None, "buy", "a,b", 'q"', "ü"][place % 5],
            None if place % 3 else moment(int(rng.integers(0, 7_258_118_400_000_000))),  # to 2199
        )
        for place in range(3000)
    ]


def of_pandas(frame: pd.DataFrame) -> list[Row]:
    assert str(frame.dtypes["timestamp"]) == str(frame.dtypes["seen_at"]) == "datetime64[us, UTC]"
    assert str(frame.dtypes["price"]) == "float64"
    assert str(frame.dtypes["complete"]) == "bool"
    return [
        (
            row[0].to_pydatetime(),
            None if math.isnan(row[1]) else row[1],
            None if pd.isna(row[2]) else int(row[2]),
            row[3],
            None if pd.isna(row[4]) else row[4],
            None if pd.isna(row[5]) else row[5].to_pydatetime(),
        )
        for row in frame.itertuples(index=False, name=None)
    ]


def test_pandas_reads_csv_with_proper_types() -> None:
    rows = many_rows()
    data = io.BytesIO(written(encoder("csv"), [table(rows)]))
    frame = pd.read_csv(
        data, parse_dates=["timestamp", "seen_at"], dtype={"seq": "Int64"}
    )
    same(of_pandas(frame), rows)


def test_pandas_reads_arrow_and_parquet_with_proper_types() -> None:
    rows = many_rows()
    options = {"types_mapper": {pa.int64(): pd.Int64Dtype()}.get}
    found = pa.ipc.open_stream(written(encoder("arrow"), [table(rows)])).read_pandas(**options)
    same(of_pandas(found), rows)
    found = pq.read_table(io.BytesIO(written(encoder("parquet"), [table(rows)]))).to_pandas(**options)
    same(of_pandas(found), rows)


def polars_csv(data: bytes) -> pl.DataFrame:
    return pl.read_csv(data, try_parse_dates=True)


def polars_ndjson(data: bytes) -> pl.DataFrame:
    frame = pl.read_ndjson(data)
    return frame.with_columns(pl.col("timestamp", "seen_at").str.to_datetime(time_unit="us", time_zone="UTC"))


@pytest.mark.parametrize(
    ("form", "read"),
    [("csv", polars_csv), ("ndjson", polars_ndjson), ("arrow", pl.read_ipc_stream), ("parquet", pl.read_parquet)],
)
def test_polars_reads_it_with_proper_types(form: Format, read: Callable[[bytes], pl.DataFrame]) -> None:
    rows = many_rows()
    frame = read(written(encoder(form), [table(rows)]))
    time = pl.Datetime("us", "UTC")
    assert dict(frame.schema) == {
        "timestamp": time,
        "price": pl.Float64,
        "seq": pl.Int64,
        "complete": pl.Boolean,
        "return": pl.String,
        "seen_at": time,
    }
    same([(row[0].astimezone(UTC), *row[1:5], row[5] and row[5].astimezone(UTC)) for row in frame.rows()], rows)


def test_every_format_has_its_media_type() -> None:
    assert list(MIMETYPES) == FORMATS
