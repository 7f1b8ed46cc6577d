"""`python -m app import` against a real database: what is in the file is in the database, once."""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg2.extensions import connection

from app.cli import import_reader, import_ticks, main
from app.errors import TickhubError
from tests.real_market import real_path
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[Any, ...]


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(database_url: str, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object, status: int = 0) -> str:
        code = main(["import", *map(str, arguments), "--database-url", database_url])
        said = capsys.readouterr()
        assert code == status, said.err
        return said.out if status == 0 else said.err

    return run


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_reader, "FIRST_BYTES", 300)
    monkeypatch.setattr(import_reader, "BLOCK_BYTES", 500)


def real(name: str) -> Path:
    return real_path("ticks", name)


def export(path: Path, *lines: str) -> Path:
    path.write_text("\r\n".join([HEADER, *lines, ""]), newline="")
    return path


def one_by_one(path: Path, hours_ahead: int = 0) -> Iterator[Row]:
    """Read an export with the csv module alone: (time_us, seq, bid, ask, last, volume, flags)."""
    seen = Counter[int]()
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        for day, clock, *prices, volume, flags in rows:
            naive = datetime.fromisoformat(f"{day.replace('.', '-')}T{clock}").replace(tzinfo=UTC)
            time_us = (naive - EPOCH) // timedelta(microseconds=1) - hours_ahead * 3_600_000_000
            yield (
                time_us,
                seen[time_us],
                *(float(p) if p else None for p in prices),
                float(volume or 0),
                int(flags),
            )
            seen[time_us] += 1


def stored(conn: connection) -> Iterator[Row]:
    """Yield the stored ticks by row of their file."""
    conn.rollback()
    with conn.cursor("stored") as cur:
        cur.itersize = 20_000
        cur.execute("""
            SELECT (extract(epoch FROM time) * 1000000)::bigint, seq, bid, ask, last, volume, flags
            FROM ticks ORDER BY journal_no, received_at
        """)
        yield from cur


def rows_of(conn: connection, query: str) -> list[Row]:
    conn.rollback()
    with conn.cursor() as cur:
        cur.execute(query)
        return cur.fetchall()


def assert_equal(expected: Iterator[Row], got: Iterator[Row]) -> int:
    """Compare row for row; return how many there are."""
    count = 0
    for number, (want, have) in enumerate(zip_longest(expected, got)):
        assert want == have, f"row {number}"
        count += 1
    return count


def assert_bars_add_up(conn: connection) -> None:
    counts = rows_of(
        conn, "SELECT count(*) FROM ticks UNION ALL SELECT sum(ticks) FROM bars GROUP BY resolution"
    )
    assert len(counts) == 4
    assert len({int(count) for (count,) in counts}) == 1


LEDGER = """
    SELECT next_row, stored, duplicates, set_aside, skipped FROM ingest_log
    WHERE journal_id LIKE 'import:%' ORDER BY journal_no
"""


def random_export(path: Path, rows: int, seed: int = 1) -> Path:
    """Write an export as they are: many rows share their millisecond, some equal the one before."""
    rng = random.Random(seed)
    at, out = datetime(2013, 10, 8, 4, tzinfo=UTC), io.StringIO()
    out.write(HEADER + "\r\n")
    line = ""
    for _ in range(rows):
        if rng.random() < 0.5:
            at += timedelta(milliseconds=rng.randrange(40))
        if not line or rng.random() < 0.85:
            price = f"{180 + rng.randrange(200) / 100:.2f}"
            line = rng.choice(
                [f"{price}\t\t\t\t2", f"\t{price}\t\t\t4", f"\t\t{price}\t{rng.randrange(1, 9)}.00000000\t24"]
            )
        out.write(f"{at:%Y.%m.%d}\t{at:%H:%M:%S}.{at.microsecond // 1000:03}\t{line}\r\n")
    path.write_text(out.getvalue(), newline="")
    return path


def test_every_row_of_a_file_is_stored_and_a_second_import_stores_nothing(load, conn, tmp_path, small_blocks):
    path = random_export(tmp_path / "ticks.csv", 2_000)
    said = load(path, "--symbol", "tsla.us")
    assert "2000 rows, 2000 stored, 0 duplicates, 0 rejected;" in said
    assert assert_equal(one_by_one(path), stored(conn)) == 2_000
    assert rows_of(conn, "SELECT DISTINCT symbol FROM ticks JOIN instruments USING (symbol_id)") == [
        ("TSLA",)
    ]
    assert_bars_add_up(conn)
    before = rows_of(conn, LEDGER)
    assert "already imported, nothing to do (2000 rows, 2000 stored" in load(path, "--symbol", "TSLA")
    assert rows_of(conn, LEDGER) == before == [(2_000, 2_000, 0, 0, 0)]


def test_a_finished_file_is_imported_again_when_asked_and_only_what_was_deleted_is_stored(
    load, database_url, conn, tmp_path
):
    path = random_export(tmp_path / "ticks.csv", 500)
    assert "500 stored, 0 duplicates" in load(path, "--symbol", "TSLA", "--again"), "nothing was imported before"
    times = sorted({row[0] for row in one_by_one(path)})
    start, end = (EPOCH + timedelta(microseconds=times[at]) for at in (100, 160))
    bounds = ("--start", start.isoformat(), "--end", end.isoformat(), "--database-url", database_url)
    assert main(["delete", "TSLA", *bounds, "--yes"]) == 0
    gone = 500 - rows_of(conn, "SELECT count(*) FROM ticks")[0][0]
    assert gone >= 60
    assert load(path, "--symbol", "TSLA").endswith("0 set aside, 0 rejected); --again imports it once more\n")
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(500 - gone,)]
    for missing in (gone, 0):
        said = load(path, "--symbol", "TSLA", "--again")
        assert f"500 rows, {missing} stored, {500 - missing} duplicates, 0 rejected" in said
        assert sorted(stored(conn)) == sorted(one_by_one(path))
        assert_bars_add_up(conn)
    assert "nothing to do (500 rows, 0 stored, 500 duplicates" in load(path, "--symbol", "TSLA"), "as the last time"


def fails_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have imports end behind their first blocks."""
    write = import_ticks.ImportJob.write

    def fail_later(job: Any, entry: Any, *block: Any) -> Any:
        if entry.next_row > 50:
            raise TickhubError("cut off")
        return write(job, entry, *block)

    monkeypatch.setattr(import_ticks.ImportJob, "write", fail_later)


def test_an_import_once_more_that_was_cut_off_is_not_taken_for_finished_and_goes_on(
    load, database_url, conn, tmp_path, monkeypatch, small_blocks
):
    path = random_export(tmp_path / "ticks.csv", 200)
    load(path, "--symbol", "TSLA")
    everything = ("--start", "2013-01-01", "--end", "2014-01-01", "--database-url", database_url, "--yes")
    done = 0
    for repeat in (1, 2):
        assert main(["delete", "TSLA", *everything]) == 0
        with monkeypatch.context() as patch:
            fails_later(patch)
            assert "cut off" in load(path, "--symbol", "TSLA", "--again", status=1)
        *_, (done, stored_then, *_) = rows_of(conn, LEDGER)
        assert (stored_then, rows_of(conn, "SELECT count(*) FROM ticks")) == (done, [(done,)]), repeat
    said = load(path, "--symbol", "TSLA")
    assert f"{200 - done} rows, {200 - done} stored, 0 duplicates, 0 rejected; went on at row {done};" in said
    assert assert_equal(one_by_one(path), stored(conn)) == 200
    assert_bars_add_up(conn)
    assert "already imported, nothing to do (200 rows, 200 stored" in load(path, "--symbol", "TSLA")
    assert [rows[:2] for rows in rows_of(conn, LEDGER)] == [(200, 200), (done, done), (200, 200)]


def test_the_same_ticks_in_another_file_are_duplicates(load, conn, tmp_path):
    path = random_export(tmp_path / "ticks.csv", 500)
    load(path, "--symbol", "TSLA")
    packed = tmp_path / "ticks.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "500 rows, 0 stored, 500 duplicates, 0 rejected" in load(packed, "--symbol", "TSLA")
    assert assert_equal(one_by_one(path), stored(conn)) == 500
    assert_bars_add_up(conn)


def test_an_import_goes_on_in_the_middle_of_a_block(load, conn, tmp_path, monkeypatch, small_blocks):
    """As when a newer version cuts its blocks elsewhere."""
    path = random_export(tmp_path / "ticks.csv", 200)
    with monkeypatch.context() as patch:
        fails_later(patch)
        assert "cut off" in load(path, "--symbol", "TSLA", status=1)
    monkeypatch.setattr(import_reader, "FIRST_BYTES", 1_500)
    ((done, *_),) = rows_of(conn, LEDGER)
    assert (
        f"{200 - done} rows, {200 - done} stored, 0 duplicates, 0 rejected; went on at row {done};"
        in load(path, "--symbol", "TSLA")
    )
    assert assert_equal(one_by_one(path), stored(conn)) == 200


def test_received_at_rises_strictly_through_an_import(load, conn, tmp_path, small_blocks):
    load(random_export(tmp_path / "ticks.csv", 300), "--symbol", "TSLA")
    times = [row[0] for row in rows_of(conn, "SELECT received_at FROM ticks ORDER BY time, seq")]
    assert all(a < b for a, b in pairwise(times))


def test_bad_lines_are_left_out_and_listed(load, conn, tmp_path, small_blocks):
    good = "2013.10.08\t04:00:00.001\t1\t2\t\t\t6"
    lines = [
        good,
        "rubbish",
        good,
        "2013.10.08\t04:00:00.001\t-1\t2\t\t\t6",
        *[good] * 30,
        "2013.10.08\t\t1\t\t\t\t2",
    ]
    path = export(tmp_path / "ticks.csv", *lines)
    rejects = tmp_path / "out"
    rejects.mkdir()
    said = load(path, "--symbol", "TSLA", "--reject-dir", rejects)
    assert "35 rows, 32 stored, 0 duplicates, 3 rejected (see" in said
    assert (rejects / "ticks.csv.rejects").read_text().splitlines() == [
        "line\treason\ttext",
        "3\t1 columns instead of 7\trubbish",
        "5\tbid is not above zero\t2013.10.08\t04:00:00.001\t-1\t2\t\t\t6",
        "36\tthe time cannot be read\t2013.10.08\t\t1\t\t\t\t2",
    ]
    assert rows_of(conn, LEDGER) == [(35, 32, 0, 0, 3)]
    assert [row[0] for row in rows_of(conn, "SELECT seq FROM ticks ORDER BY seq")] == [0, 1, *range(3, 33)]
    load(path, "--symbol", "TSLA", "--reject-dir", rejects)
    assert rows_of(conn, LEDGER) == [(35, 32, 0, 0, 3)]


def test_the_timezone_decides_which_utc_is_stored(load, conn, tmp_path):
    path = random_export(tmp_path / "ticks.csv", 50)
    load(path, "--symbol", "TSLA", "--timezone", "America/New_York+7h")
    assert_equal(one_by_one(path, hours_ahead=3), stored(conn))


def test_both_passes_of_a_repeated_hour_are_stored(load, conn, tmp_path, small_blocks):
    minutes = [f"08:{m:02}" for m in range(60)]
    walls = [f"07:{m:02}" for m in range(60)] + minutes + minutes + ["09:00"]
    path = export(tmp_path / "ticks.csv", *(f"2013.11.03\t{wall}:00.500\t1\t2\t\t\t6" for wall in walls))
    assert "181 rows, 181 stored" in load(path, "--symbol", "TSLA", "--timezone", "America/New_York+7h")
    first = datetime(2013, 11, 3, 4, 0, 0, 500_000, tzinfo=UTC)
    times = [row[0] for row in rows_of(conn, "SELECT time FROM ticks ORDER BY received_at")]
    assert times == [first + timedelta(minutes=i) for i in range(181)]


def test_an_unknown_symbol_needs_add_symbol(load, conn, tmp_path):
    path = random_export(tmp_path / "ticks.csv", 20)
    assert "unknown symbol: XAUUSD (--add-symbol" in load(path, "--symbol", "XAUUSD", status=1)
    assert "20 stored" in load(path, "--symbol", "XAUUSD", "--add-symbol")
    assert rows_of(conn, "SELECT count(*) FROM instruments WHERE symbol = 'XAUUSD'") == [(1,)]


def test_a_symbol_must_come_from_somewhere_and_be_one(load, conn, tmp_path):
    assert "--symbol" in load(random_export(tmp_path / "a.csv", 20), status=1)
    (tmp_path / "b.csv").write_text("symbol,time,bid\nA,1580234400,1\nB,1580234400,1\n")
    assert "several symbols (A, B)" in load(tmp_path / "b.csv", "--symbol", "TSLA", status=1)
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]


def test_a_column_may_name_the_symbols(load, conn, tmp_path, small_blocks):
    lines = [f"{'TSLA' if i % 3 else 'nvda.us'},2013-10-08T04:00:0{i % 10}Z,{i + 1}" for i in range(200)]
    (tmp_path / "ticks.csv").write_text("\n".join(["symbol,timestamp,bid", *lines]))
    assert "200 rows, 200 stored" in load(tmp_path / "ticks.csv")
    got = rows_of(
        conn, "SELECT symbol, count(*) FROM ticks JOIN instruments USING (symbol_id) GROUP BY 1 ORDER BY 1"
    )
    assert got == [("NVDA", 67), ("TSLA", 133)]


def test_parquet_is_imported_like_text(load, conn, tmp_path, monkeypatch):
    monkeypatch.setattr(import_reader, "PARQUET_ROWS", 70)
    path = random_export(tmp_path / "ticks.csv", 500)
    names = ("timestamp", "seq", "bid", "ask", "last", "volume", "flags")
    table = pa.table(dict(zip(names, zip(*one_by_one(path), strict=True), strict=True)))
    table = table.set_column(0, "timestamp", table["timestamp"].cast(pa.timestamp("us", "UTC")))
    pq.write_table(table.drop_columns("seq"), tmp_path / "ticks.parquet")
    assert "500 rows, 500 stored" in load(tmp_path / "ticks.parquet", "--symbol", "TSLA")
    assert assert_equal(one_by_one(path), stored(conn)) == 500


def test_a_range_with_derived_ticks_is_refused_unless_merged(load, conn, tmp_path):
    path = random_export(tmp_path / "ticks.csv", 100)
    load(path, "--symbol", "TSLA")
    with conn.cursor() as cur:
        cur.execute("UPDATE ticks SET seq = -5 WHERE received_at = (SELECT max(received_at) FROM ticks)")
    conn.commit()
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert "sent without seq" in load(copy, "--symbol", "TSLA", status=1)
    assert rows_of(conn, LEDGER)[1] == (0, 0, 0, 0, 0)
    assert "1 stored, 99 duplicates" in load(copy, "--symbol", "TSLA", "--merge")


def test_one_bad_file_does_not_stop_the_others(load, conn, tmp_path):
    (tmp_path / "bad.csv").write_text("no ticks at all")
    good = random_export(tmp_path / "good.csv", 20)
    said = load(tmp_path / "none.csv", tmp_path / "bad.csv", good, "--symbol", "TSLA", status=1)
    assert "none.csv" in said
    assert "bad.csv: the first line must name the columns" in said
    assert rows_of(conn, LEDGER) == [(0, 0, 0, 0, 0), (20, 20, 0, 0, 0)]


def test_files_of_one_name_list_their_bad_lines_apart(load, tmp_path):
    paths = []
    for folder, text in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        paths.append(export(tmp_path / folder / "t.csv", text, "2013.10.08\t04:00:00\t1\t2\t\t\t6"))
    load(*paths, "--symbol", "TSLA")
    assert "first" in (tmp_path / "t.csv.rejects").read_text()
    assert "second" in (tmp_path / "t.csv.2.rejects").read_text()


def test_two_imports_of_one_file_at_once_store_it_once(
    load, database_url, conn, tmp_path, monkeypatch, small_blocks
):
    """The second one writes every block just before the first one does."""
    path = random_export(tmp_path / "ticks.csv", 200)
    write = import_ticks.ImportJob.write

    def overtaken(job: Any, *block: Any) -> Any:
        write(job, *block)
        return write(job, *block)

    monkeypatch.setattr(import_ticks.ImportJob, "write", overtaken)
    assert "another import of this file is running" in load(path, "--symbol", "TSLA", status=1)
    monkeypatch.setattr(import_ticks.ImportJob, "write", write)
    load(path, "--symbol", "TSLA")
    assert assert_equal(one_by_one(path), stored(conn)) == 200
    assert rows_of(conn, LEDGER) == [(200, 200, 0, 0, 0)]
    assert_bars_add_up(conn)


def test_a_file_that_cannot_be_numbered_exactly_is_refused(load, tmp_path, monkeypatch, small_blocks):
    monkeypatch.setattr("app.market.file_ticks.REMEMBERED", 5)
    lines = [f"2013.10.08\t04:00:{second:02}\t1\t2\t\t\t6" for second in [*range(30), 0]]
    assert "sort the file by time" in load(
        export(tmp_path / "ticks.csv", *lines), "--symbol", "TSLA", status=1
    )


def test_an_import_waits_for_a_database_that_cuts_its_connections(
    load, conn, tmp_path, monkeypatch, small_blocks
):
    """Each block's connection is cut once, right before its commit and right after."""
    path = random_export(tmp_path / "ticks.csv", 200)
    write = import_ticks.ImportJob.write
    calls = Counter[str]()

    def cut(job: Any, entry: Any, ticks: Any, end_row: int, instruments: Any) -> Any:
        calls["write"] += 1
        if calls["write"] % 3 == 1:
            rows_of(
                conn,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tickhub import' AND datname = current_database()",
            )
        new = write(job, entry, ticks, end_row, instruments)
        if calls["write"] % 3 == 2:
            raise import_ticks.DatabaseAway("the answer to COMMIT was lost")
        return new

    monkeypatch.setattr(import_ticks.ImportJob, "write", cut)
    monkeypatch.setattr(import_ticks.time, "sleep", lambda _: None)
    assert "200 stored" in load(path, "--symbol", "TSLA")
    assert calls["write"] > 9
    assert assert_equal(one_by_one(path), stored(conn)) == 200
    assert_bars_add_up(conn)


def killed_midway(path: Path, url: str, conn: connection, rows: int, beyond: int = 0) -> int:
    """Start an import, kill -9 it when part of the file is in; return how many rows the ledger has."""
    command = [sys.executable, "-m", "app", "import", str(path), "--symbol", "TSLA", "--database-url", url]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    try:

        def far_enough() -> bool:
            found = rows_of(conn, LEDGER)
            return bool(found and found[0][0] > beyond)

        wait_until(lambda: far_enough() or process.poll() is not None, what="the import to get there")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    ((next_row, *_),) = rows_of(conn, LEDGER)
    assert beyond < next_row < rows, "it was to be killed midway"
    return int(next_row)


@pytest.mark.long
def test_an_import_that_was_killed_goes_on_where_it_was(load, database_url, conn, tmp_path):
    path = random_export(tmp_path / "ticks.csv", 300_000)
    done = killed_midway(path, database_url, conn, 300_000)
    assert f"{300_000 - done} stored, 0 duplicates, 0 rejected; went on at row {done};" in load(
        path, "--symbol", "TSLA"
    )
    assert assert_equal(one_by_one(path), stored(conn)) == 300_000
    assert rows_of(conn, LEDGER) == [(300_000, 300_000, 0, 0, 0)]
    assert_bars_add_up(conn)


def test_ticks_copied_out_of_a_terminal_are_stored_as_they_are(load, conn):
    path = real("mt5_copy_ticks_sample.csv.gz")
    assert "1000 rows, 1000 stored, 0 duplicates, 0 rejected" in load(
        path, "--symbol", "EURUSD", "--add-symbol"
    )
    seen = Counter[int]()
    expected = []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            time_us = int(row["time_msc"]) * 1000
            prices = (float(row["bid"]), float(row["ask"]), float(row["last"]))
            expected.append((time_us, seen[time_us], *prices, 0.0, int(row["flags"])))
            seen[time_us] += 1
    assert_equal(iter(expected), stored(conn))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("IBM_20131008-10.tsv.gz", 449_508),
        ("SPY_trades_20131008.tsv.gz", 451_545),
        ("GCZ13_trades_20131007-09.tsv.gz", 156_452),
        ("XAUUSD_oanda_20140506-09.tsv.gz", 721_783),
    ],
)
def test_a_real_file_is_stored_row_for_row(load, conn, name, rows):
    path = real(name)
    assert f"{rows} rows, {rows} stored, 0 duplicates, 0 rejected" in load(path, "--symbol", "TSLA")
    assert assert_equal(one_by_one(path), stored(conn)) == rows
    assert_bars_add_up(conn)
    assert "nothing to do" in load(path, "--symbol", "TSLA")


@pytest.mark.long
def test_a_real_import_that_was_killed_again_and_again_loses_and_repeats_nothing(
    load, database_url, conn, tmp_path
):
    path = real("IBM_20131008-10.tsv.gz")
    done = killed_midway(path, database_url, conn, 449_508)
    killed_midway(path, database_url, conn, 449_508, beyond=done)
    assert "stored, 0 duplicates" in load(path, "--symbol", "TSLA")
    assert assert_equal(one_by_one(path), stored(conn)) == 449_508
    assert_bars_add_up(conn)
