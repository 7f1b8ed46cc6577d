"""The same rows in every format, to the last bit, as the libraries that people use read them from a plain URL."""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json
import math
import random
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench.memory import MemoryWatch
from tests.process.harness import ROOT, Server
from tests.process.reading import DAY_MS, Row, read, store
from tests.process.wire import Answer, running

MIMETYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
MANY, FEW = "/api/ticks/AAPL", "/api/ticks/TSLA"
BARS = "/api/bars/AAPL"
ROWS = 23_000
"""More than an export reads at a time."""

WHOLE = {"start": "2026-01-13", "end": "2026-01-15"}
FLOATS = ["bid", "ask", "last", "spread", "volume", "buy_volume", "sell_volume"]
TICK_COLUMNS = ["timestamp", *FLOATS, "flags", "seq"]
BAR_FLOATS = ["open", "high", "low", "close", "volume", "buy_volume", "sell_volume"]
BAR_COLUMNS = ["timestamp", *BAR_FLOATS, "ticks", "complete"]

ODD = [0.1 + 0.2, 1 / 3, 5e-324, 2.2250738585072014e-308, 1e15, 123456789.12345678, 1e-7, 9007199254740993.0 / 16]
ODD += [math.nextafter(1.0, 2.0), math.nextafter(1.0, 0.0), 1e5, 100.0, 0.30000000000000004, 4.35, 999999999999999.9]


def odd_ticks() -> list[Row]:
    """Ticks with numbers that are hard to write, at every microsecond that is hard to write."""
    rng, ticks = random.Random(11), []

    def number() -> float:
        if rng.random() < 0.5:
            return rng.choice(ODD)
        return float(np.frombuffer(struct.pack("<Q", rng.getrandbits(52) | rng.randrange(900, 1072) << 52))[0])

    for at in range(400):
        trade = rng.random() < 0.5
        tick: Row = {"symbol": "TSLA", "bid": number(), "ask": number(), "last": number(), "spread": -number()}
        tick |= {"volume": min(number(), 1e12), "flags": 1 << 30 | 120 if trade else 6, "seq": rng.randrange(1 << 52)}
        tick |= {name: None for name in ("bid", "ask", "last", "spread") if rng.random() < 0.2}
        if tick["spread"] is not None and rng.random() < 0.2:
            tick["spread"] = rng.choice((0.0, -0.0))
        us = rng.choice((0, 1, 999_999, 100_000, rng.randrange(10**6)))
        tick["timestamp"] = f"2026-01-14T{at // 60:02}:{at % 60:02}:59.{us:06}Z"
        ticks.append(tick)
    return [*ticks, {**ticks[0], "timestamp": "2026-01-14T23:59:59.999999Z"}]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        store(server, odd_ticks())
        rng = random.Random(5)
        ticks = []
        for number in range(ROWS):
            bid = round(100 + rng.random(), 3)
            tick = {"symbol": "AAPL", "bid": bid, "ask": bid + 0.01, "last": bid, "spread": None, "flags": 88}
            ticks.append(tick | {"volume": rng.random(), "timestamp": DAY_MS + 1500 * number, "seq": 0})
        store(server, ticks)
        yield server
        assert "Traceback" not in server.log()


def url(server: Server, path: str, format: str, **params: Any) -> str:
    query = "&".join(f"{name}={value}" for name, value in (WHOLE | params).items())
    return f"http://127.0.0.1:{server.port}{path}?{query}&format={format}"


# Each format read by what knows nothing of ours: columns of time in microseconds, bits of floats, integers.


def _us(text: str) -> int:
    assert len(text) == 27
    assert text.endswith("Z")
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 10**6 + moment.microsecond


def _bits(number: float | None) -> bytes | None:
    return None if number is None else struct.pack("<d", number)


def _row(values: list[Any], columns: list[str]) -> tuple[Any, ...]:
    given = dict(zip(columns, values, strict=True))
    return tuple(_bits(value) if name in FLOATS + BAR_FLOATS else value for name, value in given.items())


def from_json(data: bytes, columns: list[str]) -> list[tuple[Any, ...]]:
    answer = json.loads(data)
    rows = answer["ticks"] if "ticks" in answer else answer["bars"]
    return from_objects(rows, columns)


def from_ndjson(data: bytes, columns: list[str]) -> list[tuple[Any, ...]]:
    assert data.endswith(b"\n")
    return from_objects([json.loads(line) for line in data.splitlines()], columns)


def from_objects(rows: list[Row], columns: list[str]) -> list[tuple[Any, ...]]:
    assert all(list(row) == columns for row in rows)
    return [_row([_us(row["timestamp"]), *list(row.values())[1:]], columns) for row in rows]


def from_csv(data: bytes, columns: list[str]) -> list[tuple[Any, ...]]:
    header, *lines = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == columns

    def value(name: str, text: str) -> Any:
        if name == "timestamp":
            return _us(text)
        if name == "complete":
            return {"true": True, "false": False}[text]
        if name in FLOATS + BAR_FLOATS:
            return float(text) if text else None
        return int(text)

    return [_row([value(*pair) for pair in zip(columns, line, strict=True)], columns) for line in lines]


def from_table(table: pa.Table, columns: list[str]) -> list[tuple[Any, ...]]:
    assert table.column_names == columns
    assert table.schema.field("timestamp").type == pa.timestamp("us", "UTC")
    assert all(table.schema.field(name).type == pa.float64() for name in columns if name in FLOATS + BAR_FLOATS)
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    others = [table[name].to_pylist() for name in columns[1:]]
    return [_row(list(values), columns) for values in zip(times, *others, strict=True)]


def from_arrow(data: bytes, columns: list[str]) -> list[tuple[Any, ...]]:
    return from_table(pa.ipc.open_stream(io.BytesIO(data)).read_all(), columns)


def from_parquet(data: bytes, columns: list[str]) -> list[tuple[Any, ...]]:
    return from_table(pq.read_table(io.BytesIO(data)), columns)


READERS: dict[str, Callable[[bytes, list[str]], list[tuple[Any, ...]]]] = {
    "json": from_json,
    "ndjson": from_ndjson,
    "csv": from_csv,
    "arrow": from_arrow,
    "parquet": from_parquet,
}


def sent() -> list[tuple[Any, ...]]:
    """What was sent, as rows."""
    rows = []
    for tick in sorted(odd_ticks(), key=lambda tick: (tick["timestamp"], tick["seq"])):
        volume = float(tick["volume"])
        sides = [volume if tick["flags"] & 8 else 0.0] * 2
        prices = [tick[name] for name in ("bid", "ask", "last", "spread")]
        rows.append(_row([_us(tick["timestamp"]), *prices, volume, *sides, tick["flags"], tick["seq"]], TICK_COLUMNS))
    return rows


@pytest.mark.parametrize("format", READERS)
def test_every_value_comes_back_to_the_last_bit(server: Server, format: str) -> None:
    answer = read(server, FEW, **WHOLE, format=format)
    assert answer.headers["content-type"] == MIMETYPES[format]
    assert READERS[format](answer.data, TICK_COLUMNS) == sent()


@pytest.mark.parametrize("price", ["bid", "ask", "mid", "last"])
@pytest.mark.parametrize("interval", ["1s", "1m", "1d"])
@pytest.mark.parametrize("symbol", ["AAPL", "TSLA"])
def test_bars_are_the_same_in_every_format(server: Server, symbol: str, interval: str, price: str) -> None:
    params: dict[str, Any] = {**WHOLE, "interval": interval, "price": price, "limit": 3000}
    every = [
        reader(read(server, f"/api/bars/{symbol}", **params, format=format).data, BAR_COLUMNS)
        for format, reader in READERS.items()
    ]
    assert len(every[0]) > 0
    assert all(rows == every[0] for rows in every[1:])


@pytest.mark.long
def test_an_answer_of_many_pages_is_the_same_in_every_format(server: Server) -> None:
    every = [
        READERS[format](read(server, MANY, **WHOLE, format=format).data, TICK_COLUMNS) for format in list(READERS)[1:]
    ]
    assert len(every[0]) == ROWS
    assert all(rows == every[0] for rows in every[1:])
    assert [row[0] for row in every[0]] == [(DAY_MS + 1500 * number) * 1000 for number in range(ROWS)]


def test_an_empty_answer_can_be_read_in_every_format(server: Server) -> None:
    for path, columns in ((MANY, TICK_COLUMNS), (BARS, BAR_COLUMNS)):
        params = {"start": 0, "end": 0}
        assert from_json(read(server, path, **params).data, columns) == []
        assert read(server, path, **params, format="ndjson").data == b""
        for format in ("csv", "arrow", "parquet"):
            assert READERS[format](read(server, path, **params, format=format).data, columns) == []


# Accept


@pytest.mark.parametrize("format", READERS)
def test_the_accept_header_chooses_the_format_and_the_parameter_wins(server: Server, format: str) -> None:
    plain = MIMETYPES[format].split(";")[0]
    answer = read(server, FEW, {"Accept": plain}, **WHOLE)
    assert answer.headers["content-type"] == MIMETYPES[format]
    assert answer.data == read(server, FEW, **WHOLE, format=format).data
    assert "Accept" in answer.headers["vary"]
    other = "csv" if format != "csv" else "ndjson"
    assert read(server, FEW, {"Accept": plain}, **WHOLE, format=other).headers["content-type"] == MIMETYPES[other]


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("image/png", "json"),
        ("", "json"),
        ("text/csv, application/json;q=0.5", "csv"),
        ("text/csv;q=0.5, application/json", "json"),
        ("application/vnd.apache.arrow.stream, text/csv;q=0.9", "arrow"),
        ("TEXT/CSV", "csv"),
        ("text/*", "csv"),
        ("nonsense", "json"),
        (";;;,,,", "json"),
    ],
)
def test_the_preferred_of_several_is_taken_and_json_when_none_is_known(
    server: Server, accept: str, format: str
) -> None:
    assert read(server, FEW, {"Accept": accept}, limit=1).headers["content-type"] == MIMETYPES[format]


# gzip


@pytest.mark.parametrize("path", [FEW, MANY, BARS])
@pytest.mark.parametrize("format", ["json", "ndjson", "csv", "arrow"])
def test_gzip_on_request_packs_the_same_bytes(server: Server, path: str, format: str) -> None:
    plain = read(server, path, **WHOLE, format=format)
    assert "content-encoding" not in plain.headers
    packed = read(server, path, {"Accept-Encoding": "gzip, deflate, br"}, **WHOLE, format=format)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == plain.headers["content-type"]
    assert "Accept-Encoding" in packed.headers["vary"]
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data)


@pytest.mark.parametrize("encodings", ["gzip;q=0", "identity", "br", "", "*;q=0", "deflate"])
def test_without_the_wish_nothing_is_packed(server: Server, encodings: str) -> None:
    answer = read(server, FEW, {"Accept-Encoding": encodings}, **WHOLE, format="csv")
    assert "content-encoding" not in answer.headers
    assert answer.data.startswith(b"timestamp,")


def test_parquet_is_packed_by_itself(server: Server) -> None:
    answer = read(server, MANY, {"Accept-Encoding": "gzip"}, **WHOLE, format="parquet")
    assert "content-encoding" not in answer.headers
    assert len(from_parquet(answer.data, TICK_COLUMNS)) == ROWS


def test_an_error_is_json_whatever_format_was_asked_for(server: Server) -> None:
    for format in READERS:
        answer: Answer = read(server, "/api/ticks/FOO", {"Accept-Encoding": "gzip"}, format=format)
        assert (answer.status, answer.json["code"]) == (404, "unknown_symbol")


# Libraries, by a plain URL


def fetched(server: Server, path: str, format: str, **params: Any) -> bytes:
    with closing(urllib.request.urlopen(url(server, path, format, **params))) as answer:
        return bytes(answer.read())


def from_polars(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert all(frame.schema[name] == pl.Float64 for name in FLOATS)
    return from_table(frame.to_arrow(), TICK_COLUMNS)


def from_pandas(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    assert frame["timestamp"].dtype == pd.DatetimeTZDtype("us", "UTC")
    assert all(frame[name].dtype == np.float64 for name in FLOATS)
    assert frame["flags"].dtype == frame["seq"].dtype == np.int64
    return from_table(pa.Table.from_pandas(frame, preserve_index=False), TICK_COLUMNS)


def test_pandas_reads_csv(server: Server) -> None:
    frame = pd.read_csv(url(server, FEW, "csv"), parse_dates=["timestamp"])
    assert from_pandas(frame) == sent()
    frame = pd.read_csv(url(server, MANY, "csv"), parse_dates=["timestamp"], index_col="timestamp")
    assert str(frame.index.dtype) == "datetime64[us, UTC]"
    assert len(frame) == ROWS


def test_pandas_reads_parquet(server: Server) -> None:
    assert from_pandas(pd.read_parquet(url(server, FEW, "parquet"))) == sent()
    assert len(pd.read_parquet(url(server, MANY, "parquet"))) == ROWS


def test_pandas_reads_ndjson(server: Server) -> None:
    frame = pd.read_json(url(server, MANY, "ndjson"), lines=True)
    assert isinstance(frame["timestamp"].dtype, pd.DatetimeTZDtype)
    assert str(frame["timestamp"].dt.tz) == "UTC"
    assert len(frame) == ROWS


def test_polars_reads_parquet(server: Server) -> None:
    """By a plain URL, in pieces: see test_parquet_ranges.py."""
    assert from_polars(pl.read_parquet(fetched(server, FEW, "parquet"))) == sent()


def test_polars_reads_an_arrow_stream(server: Server) -> None:
    assert from_polars(pl.read_ipc_stream(fetched(server, FEW, "arrow"))) == sent()


def test_polars_reads_csv_and_ndjson(server: Server) -> None:
    """Through urlopen: of these it would want the length beforehand, which a streamed answer has not."""
    with closing(urllib.request.urlopen(url(server, FEW, "csv"))) as answer:
        frame = pl.read_csv(answer, try_parse_dates=True)
    assert from_polars(frame) == sent()
    assert len(pl.read_csv(fetched(server, MANY, "csv"))) == ROWS
    frame = pl.read_ndjson(fetched(server, FEW, "ndjson")).with_columns(pl.col("timestamp").str.to_datetime("%+"))
    assert from_polars(frame) == sent()


def test_pyarrow_reads_an_arrow_stream(server: Server) -> None:
    for path, rows in ((FEW, len(sent())), (MANY, ROWS)):
        with closing(urllib.request.urlopen(url(server, path, "arrow"))) as answer:
            table = pa.ipc.open_stream(answer).read_all()
        assert (len(table), table.schema.field("timestamp").type) == (rows, pa.timestamp("us", "UTC"))


def test_pandas_and_polars_read_bars(server: Server) -> None:
    daily = pd.read_csv(url(server, BARS, "csv", interval="1d"), parse_dates=["timestamp"])
    assert daily["complete"].dtype == bool
    assert list(daily["ticks"]) == [ROWS]
    assert pl.read_parquet(fetched(server, BARS, "parquet", interval="1d")).schema["complete"] == pl.Boolean


# HEAD


@pytest.mark.parametrize("format", READERS)
def test_head_has_the_head_of_get_and_nothing_else(server: Server, format: str) -> None:
    found = []
    for method in ("GET", "HEAD"):
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
            client.request(method, url(server, FEW, format))
            answer = client.getresponse()
            found.append((answer.status, answer.headers["Content-Type"], answer.headers["Vary"]))
            assert (method == "GET") == bool(answer.read())
            # The connection is in order for what comes next.
            client.request("GET", "/health/live")
            assert client.getresponse().status == 200
    assert found[0] == found[1]


# Memory


@pytest.mark.long
@pytest.mark.parametrize("format", ["csv", "arrow", "parquet", "ndjson"])
def test_an_export_of_a_million_ticks_takes_no_more_memory_than_pages_do(
    million: Server, format: str
) -> None:
    (worker,) = million.worker_pids()
    warm_up = f"http://127.0.0.1:{million.port}/api/ticks/AAPL?start=2026-01-13&limit=20000&format={format}"
    urllib.request.urlopen(warm_up).read()  # what the libraries take once
    received = 0
    with MemoryWatch([worker]) as memory, closing(urllib.request.urlopen(url(million, MANY, format))) as answer:
        while part := answer.read(1 << 20):
            received += len(part)
    assert received > 5_000_000
    assert memory.growth_mb < 100


@pytest.fixture(scope="module")
def million(data_template: Path) -> Iterator[Server]:
    with running(data_template) as server:
        server.database.rows("SELECT ensure_tick_partition('2026-01-13')")
        server.database.rows(
            "INSERT INTO ticks (symbol_id, time, seq, bid, ask, last, spread, volume, buy_volume, sell_volume, flags, "
            "journal_no, received_at) SELECT symbol_id, timestamptz '2026-01-13 00:00Z' + n * interval '86 ms', 0, "
            "100 + random(), 101 + random(), NULL, 1, random(), 0, 0, 6, 1, now() "
            "FROM generate_series(0, 999999) AS n, instruments WHERE symbol = 'AAPL'"
        )
        command = [sys.executable, "-m", "app", "rebuild", "bars"]
        subprocess.run(command, cwd=ROOT, env=server.environ, check=True, capture_output=True, timeout=120)
        yield server
