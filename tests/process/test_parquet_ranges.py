"""Parquet that is read in pieces, as polars and DuckDB do: they are pieces of one file, whatever arrives meanwhile."""

from __future__ import annotations

import csv
import http.client
import io
import random
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.process.harness import Server, wait_until
from tests.process.pieces import DAY, MIB, TSLA, columns_of, files, kept_open, moments, more, table, url, whole
from tests.process.reading import made_ticks, store
from tests.process.wire import get, running

ROWS = 130_000
"""More than a row group."""


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        store(server, made_ticks("TSLA", moments(ROWS)))
        yield server
        wait_until(lambda: not kept_open(server), what="files to be closed")
        assert "Traceback" not in server.log()


def csv_columns(server: Server, path: str) -> dict[str, list[Any]]:
    """The rows as the CSV of the same address has them; times as text."""
    with urllib.request.urlopen(url(server, path.replace("parquet", "csv"))) as answer:
        head, *rows = csv.reader(io.TextIOWrapper(answer))
    convert = {"timestamp": str, "flags": int, "seq": int}
    return {
        name: [None if text == "" else convert.get(name, float)(text) for text in column]
        for name, column in zip(head, zip(*rows, strict=True), strict=True)
    }


@pytest.mark.long
def test_polars_pandas_and_pyarrow_read_the_values_of_the_csv_by_the_address_alone(server: Server) -> None:
    expected = csv_columns(server, TSLA)
    assert len(expected["bid"]) == ROWS
    by_polars = pl.read_parquet(url(server))
    assert columns_of(by_polars.to_arrow()) == expected
    assert by_polars.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert columns_of(pa.Table.from_pandas(pd.read_parquet(url(server)))) == expected
    with urllib.request.urlopen(url(server)) as answer:
        assert columns_of(table(answer.read())) == expected


def test_polars_scans_and_reads_only_what_it_needs(server: Server) -> None:
    scan = pl.scan_parquet(url(server)).filter(pl.col("bid") > 100.9).select("timestamp", "bid")
    found = scan.collect()
    assert 0 < len(found) < ROWS
    assert found.equals(pl.read_parquet(whole(server)).filter(pl.col("bid") > 100.9).select("timestamp", "bid"))


@pytest.mark.parametrize("path", ["/api/ticks/TSLA?format=parquet", f"/api/bars/TSLA?interval=1h&{DAY}"])
def test_a_few_newest_rows_and_bars_are_read_by_polars_too(server: Server, path: str) -> None:
    assert columns_of(pl.read_parquet(url(server, path)).to_arrow()) == columns_of(table(whole(server, path)))


def test_an_accept_header_is_as_good_as_a_parameter(server: Server) -> None:
    path = TSLA.replace("&format=parquet", "")
    answer = get(server, path, "bytes=-4", Accept="application/vnd.apache.parquet")
    assert (answer.status, answer.data) == (206, b"PAR1")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=-8", -8, None),
        ("bytes=-99999999999", 0, None),
        (f"bytes=-{'9' * 6000}", 0, None),
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, None),
        ("bytes=4-999", 4, 1000),
        ("bytes=1000-", 1000, None),
        ("bytes=1000-99999999999999999999", 1000, None),
        ("Bytes = 4-999 ", 4, 1000),
        ("bytes=,4-999,", 4, 1000),
        ("bytes=1048000-1049000", 1048000, 1049001),
    ],
)
def test_a_range_is_answered_with_these_bytes(server: Server, wanted: str, start: int, end: int | None) -> None:
    data = whole(server)
    answer = get(server, TSLA, wanted)
    first, _, _ = slice(start, end).indices(len(data))
    assert answer.status == 206
    assert answer.data == data[start:end]
    assert answer.headers["content-length"] == str(len(answer.data))
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.data) - 1}/{len(data)}"
    assert answer.headers["accept-ranges"] == "bytes"
    assert re.fullmatch(r'"[0-9a-f]{32}"', answer.headers["etag"])


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0", f"bytes={'9' * 6000}-"])
def test_a_range_behind_the_end_is_a_416_that_tells_the_length(server: Server, wanted: str) -> None:
    answer = get(server, TSLA, wanted)
    assert (answer.status, answer.json["code"]) == (416, "bad_parameter")
    assert answer.headers["content-range"] == f"bytes */{len(whole(server))}"


@pytest.mark.long
@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=5-2",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "lines=1-2",
        "bytes=a-b",
        "bytes=1_0-2_0",
        "bytes=--5",
        "bytes=0x0-0x9",
        "bytes=\xb2-\xb3",
        "bytes=0-1,5-9",
        "bytes=0-1, -5",
    ],
)
def test_what_is_no_single_range_is_answered_with_everything(server: Server, wanted: str) -> None:
    answer = get(server, TSLA, wanted)
    assert answer.status == 200
    assert "content-range" not in answer.headers
    assert answer.data == whole(server)


def test_other_formats_know_no_ranges(server: Server) -> None:
    answer = get(server, TSLA.replace("parquet", "csv") + "&limit=3", "bytes=0-9")
    assert (answer.status, "accept-ranges" in answer.headers) == (200, False)


def test_head_tells_the_length_and_sends_nothing(server: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        for _ in range(2):  # the connection goes on
            client.request("HEAD", TSLA, headers={"Range": "bytes=0-9"})
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            assert answer.headers["Content-Length"] == str(len(whole(server)))
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "Content-Range" not in answer.headers


def test_the_next_page_is_named_beside_the_pieces_of_one(server: Server) -> None:
    path = f"{TSLA}&limit=70000"
    token = get(server, path, "bytes=-1").headers["x-next-page-token"]
    assert get(server, f"{TSLA}&limit=7000").headers["x-next-page-token"]
    for answer in (get(server, path, method="HEAD"), get(server, path, "bytes=-9"), get(server, path, "bytes=9-20")):
        assert answer.headers["x-next-page-token"] == token
    rest = pl.read_parquet(url(server, f"{path}&page_token={token}"))
    assert pl.concat([pl.read_parquet(url(server, path)), rest]).equals(pl.read_parquet(whole(server)))
    assert "x-next-page-token" not in get(server, f"{path}&page_token={token}", "bytes=-9").headers


def test_errors_are_the_ones_of_the_whole_answer(server: Server) -> None:
    assert get(server, f"/api/ticks/NONE?{DAY}", "bytes=-9").json["code"] == "unknown_symbol"
    assert get(server, f"/api/ticks/TSLA?{DAY}&page_token=AAAAAAAAAA", "bytes=-9").status == 400


@pytest.mark.long
def test_a_tag_chooses_the_very_file_or_the_answer_says_that_it_is_not_there(server: Server) -> None:
    data, path = whole(server), f"{TSLA}&order=asc"
    tag = get(server, path, "bytes=-9").headers["etag"]
    weak = get(server, path).headers["etag"]
    assert get(server, path, "bytes=4-9", If_Match=tag).data == data[4:10]
    assert get(server, path, "bytes=4-9", If_Match=f'"other", {tag}').status == 206
    assert get(server, path, "bytes=4-9", If_Match="*").status == 206
    assert get(server, path, If_Match=tag).data == data
    for wrong in ('"other"', weak, f"W/{tag}", '"../../x"'):
        refused = get(server, path, "bytes=4-9", If_Match=wrong)
        assert (refused.status, refused.json["code"]) == (412, "conflict")
    assert get(server, f"{path}&limit=9", "bytes=4-9", If_Match=tag).status == 412, "a file of another address"
    assert get(server, path, "bytes=4-9", If_Range=tag).status == 206
    for wrong in ('"other"', weak, f"W/{tag}", tag.strip('"'), "Tue, 13 Jan 2026 00:00:00 GMT"):
        answer = get(server, path, "bytes=4-9", If_Range=wrong)
        assert (answer.status, answer.data == data) == (200, True)
    for known in (tag, weak):
        assert get(server, path, "bytes=-9", If_None_Match=known).status == 304
        assert get(server, path, method="HEAD", If_None_Match=known).status == 304


def test_a_range_that_has_not_changed_is_one_file_for_all_workers_and_clients(server: Server) -> None:
    path = f"{TSLA}&order=desc"
    before = len(files(server))
    tags = {get(server, path, "bytes=-9", User_Agent=f"client {number}").headers["etag"] for number in range(12)}
    assert len(tags) == 1
    assert len(files(server)) == before + 1


@pytest.mark.parametrize(
    ("begins", "symbol"), [("bytes=0-", "INTC"), ("bytes=0-99", "META"), ("bytes=-99", "AVGO"), ("HEAD", "PLTR")]
)
def test_whoever_begins_to_read_gets_the_rows_as_they_are_now(server: Server, begins: str, symbol: str) -> None:
    path, tags = f"/api/ticks/{symbol}?{DAY}", []
    for seed in range(3):
        more(server, symbol, 100, seed)
        for _ in range(2):
            answer = get(server, path, method="HEAD") if begins == "HEAD" else get(server, path, begins)
            rest = get(server, path, "bytes=100-")
            assert rest.headers["etag"] == answer.headers["etag"]
            assert rest.data == whole(server, path)[100:]
            tags.append(answer.headers["etag"])
    assert tags[::2] == tags[1::2]
    assert len(set(tags)) == 3


class HttpFile(io.RawIOBase):
    """A file that is read as DuckDB and fsspec do: HEAD, then ranges; no tag is remembered."""

    def __init__(self, server: Server, path: str, reader: str) -> None:
        self._server, self._path, self._reader = server, path, reader
        self._size = int(get(server, path, method="HEAD", User_Agent=reader).headers["content-length"])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        answer = get(self._server, self._path, f"bytes={self._at}-{end - 1}", User_Agent=self._reader)
        assert answer.status == 206, answer
        assert answer.headers["content-range"].endswith(f"/{self._size}")
        self._at = end
        return answer.data


def test_a_client_that_asks_for_the_length_first_reads_that_file_while_ticks_arrive(server: Server) -> None:
    path = f"/api/ticks/AMD?{DAY}"
    more(server, "AMD", 3000, seed=1)
    expected = columns_of(table(whole(server, path)))
    found = HttpFile(server, path, "fsspec")
    more(server, "AMD", 500, seed=2)
    assert found.read(4) == b"PAR1"  # from 0 on: it would begin anew
    more(server, "AMD", 500, seed=3)
    assert columns_of(pq.read_table(pa.PythonFile(found, "r"))) == expected
    again = pq.read_table(pa.PythonFile(HttpFile(server, path, "fsspec"), "r"))
    assert columns_of(again) == columns_of(table(whole(server, path)))
    assert len(again) > len(expected["bid"])


def test_programs_on_one_machine_get_the_pieces_of_the_file_that_each_has_begun(server: Server) -> None:
    """They look the same, but each asks for what lies where the footer of its own file says."""
    path, begun = f"/api/ticks/ORCL?{DAY}", []
    for seed in range(1, 5):
        more(server, "ORCL", 2000, seed)
        footer = get(server, path, f"bytes=-{10 * MIB}")
        begun.append(footer.data)
    assert len(set(begun)) == 4
    for data in [*begun, *reversed(begun)]:
        group = pq.read_metadata(io.BytesIO(data)).row_group(0)
        for number in range(group.num_columns):
            chunk = group.column(number)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            end = start + chunk.total_compressed_size
            assert get(server, path, f"bytes={start}-{end - 1}").data == data[start:end]


@pytest.mark.long
def test_programs_that_read_while_ticks_arrive_each_see_one_state(server: Server) -> None:
    paths = [f"/api/ticks/NVDA?{DAY}", f"/api/ticks/NVDA?{DAY}", "/api/ticks/NVDA?start=2026-01-13&format=parquet"]
    ticks = made_ticks("NVDA", moments(60_000, 7), 7)
    known = {(tick["timestamp"], tick["seq"]): tick["bid"] for tick in ticks}
    random.Random(3).shuffle(ticks)
    store(server, ticks[:40_000])
    stored = [40_000]
    done = False

    def read(path: str) -> int:
        reads = 0
        while not done or reads < 3:
            least = stored[-1]
            found = pl.read_parquet(url(server, path)).sort("timestamp", "seq", maintain_order=True)
            keys = zip(found["timestamp"].dt.epoch("ms"), found["seq"], strict=True)
            rows = dict(zip(keys, found["bid"], strict=True))
            assert len(rows) == len(found) >= least
            assert rows.items() <= known.items()
            reads += 1
        return reads

    with ThreadPoolExecutor() as pool:
        reading = [pool.submit(read, path) for path in paths]
        try:
            while stored[-1] < len(ticks):
                store(server, ticks[stored[-1] : stored[-1] + 1000])
                stored.append(stored[-1] + 1000)
        finally:
            done = True
        assert all(future.result(120) >= 3 for future in reading)
    assert len(pl.read_parquet(url(server, paths[0]))) == len(ticks)
