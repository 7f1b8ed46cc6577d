"""What a line of a tick file means, block by block, beside a reading by the standard library."""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli import import_reader
from app.cli.import_reader import read_blocks
from app.market.file_rows import FileRows
from app.market.tick_files import UnreadableFile, parse_text, read_layout
from tests.real_market import real_path

HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def mt5(*lines: str, header: str = HEADER) -> FileRows:
    return parse_text("\n".join(lines).encode(), 2, 0, read_layout(header))


def reasons(rows: FileRows) -> dict[int, str]:
    return {bad.line: bad.reason for bad in rows.bad}


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def test_blank_is_absent_and_zero_is_not():
    rows = mt5("2013.10.08\t04:00:00.640\t180.01\t\t\t\t2", "2013.10.08\t00:00:00.000\t0\t0\t0\t0\t0")
    assert rows.bid.tolist() == [180.01, 0.0]
    assert np.isnan(rows.ask[0])
    assert rows.ask[1] == 0.0
    assert rows.volume.tolist() == [0.0, 0.0]
    assert rows.flags.tolist() == [2, 0]
    assert rows.time_us.tolist() == [us("2013-10-08T04:00:00.640"), us("2013-10-08")]
    assert not rows.bad


def test_a_time_may_lack_its_milliseconds():
    rows = mt5("2013.10.08\t04:00:00\t1\t2\t\t\t6", "2013.10.08\t04:00:01.5\t1\t2\t\t\t6")
    assert rows.time_us.tolist() == [us("2013-10-08T04:00:00"), us("2013-10-08T04:00:01.5")]


def test_an_export_without_flags_gets_those_of_what_its_lines_state():
    rows = mt5(
        "2013.10.08\t04:00:00\t1\t\t\t",
        "2013.10.08\t04:00:00\t\t2\t\t",
        "2013.10.08\t04:00:00\t\t\t3\t7",
        header=HEADER.removesuffix("\t<FLAGS>"),
    )
    assert rows.flags.tolist() == [2, 4, 24]


def test_every_bad_line_is_named_with_its_number_and_the_others_are_taken():
    rows = mt5(
        "2013.10.08\t04:00:00\t1\t2\t\t\t6",
        "2013.10.08\t04:00:00\t1\t2\t\t6",
        "",
        "2013.10.08\t04:00:00\t1,5\t2\t\t\t6",
        "2013.02.30\t04:00:00\t1\t2\t\t\t6",
        "2013.10.08\t24:00:00\t1\t2\t\t\t6",
        "2013.10.08\t04:00:00\tnan\t2\t\t\t6",
        "2013.10.08\t04:00:00\t1\t1e999\t\t\t6",
        "2013.10.08\t04:00:00\t1\t2\t\t\t99999999999",
        "\t\t\t\t\t\t",
        "2013.10.08\t04:00:00\t1\t2\t\t\tx",
        "2013.10.08\t04:00:01\t3\t4\t\t\t6",
    )
    assert rows.line.tolist() == [2, 13]
    assert rows.row.tolist() == [0, 10], "a blank line is no row"
    assert rows.total == 11
    assert reasons(rows) == {
        3: "6 columns instead of 7",
        5: "bid: invalid value '1,5'",
        6: "the time cannot be read",
        7: "time: invalid value '24:00:00'",
        8: "bid is not a finite number",
        9: "ask is not a finite number",
        10: "flags is out of range",
        11: "the time cannot be read",
        12: "flags: invalid value 'x'",
    }
    assert rows.text_of(5) == "2013.10.08\t04:00:00\t1,5\t2\t\t\t6"


FIELD = st.sampled_from(["", "1", "0", "1.5", " 2 ", "x", "1,5", "nan", "-1", "+1", "1e3", '"', "6"])
LINE = st.one_of(
    st.just(""),
    st.lists(FIELD, min_size=4, max_size=6).map(lambda f: "\t".join(["2013.10.08", "04:00:00", *f])),
    st.text(alphabet='0123456789.:\t "x\r\x00é', max_size=30),
)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=12))
def test_a_line_means_the_same_in_any_company(lines: list[str]):
    layout = read_layout(HEADER)
    together = parse_text("".join(f"{line}\n" for line in lines).encode(), 2, 0, layout)
    alone = [parse_text(f"{line}\n".encode(), number, 0, layout) for number, line in enumerate(lines, 2)]
    assert together.line.tolist() == [int(n) for rows in alone for n in rows.line]
    assert reasons(together) == {n: why for rows in alone for n, why in reasons(rows).items()}
    for name in ("time_us", "bid", "ask", "last", "volume", "flags"):
        apart = [value for rows in alone for value in getattr(rows, name).tolist()]
        assert all(map(same, getattr(together, name).tolist(), apart))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1580234400184", "2020-01-28T18:00:00.184"),
        ("1580234400", "2020-01-28T18:00:00"),
        ("1580234400184000", "2020-01-28T18:00:00.184"),
        ("1580234400184000123", "2020-01-28T18:00:00.184"),
        ("1580234400.25", "2020-01-28T18:00:00.25"),
        ("2020-01-28 18:00:00.184", "2020-01-28T18:00:00.184"),
        ("2020-01-28T20:00:00.184+02:00", "2020-01-28T18:00:00.184"),
        ("2020.01.28 18:00:00", "2020-01-28T18:00:00"),
    ],
)
def test_a_time_column_takes_numbers_and_texts(text: str, expected: str):
    rows = mt5(f"{text},1,2", header="time,bid,ask")
    assert rows.time_us.tolist() == [us(expected)]
    assert rows.utc.tolist() == ["+02:00" in text]
    mixed = mt5("never,1,2", f"{text},1,2", header="time,bid,ask")
    assert mixed.time_us.tolist() == [us(expected)], "bad company changes nothing"
    assert reasons(mixed) == {2: "the time cannot be read"}


def test_numbers_in_a_timestamp_column_are_utc():
    assert mt5("1580234400184,1,2", header="timestamp,bid,ask").utc.tolist() == [True]


def test_time_msc_counts_before_time():
    rows = mt5("0,1580234400,1,2,1580234400184", header=",time,bid,ask,time_msc")
    assert rows.time_us.tolist() == [us("2020-01-28T18:00:00.184")]


def test_quotes_that_do_not_match_spoil_their_line_only():
    rows = mt5(
        '1580234400,"1",2', '1580234400,"1,2', "1580234401,1,2", header="time;bid;ask".replace(";", ",")
    )
    assert rows.line.tolist() == [2, 4]
    assert list(reasons(rows)) == [3]


def test_bad_lines_among_many_are_found_wherever_they_are():
    good = "2013.10.08\t04:00:00\t1\t2\t\t\t6"
    lines = [good] * 4_000
    bad = {0, 1, 1_999, 3_998, 3_999}
    for i in bad:
        lines[i] = good.replace("6", "six" * (1 if i else 40_000))
    rows = mt5(*lines)
    assert {line - 2 for line in reasons(rows)} == bad
    assert rows.row.tolist() == [i for i in range(4_000) if i not in bad]


def test_a_given_seq_must_be_there_and_fit():
    rows = mt5("1580234400,1,0", "1580234400,1,", "1580234400,1,-1", header="time,bid,seq")
    assert rows.seq is not None
    assert rows.seq.tolist() == [0]
    assert reasons(rows) == {3: "seq is missing", 4: "seq is out of range"}


def test_symbols_of_a_column_keep_their_rows():
    rows = mt5(
        "A,1580234400,1", "B,1580234400,2", "A,1580234400,3", ",1580234400,4", header="symbol,time,bid"
    )
    assert [rows.names[code] for code in rows.symbol] == ["A", "B", "A"]
    assert reasons(rows) == {5: "symbol is missing"}


@pytest.mark.parametrize(
    "header", ["", "2013.10.08\t04:00:00\t1\t2", "time,price", "date,bid", "bid,bid,time"]
)
def test_a_first_line_that_names_no_ticks_is_refused(header: str):
    with pytest.raises(UnreadableFile):
        read_layout(header)


LINES = [HEADER, *(f"2013.10.08\t04:00:0{i % 10}.{i:03}\t{i + 1}.5\t\t\t\t2" for i in range(500))]


def everything(path: Path) -> list[tuple[int, float]]:
    return [
        (int(t), float(b))
        for block in read_blocks(path)
        for t, b in zip(block.rows.time_us, block.rows.bid, strict=True)
    ]


PLAIN = "\r\n".join(LINES) + "\r\n"


def zipped(text: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("TICKS.csv", text)


@pytest.mark.long
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(PLAIN.encode()),
        lambda path: path.write_bytes("\n".join(LINES).encode()),
        lambda path: path.write_bytes(PLAIN.encode("utf-8-sig")),
        lambda path: path.write_bytes(PLAIN.encode("utf-16")),
        lambda path: path.write_bytes(b"\xfe\xff" + PLAIN.encode("utf-16-be")),
        lambda path: path.write_bytes(PLAIN.encode("utf-16-le")),
        lambda path: path.write_bytes(gzip.compress(PLAIN.encode("utf-16"))),
        lambda path: path.write_bytes(
            gzip.compress(PLAIN[:5000].encode()) + gzip.compress(PLAIN[5000:].encode())
        ),
        lambda path: zipped(PLAIN.encode("utf-8-sig"), path),
    ],
    ids=["crlf", "lf", "utf8-bom", "utf16", "utf16-be", "utf16-no-bom", "gzip", "gzip-members", "zip"],
)
@pytest.mark.parametrize("block_bytes", [import_reader.BLOCK_BYTES, 64])
def test_every_way_to_store_an_export_reads_alike(write, block_bytes, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(import_reader, "FIRST_BYTES", min(import_reader.FIRST_BYTES, 4 * block_bytes))
    monkeypatch.setattr(import_reader, "BLOCK_BYTES", block_bytes)
    write(tmp_path / "ticks")
    expected = [(us(f"2013-10-08T04:00:0{i % 10}.{i:03}"), i + 1.5) for i in range(500)]
    assert everything(tmp_path / "ticks") == expected


def test_blocks_number_rows_and_lines_through_the_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(import_reader, "FIRST_BYTES", 200)
    monkeypatch.setattr(import_reader, "BLOCK_BYTES", 100)
    lines = [*LINES[:20], "", "bad line", *LINES[20:60]]
    (tmp_path / "ticks").write_text("\n".join(lines))
    blocks = list(read_blocks(tmp_path / "ticks"))
    assert len(blocks) > 5
    assert [int(row) for block in blocks for row in block.rows.row] == [*range(19), *range(20, 60)]
    assert [int(line) for block in blocks for line in block.rows.line] == [*range(2, 21), *range(23, 63)]
    assert [bad.line for block in blocks for bad in block.rows.bad] == [22]
    assert blocks[-1].end_row == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first line"),
        (gzip.compress(PLAIN.encode())[:-100], "cannot be read to its end"),
        (gzip.compress(PLAIN.encode())[:50] + bytes(50), "cannot be read to its end"),
        (b"PK\x03\x04 no archive", "cannot be read to its end"),
        (b"PAR1 no parquet", "cannot be read"),
        ((HEADER + "\n" + "x\n" * 100).encode(), "none of the first 100 lines can be read; line 2"),
        (bytes(8_000_000), "no tick file"),
    ],
    ids=["empty", "cut-gzip", "broken-gzip", "no-zip", "no-parquet", "all-bad", "no-lines"],
)
def test_a_file_that_is_broken_or_something_else_is_refused_with_the_reason(content, message, tmp_path: Path):
    (tmp_path / "ticks").write_bytes(content)
    with pytest.raises(UnreadableFile, match=message):
        everything(tmp_path / "ticks")


def test_an_archive_of_several_files_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "ticks.zip", "w") as archive:
        archive.writestr("a", PLAIN)
        archive.writestr("b", PLAIN)
    with pytest.raises(UnreadableFile, match="holds 2 files"):
        everything(tmp_path / "ticks.zip")


@pytest.mark.parametrize(
    ("place", "value", "why"), [(6, 1, "password"), (8, 99, "compression")], ids=["encrypted", "unknown-compression"]
)
def test_an_archive_that_needs_more_than_is_here_is_refused(place: int, value: int, why: str, tmp_path: Path):
    zipped(PLAIN.encode(), tmp_path / "ticks.zip")
    data = bytearray((tmp_path / "ticks.zip").read_bytes())
    data[place] = value
    # The same in the archive's list of its files, two bytes further from where an entry begins.
    data[data.index(b"PK\x01\x02") + place + 2] = value
    (tmp_path / "ticks.zip").write_bytes(data)
    with pytest.raises(UnreadableFile, match=f"cannot be read to its end: .*{why}"):
        everything(tmp_path / "ticks.zip")


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_with_a_zone_are_utc_and_without_one_wall_times(zone, unit, tmp_path: Path):
    times = pa.array([1580234400 * 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]] * 2, pa.int64())
    table = pa.table(
        {
            "Symbol": ["A", "B"],
            "Time": times.cast(pa.timestamp(unit, zone)),
            "bid": pa.array([1.5, None]),
            "ask": pa.array([None, 2], pa.int32()),
            "flags": pa.array([2, 2**40], pa.int64()),
            "comment": ["x", "y"],
        }
    )
    pq.write_table(table, tmp_path / "ticks")
    ((block),) = read_blocks(tmp_path / "ticks")
    rows = block.rows
    assert rows.time_us.tolist() == [1580234400_000000]
    assert rows.utc.tolist() == [zone is not None]
    assert rows.names[rows.symbol[0]] == "A"
    assert rows.bid.tolist() == [1.5]
    assert np.isnan(rows.ask[0])
    assert reasons(rows) == {2: "flags is out of range"}


def test_parquet_epochs_are_read_by_their_magnitude(tmp_path: Path):
    pq.write_table(pa.table({"time": [1580234400, 1580234400184], "last": [1.0, 2.0]}), tmp_path / "ticks")
    ((block),) = read_blocks(tmp_path / "ticks")
    assert block.rows.time_us.tolist() == [1580234400_000000, 1580234400_184000]


def test_the_exports_of_a_real_terminal_read_as_the_csv_module_reads_them(real_ticks: Path):
    path = real_ticks / "IBM_20131008-10.tsv.gz"
    with gzip.open(path, "rt", newline="") as file:
        expected = [line for _, line in zip(range(5000), csv.reader(file, delimiter="\t"), strict=False)][1:]
    rows = next(read_blocks(path)).rows
    for i, (day, clock, bid, ask, last, volume, flags) in enumerate(expected):
        assert rows.time_us[i] == us(f"{day.replace('.', '-')}T{clock}")
        for column, text in ((rows.bid, bid), (rows.ask, ask), (rows.last, last)):
            assert same(float(column[i]), float(text) if text else math.nan)
        assert rows.volume[i] == float(volume or 0)
        assert rows.flags[i] == int(flags)


@pytest.fixture
def real_ticks() -> Path:
    return real_path("ticks")
