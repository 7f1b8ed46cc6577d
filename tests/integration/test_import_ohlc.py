"""`python -m app import-ohlc` against a real database: every day of a file or a vendor is in price_history, once."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg2.extensions import connection

from app.cli import fastconnect, main, ohlc_files, ohlc_sources
from app.cli.import_ohlc import last_day_over
from app.cli.symbol_lists import read_list
from app.errors import DatabaseAway
from app.storage.import_rows import RowsImport
from tests.process.fastconnect_stand_in import CONSUMER_ID, CONSUMER_SECRET, StandIn, stand_in
from tests.real_market import real_path
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
HEADER = "symbol,date,open,high,low,close,volume"
FIRST = date(2024, 1, 2)
Load = Callable[..., str]


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(database_url: str, capsys: pytest.CaptureFixture[str]) -> Load:
    def run(*arguments: object, status: int = 0) -> str:
        code = main(["import-ohlc", *map(str, arguments), "--database-url", database_url])
        said = capsys.readouterr()
        assert code == status, said.err
        return said.out if status == 0 else said.out + said.err

    return run


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("TICKHUB_FASTCONNECT_CONSUMER_ID", CONSUMER_ID)
    monkeypatch.setenv("TICKHUB_FASTCONNECT_CONSUMER_SECRET", CONSUMER_SECRET)
    monkeypatch.setenv("TICKHUB_FASTCONNECT_REQUESTS_PER_S", "100")
    # Its waits are tested where its clock can be moved.
    monkeypatch.setattr(fastconnect.FastConnect, "_wait", lambda *_: None)
    with stand_in() as running:
        monkeypatch.setenv("TICKHUB_FASTCONNECT_URL", running.url)
        yield running


def write(name: str, *lines: str) -> Path:
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)


def stored(conn: connection, symbol: str, source: str = "import") -> list[tuple[Any, ...]]:
    with conn, conn.cursor() as cur:
        cur.execute(
            "SELECT (time AT TIME ZONE 'UTC')::text, open, high, low, close, volume FROM price_history p"
            " JOIN instruments i USING (symbol_id) WHERE i.symbol = %s AND p.source = %s AND p.interval = '1d'"
            " ORDER BY time",
            (symbol, source),
        )
        return cur.fetchall()


def ledger(conn: connection) -> list[tuple[int, int, int, int]]:
    with conn, conn.cursor() as cur:
        cur.execute("SELECT next_row, stored, duplicates, set_aside FROM ingest_log WHERE journal_id LIKE 'ohlc:%'")
        return cur.fetchall()


def days_asked(vendor: StandIn) -> list[tuple[str, str, str]]:
    return [(asked["symbol"], asked["fromDate"], asked["toDate"]) for asked in vendor.asked]


# files


def test_a_file_is_stored_as_it_is_and_once(load: Load, conn: connection) -> None:
    rows = ["AAPL,2024-01-02,187.15,188.44,183.89,185.64,82488700", "aapl.us,2024-01-03,1,2,1,2,0"]
    path = write("a.csv", HEADER, *rows)
    assert "2 stored, 0 there already, 0 rejected" in load(path)
    expected = [
        ("2024-01-02 00:00:00", 187.15, 188.44, 183.89, 185.64, 82488700.0),
        ("2024-01-03 00:00:00", 1.0, 2.0, 1.0, 2.0, 0.0),
    ]
    assert stored(conn, "AAPL") == expected
    assert "already imported, nothing to do" in load(path)
    assert "0 stored, 2 there already" in load(path, "--again")
    assert stored(conn, "AAPL") == expected


def test_what_a_vendor_corrected_replaces_what_he_said_before(load: Load, conn: connection) -> None:
    load(write("a.csv", HEADER, "AAPL,2024-01-02,10,12,9,11,100"))
    load(write("b.csv", "symbol,date,open,high,low,close", "AAPL,2024-01-02,10,13,9,12"))
    assert stored(conn, "AAPL") == [("2024-01-02 00:00:00", 10, 13, 9, 12, 100)], "a volume that is absent stays"


def test_two_sources_keep_their_own_bars(load: Load, conn: connection) -> None:
    path = write("a.csv", HEADER, "AAPL,2024-01-02,10,12,9,11,100")
    load(path, "--source", "one")
    load(path, "--source", "two")
    assert stored(conn, "AAPL", "one") == stored(conn, "AAPL", "two") != []


def test_bad_rows_are_listed_by_line_and_the_others_go_in(load: Load, conn: connection) -> None:
    path = write(
        "a.csv",
        HEADER,
        "AAPL,2024-01-02,10,12,9,11,100",
        "AAPL,2024-13-03,10,12,9,11,100",
        "",
        "AAPL,2024-01-04,10,8,9,11,100",
        "NOBODY,2024-01-05,10,12,9,11,100",
        "AAPL,2024-01-06,10,12,9,11,100,1,2",
        "AAPL,2024-01-08,10,12,9,11,100",
    )
    assert "2 stored, 0 there already, 4 rejected (see a.csv.rejects)" in load(path)
    listed = [line.split("\t") for line in Path("a.csv.rejects").read_text().splitlines()]
    assert listed[0] == ["line", "reason", "text"]
    assert [line[0] for line in listed[1:]] == ["3", "5", "6", "7"]
    assert "no such day" in listed[1][1]
    assert "high 8 is below another price" in listed[2][1]
    assert listed[3][1] == "Unknown symbol: NOBODY"
    assert "more cells" in listed[4][1]
    assert [row[0][:10] for row in stored(conn, "AAPL")] == ["2024-01-02", "2024-01-08"]
    assert ledger(conn) == [(6, 2, 0, 0)]


def test_unknown_symbols_are_added_when_told_so(load: Load, conn: connection) -> None:
    load(write("a.csv", HEADER, "VCB,2024-01-02,10,12,9,11,100"), "--add-symbol")
    assert len(stored(conn, "VCB")) == 1


def test_a_file_without_symbols_is_of_the_one_that_is_named(load: Load, conn: connection) -> None:
    path = write("a.csv", "Date;Open;High;Low;Close", "02/01/2024;10;12;9;11")
    assert "give it with --symbol" in load(path, status=1)
    load(path, "--symbol", "msft.us")
    assert stored(conn, "MSFT") == [("2024-01-02 00:00:00", 10, 12, 9, 11, None)]
    load(path, "--symbol", "AMD", "--day-order", "mdy")
    assert stored(conn, "AMD")[0][0] == "2024-02-01 00:00:00"


def test_only_the_symbols_that_are_wanted_are_taken(load: Load, conn: connection) -> None:
    path = write("a.csv", HEADER, "AAPL,2024-01-02,10,12,9,11,1", "MSFT,2024-01-02,10,12,9,11,1")
    write("list.txt", "# mine", "msft.us")
    assert "1 stored, 0 there already, 0 rejected, 1 of other symbols" in load(path, "--symbols-file", "list.txt")
    assert stored(conn, "AAPL") == []
    assert len(stored(conn, "MSFT")) == 1


def test_parquet_gzip_and_csv_say_the_same(load: Load, conn: connection) -> None:
    days = [FIRST + timedelta(number) for number in range(50)]
    table = pa.table(
        {
            "Ticker": ["AAPL"] * 50,
            "Date": pa.array(days, pa.date32()),
            "Open": [100.1 + number for number in range(50)],
            "High": [102.3 + number for number in range(50)],
            "Low": [99.7 + number for number in range(50)],
            "Close": [101.9 + number for number in range(50)],
            "Volume": pa.array([1000 + number for number in range(50)], pa.int64()),
        }
    )
    pq.write_table(table, "a.parquet")
    lines = [",".join(table.column_names), *(",".join(map(str, row.values())) for row in table.to_pylist())]
    Path("a.csv.gz").write_bytes(gzip.compress("\r\n".join(lines).encode("utf-8-sig")))
    load("a.parquet", "--source", "parquet")
    load("a.csv.gz", "--source", "csv")
    assert len(stored(conn, "AAPL", "parquet")) == 50
    assert stored(conn, "AAPL", "parquet") == stored(conn, "AAPL", "csv")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"symbol,price\nAAPL,1\n", "no column for day, open, high, low, close"),
        (b"symbol,date,open,high,low,close\nAAPL,x,1,1,1,1\nAAPL,y,1,1,1,1\n", "none of the first 2 rows"),
        (b"PAR1nonsense", "cannot be read"),
        (gzip.compress(b"symbol,date,open,high,low,close\n" * 99, mtime=0)[:-9], "cannot be read to its end"),
    ],
    ids=("empty", "no columns", "no days", "no parquet", "cut off"),
)
def test_a_file_of_another_kind_is_refused_with_the_reason(load: Load, content: bytes, why: str) -> None:
    Path("a.csv").write_bytes(content)
    assert why in load("a.csv", status=1)


def test_an_import_that_was_cut_off_goes_on_where_it_stood(
    load: Load, conn: connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ohlc_files, "BLOCK_ROWS", 10)
    rows = [f"AAPL,{FIRST + timedelta(number)},10,12,9,11,{number}" for number in range(45)]
    rows[3] = "AAPL,?,10,12,9,11,3"
    path = write("a.csv", HEADER, *rows)
    write_block, blocks = RowsImport.write, []

    def dies(self: RowsImport, *arguments: Any) -> Any:
        blocks.append(arguments)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return write_block(self, *arguments)

    monkeypatch.setattr(RowsImport, "write", dies)
    load(path, status=130)
    assert len(stored(conn, "AAPL")) == 19
    assert ledger(conn) == [(20, 19, 0, 0)]
    assert "25 stored, 0 there already, 0 rejected" in load(path)
    assert [row[5] for row in stored(conn, "AAPL")] == [number for number in range(45) if number != 3]
    assert ledger(conn) == [(45, 44, 0, 0)]
    blocks.clear()
    load(path, "--again", status=130)
    assert "0 stored, 25 there already, 0 rejected" in load(path), "once more was not done yet"
    assert sorted(ledger(conn)) == [(45, 0, 44, 0), (45, 44, 0, 0)]


def test_a_database_that_goes_away_is_waited_for_and_nothing_comes_twice(
    load: Load, conn: connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.csv", HEADER, *(f"AAPL,{FIRST + timedelta(number)},10,12,9,11,1" for number in range(9)))
    write_block, tries = RowsImport.write, []

    def loses_the_answer(self: RowsImport, *arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            raise DatabaseAway("away")
        done = write_block(self, *arguments)
        if len(tries) == 2:
            raise DatabaseAway("the answer to the COMMIT was lost")
        return done

    monkeypatch.setattr(RowsImport, "write", loses_the_answer)
    monkeypatch.setattr(ohlc_sources.time, "sleep", lambda _: None)
    load(path)
    assert len(tries) == 2
    assert ledger(conn) == [(9, 9, 0, 0)]
    assert len(stored(conn, "AAPL")) == 9


# FastConnect


def ask(load: Load, *arguments: object, last: date, status: int = 0, symbols: str = "VCB") -> str:
    return load(
        "--fastconnect", "--symbols", symbols, "--from", FIRST, "--to", last, "--add-symbol", *arguments, status=status
    )


def test_a_symbols_days_come_from_the_vendor_whatever_happens_on_the_way(
    load: Load, conn: connection, vendor: StandIn
) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 60)
    vendor.largest_page = 9
    vendor.faults = ["500", None, "quota_body", "half_page", "cut", None, "expired", None, "reset", "html", None]
    vendor.token_faults = [None, "500"]
    assert "60 stored, 0 there already, 0 rejected" in ask(load, last=traded[-1])
    assert stored(conn, "VCB", "ssi_fastconnect") == [
        (f"{day} 00:00:00", 99 + at, 101 + at, 99 + at, 100 + at, 1000) for at, day in enumerate(traded)
    ]
    with conn, conn.cursor() as cur:
        cur.execute("SELECT sum(trading_value) FROM price_history")
        assert cur.fetchone() == (sum(100 + at for at in range(60)) * 1000,)


def test_the_vendor_is_asked_for_thirty_days_at_a_time_and_for_each_once(load: Load, vendor: StandIn) -> None:
    vendor.add_weekdays("VCB", FIRST, 60)
    ask(load, last=date(2024, 3, 10))
    assert days_asked(vendor) == [
        ("VCB", "02/01/2024", "31/01/2024"),
        ("VCB", "01/02/2024", "01/03/2024"),
        ("VCB", "02/03/2024", "10/03/2024"),
    ]
    vendor.asked.clear()
    assert "already imported, nothing to do" in ask(load, last=date(2024, 3, 10))
    assert days_asked(vendor) == []
    assert "2 stored" in ask(load, last=date(2024, 3, 12))
    assert days_asked(vendor) == [("VCB", "11/03/2024", "12/03/2024")]


def test_what_was_answered_before_the_vendor_went_away_is_kept(load: Load, conn: connection, vendor: StandIn) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 60)
    vendor.add_weekdays("FPT", FIRST, 60)
    vendor.faults = [None, *["500"] * fastconnect.TRIES]  # type: ignore[list-item]
    said = ask(load, last=traded[-1], symbols="VCB,FPT", status=1)
    assert "VCB: FastConnect cannot be asked: HTTP 500" in said
    assert "FPT: 60 stored" in said, "the other symbol is imported all the same"
    assert "1 of 2 symbols" in said
    before = len(stored(conn, "VCB", "ssi_fastconnect"))
    assert 0 < before < 60
    vendor.asked.clear()
    assert f"VCB: {60 - before} stored" in ask(load, last=traded[-1], symbols="VCB,FPT")
    assert ("VCB", "02/01/2024", "31/01/2024") not in days_asked(vendor)
    assert len(stored(conn, "VCB", "ssi_fastconnect")) == 60
    for row in ledger(conn):
        assert row[1:] == (60, 0, 0)


@pytest.mark.long
def test_a_killed_import_goes_on_with_the_days_that_it_had_not_stored(
    load: Load, conn: connection, vendor: StandIn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 200)
    monkeypatch.setenv("TICKHUB_FASTCONNECT_REQUESTS_PER_S", "5")
    vendor.faults = [None, None, None, None, *["500"] * fastconnect.TRIES]  # it cannot end before it is killed
    arguments = ["--fastconnect", "--symbols", "VCB", "--from", str(FIRST), "--to", str(traded[-1]), "--add-symbol"]
    command = [sys.executable, "-m", "app", "import-ohlc", *arguments, "--database-url", database_url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(vendor.asked) >= 4 or process.poll() is not None, what="four questions")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(10)
    ((next_row, *_),) = ledger(conn)
    done = date(1970, 1, 1) + timedelta(next_row)
    assert stored(conn, "VCB", "ssi_fastconnect")[-1][0][:10] == f"{max(day for day in traded if day < done)}"
    vendor.asked.clear()
    vendor.faults.clear()
    ask(load, last=traded[-1])
    assert days_asked(vendor)[0][1] == f"{done:%d/%m/%Y}"
    assert [row[0][:10] for row in stored(conn, "VCB", "ssi_fastconnect")] == [str(day) for day in traded]
    assert ledger(conn)[0][1:] == (200, 0, 0)


def test_bad_rows_of_the_vendor_are_listed_and_the_others_go_in(load: Load, conn: connection, vendor: StandIn) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.add("VCB", date(2024, 1, 8), 100, Open="0")
    vendor.add("VCB", date(2024, 1, 9), 100, Volume="many")
    vendor.add("VCB", date(2024, 1, 10), 100, TradingDate="31/02/2024")
    vendor.add("VCB", date(2024, 1, 11), 100, Symbol="FPT")
    vendor.add("VCB", date(2024, 1, 12), 100)
    said = ask(load, last=date(2024, 1, 20))
    assert "4 stored, 0 there already, 4 rejected (see ssi_fastconnect.VCB.rejects)" in said
    listed = Path("ssi_fastconnect.VCB.rejects").read_text()
    for why in ("open is not above zero", "volume is no number: 'many'", "no such day: '31/02/2024'", "not FPT"):
        assert why in listed
    assert [row[0][:10] for row in stored(conn, "VCB", "ssi_fastconnect")][-1] == "2024-01-12"


def test_again_takes_what_the_vendor_has_corrected(load: Load, conn: connection, vendor: StandIn) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 5)
    ask(load, last=traded[-1])
    vendor.rows["VCB"][2]["High"] = "777"
    ask(load, last=traded[-1])
    assert 777.0 not in [row[2] for row in stored(conn, "VCB", "ssi_fastconnect")]
    assert "1 stored, 4 there already" in ask(load, "--again", last=traded[-1])
    assert stored(conn, "VCB", "ssi_fastconnect")[2][2] == 777


def test_the_key_is_in_nothing_that_is_said_or_stored(load: Load, vendor: StandIn, tmp_path: Path) -> None:
    vendor.faults = ["403"]
    said = ask(load, last=FIRST, status=1)
    vendor.token_faults = ["403"]
    said += ask(load, last=FIRST, status=1)
    said += "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert "FastConnect refuses: HTTP 403" in said
    for secret in (CONSUMER_ID, CONSUMER_SECRET, *vendor.tokens):
        assert secret not in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "give either files or --fastconnect"),
        (["a.csv", "--fastconnect"], "give either files or --fastconnect"),
        (["a.csv", "--from", "2024-01-01"], "are for --fastconnect"),
        (["--fastconnect", "--from", "2024-01-01"], "say which symbols"),
        (["--fastconnect", "--symbols", "VCB"], "say from which day"),
        (["--fastconnect", "--symbols", "VCB", "--from", "2024-01-02", "--to", "2024-01-01"], "after the last day"),
        (["--fastconnect", "--symbols", "VCB", "--from", "2024-01-02", "--to", "2999-01-01"], "is not over yet"),
        (["--fastconnect", "--symbols", "VCB", "--from", "2024-01-02"], "TICKHUB_FASTCONNECT_CONSUMER_ID"),
        (["a.csv", "--symbols-file", "nowhere"], "nowhere cannot be read"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_anything_starts(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.database.run", lambda *_: pytest.fail("the database was started"))
    assert main(["import-ohlc", *arguments]) == 1
    assert why in capsys.readouterr().err


def test_a_symbol_that_nobody_knows_is_not_asked_for(load: Load, vendor: StandIn) -> None:
    said = load("--fastconnect", "--symbols", "NOBODY", "--from", "2024-01-02", status=1)
    assert "unknown symbol: NOBODY" in said
    assert vendor.paths == []


@pytest.mark.parametrize(
    ("now", "last"),
    [
        (datetime(2024, 3, 4, 10, 59, tzinfo=UTC), date(2024, 3, 3)),  # 17:59 in Ho Chi Minh City
        (datetime(2024, 3, 4, 11, 0, tzinfo=UTC), date(2024, 3, 4)),
        (datetime(2024, 3, 4, 16, 59, tzinfo=UTC), date(2024, 3, 4)),
        (datetime(2024, 3, 4, 17, 0, tzinfo=UTC), date(2024, 3, 4)),  # the next day has just begun there
    ],
)
def test_a_day_counts_when_it_is_over_in_vietnam(now: datetime, last: date) -> None:
    assert last_day_over(now) == last


# lists


def test_the_vn30_that_is_shipped_has_thirty_symbols_and_its_date() -> None:
    symbols, title = read_list("vn30")
    assert len(symbols) == len(set(symbols)) == 30
    assert all(len(symbol) == 3 and symbol.isupper() for symbol in symbols)
    assert date.fromisoformat(title[-10:]) <= date.today()


@pytest.mark.parametrize("text", ["A\nB\n", "\ufeff# t\nsymbol\nA\nB\nA\n", "no;ticker\n1;A\n2;B\n", "A,x\nB,y\n"])
def test_lists_are_read_in_all_their_forms(text: str) -> None:
    Path("list").write_text(text, encoding="utf-8")
    assert read_list("list")[0] == ["A", "B"]


# real


def real_file() -> Path:
    return real_path("daily", "us_daily_ohlcv_lean_unadjusted.csv.gz")


@pytest.mark.long
def test_real_days_of_sixteen_symbols_are_read_back_as_they_are(load: Load, conn: connection) -> None:
    path = real_file()
    assert "69876 stored, 0 there already, 0 rejected" in load(path, "--add-symbol", "--source", "lean")
    with gzip.open(path, "rt") as lines:
        expected: dict[str, list[tuple[Any, ...]]] = {}
        for row in csv.DictReader(lines):
            numbers = [float(row[name]) for name in ("open", "high", "low", "close", "volume")]
            expected.setdefault(row["symbol"], []).append((f"{row['date']} 00:00:00", *numbers))
    for symbol, rows in expected.items():
        assert stored(conn, symbol, "lean") == sorted(rows)
    assert ledger(conn) == [(69_876, 69_876, 0, 0)]
    assert "nothing to do" in load(path, "--add-symbol", "--source", "lean")
