"""What answers look like, pinned: they are kept by clients and in Redis under a name that holds ANSWERS_VERSION."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.formats.encoders import Format, make_encoder
from app.formats.table import NULL_INT, Field, Table
from app.row_stream import ANSWERS_VERSION
from app.storage.bar_reader import BARS
from app.storage.tick_reader import TICKS

PINNED = 1
"""The version that the texts below are of. Whoever has to change them raises this one and ANSWERS_VERSION."""

FLOATS = [0.1, 0.1 + 0.2, 1e22, -0.0, 5e-324, 100.0, 1234567.125]
ROWS: dict[str, tuple[tuple[Field, ...], str, str, str]] = {
    "ticks": (
        TICKS,
        '{"timestamp":"2026-01-13T17:54:43.250000Z","bid":0.1,"ask":0.30000000000000004,"last":1e22,"spread":-0.0,'
        '"volume":5e-324,"buy_volume":100.0,"sell_volume":1234567.125,"flags":24,"seq":24}\n'
        '{"timestamp":"2026-01-13T17:54:43.250001Z","bid":null,"ask":null,"last":null,"spread":null,"volume":null,'
        '"buy_volume":null,"sell_volume":null,"flags":null,"seq":null}\n',
        "timestamp,bid,ask,last,spread,volume,buy_volume,sell_volume,flags,seq\n"
        "2026-01-13T17:54:43.250000Z,0.1,0.30000000000000004,1e+22,-0.0,5e-324,100.0,1234567.125,24,24\n"
        "2026-01-13T17:54:43.250001Z,,,,,,,,,\n",
        "timestamp: timestamp[us, tz=UTC], bid: double, ask: double, last: double, spread: double, volume: double, "
        "buy_volume: double, sell_volume: double, flags: int64, seq: int64",
    ),
    "bars": (
        BARS,
        '{"timestamp":"2026-01-13T17:54:43.250000Z","open":0.1,"high":0.30000000000000004,"low":1e22,"close":-0.0,'
        '"volume":5e-324,"buy_volume":100.0,"sell_volume":1234567.125,"ticks":24,"complete":true}\n'
        '{"timestamp":"2026-01-13T17:54:43.250001Z","open":null,"high":null,"low":null,"close":null,"volume":null,'
        '"buy_volume":null,"sell_volume":null,"ticks":null,"complete":false}\n',
        "timestamp,open,high,low,close,volume,buy_volume,sell_volume,ticks,complete\n"
        "2026-01-13T17:54:43.250000Z,0.1,0.30000000000000004,1e+22,-0.0,5e-324,100.0,1234567.125,24,true\n"
        "2026-01-13T17:54:43.250001Z,,,,,,,,,false\n",
        "timestamp: timestamp[us, tz=UTC], open: double, high: double, low: double, close: double, volume: double, "
        "buy_volume: double, sell_volume: double, ticks: int64, complete: bool",
    ),
}


def made(name: str, form: Format) -> bytes:
    """Return an answer with a row of odd values and one of nulls."""
    fields, floats = ROWS[name][0], iter(FLOATS)

    def column(kind: str) -> Any:
        if kind == "time":
            return np.array([1_768_326_883_250_000, 1_768_326_883_250_001])
        if kind == "float":
            return np.array([next(floats), math.nan])
        return np.array([24, NULL_INT]) if kind == "int" else np.array([True, False])

    encoder = make_encoder(form, fields, list_name=name, extra={"symbol": "TSLA"})
    table = Table(fields, [column(field.kind) for field in fields])
    return encoder.head() + encoder.rows(table) + encoder.tail("abc")


def test_the_texts_below_are_of_the_version_that_the_server_has() -> None:
    assert ANSWERS_VERSION == PINNED


@pytest.mark.parametrize("name", ROWS)
def test_answers_look_like_those_of_their_version(name: str) -> None:
    _, lines, csv, schema = ROWS[name]
    assert made(name, "ndjson").decode() == lines
    rows = lines.rstrip("\n").replace("\n", ",")
    assert made(name, "json").decode() == f'{{"symbol":"TSLA","{name}":[{rows}],"next_page_token":"abc"}}'
    assert made(name, "csv").decode() == csv
    arrow, parquet = pa.ipc.open_stream(made(name, "arrow")).schema, pq.read_schema(io.BytesIO(made(name, "parquet")))
    for found in (arrow, parquet):
        assert ", ".join(f"{field.name}: {field.type}" for field in found) == schema
