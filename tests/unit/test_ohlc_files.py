"""Files of daily bars and lists of symbols, as they are on disk."""

from __future__ import annotations

import gzip
import zipfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli import ohlc_files
from app.cli.ohlc_files import BarBlock, Reading, read_bars
from app.cli.symbol_lists import UnreadableList, read_list
from app.market.tick_files import UnreadableFile

TEXT = """symbol,date,open,high,low,close,volume
AAPL,2024-01-02,10,12,9,11,100

AAPL,2024-01-33,1,1,1,1,1
MSFT,2024-01-03,1,2,1,2,
"""


def blocks(path: Path, reading: Reading | None = None) -> list[BarBlock]:
    return list(read_bars(path, reading or Reading()))


@pytest.mark.parametrize("packed", ["plain", "gzip", "zip", "utf-16", "crlf"])
def test_rows_keep_their_numbers_and_lines_however_they_are_packed(tmp_path: Path, packed: str) -> None:
    path = tmp_path / "a"
    if packed == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", TEXT)
    else:
        text = TEXT.replace("\n", "\r\n") if packed == "crlf" else TEXT
        data = text.encode("utf-16" if packed == "utf-16" else "utf-8-sig")
        path.write_bytes(gzip.compress(data) if packed == "gzip" else data)
    (block,) = blocks(path)
    assert [(at, bar.symbol, bar.day, bar.volume) for at, bar in block.bars] == [
        (0, "AAPL", date(2024, 1, 2), 100),
        (2, "MSFT", date(2024, 1, 3), None),
    ]
    assert block.lines == [2, 5]
    assert [(row.line, at) for row, at in zip(block.bad, block.bad_rows, strict=True)] == [(4, 1)]
    assert block.end_row == 3


def test_blocks_follow_each_other_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ohlc_files, "BLOCK_ROWS", 3)
    path = tmp_path / "a.csv"
    rows = [f"A,2024-01-{number:02},1,1,1,1" for number in range(1, 32)]
    path.write_text("\n".join(["symbol,date,open,high,low,close", *rows]))
    found = blocks(path)
    assert [at for block in found for at, _ in block.bars] == list(range(31))
    assert [block.end_row for block in found] == [*range(3, 31, 3), 31]
    assert found[-1].position == path.stat().st_size


def test_parquet_columns_of_any_type_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    days = [date(2024, 1, 2), date(2024, 1, 3)]
    columns = {"TICKER": ["A", "A"], "Date": pa.array(days, pa.date32()).cast(pa.timestamp("ns")), "note": ["x", "y"]}
    prices = {name: pa.array([1.5, None], pa.float32()) for name in ("open", "high", "low", "close")}
    pq.write_table(pa.table(columns | prices | {"vol": pa.array([7, 8], pa.int32())}), path)
    (block,) = blocks(path)
    ((at, bar),) = block.bars
    assert (at, bar.symbol, bar.day, bar.open, bar.volume) == (0, "A", date(2024, 1, 2), 1.5, 7)
    assert [(row.line, row.reason) for row in block.bad] == [(2, "open is missing")]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"symbol,price\nA,1\n", "no column for day, open, high, low, close"),
        (b"date,open,high,low,close\n2024-01-02,1,1,1,1\n", "give it with --symbol"),
        (b"symbol,date,open,high,low,close\nA,x,1,1,1,1\nA,y,1,1,1,1\n", "none of the first 2 rows"),
        (b"PAR1nonsense", "cannot be read"),
        (gzip.compress(TEXT.encode() * 99)[:-9], "cannot be read to its end"),
        (b'symbol,date,open,high,low,close\nA,"' + b"x" * 20_000, "cannot be read to its end"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=why):
        blocks(path)


def test_the_vn30_that_is_shipped_has_thirty_symbols_and_its_date() -> None:
    symbols, title = read_list("vn30")
    assert len(symbols) == len(set(symbols)) == 30
    assert all(len(symbol) == 3 and symbol.isupper() for symbol in symbols)
    assert date.fromisoformat(title[-10:]) <= date.today()


def test_a_list_that_is_not_there_says_which_are(tmp_path: Path) -> None:
    with pytest.raises(UnreadableList, match="shipped lists: vn30"):
        read_list(str(tmp_path / "nowhere"))
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UnreadableList, match="names no symbol"):
        read_list(str(tmp_path / "empty"))
