"""`python -m app export` against a real database: what is in the table is in the files, whole or not at all."""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg2.extensions import connection

from app.cli import export, main
from app.storage.ticks_writer import TickStore
from tests.process.harness import wait_until
from tests.tick_sets import MIDNIGHT_US, NAN, Row, stored

ROOT = Path(__file__).resolve().parents[2]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
COLUMNS = ["timestamp", "bid", "ask", "last", "spread", "volume", "buy_volume", "sell_volume", "flags", "seq"]
DAYS = range(-8, 9)

STEP_BY_STEP = """
import sys
from app import sources
from app.cli import export, main
export.PAGE_ROWS = 20
read, pages, halts = sources.TickSource.read, iter(range(1, 1000)), sys.argv[1].split(",")
def halting(*args, **more):
    if str(next(pages)) in halts:
        sys.stdin.readline()
    return read(*args, **more)
sources.TickSource.read = halting
sys.exit(main(sys.argv[2:]))
"""
"""The command, which stands still before some of its pages until it is sent a line: it is in the middle of them."""

TickRow = tuple[Any, ...]


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TICKHUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def at(day: int, second: float = 0.0) -> int:
    return MIDNIGHT_US + day * DAY_US + round(second * 1e6)


def ticks(count: int = 1500) -> list[Row]:
    """Ticks of three symbols over two weeks and a day, many of one microsecond, with and without seq of the sender."""
    random = np.random.default_rng(7)
    found: dict[tuple[int, int, int], Row] = {}
    for number in range(count):
        day = int(random.choice([-8, -3, 0, 0, 1, 2]))
        time_us = at(day, 0) + int(random.integers(0, 60)) * int(random.choice([1, 1_000_000, 1_440_000_000]))
        row = Row(
            symbol_id=int(random.integers(1, 4)),
            time_us=time_us,
            seq=int(random.integers(-(2**62), -1)) if number % 3 == 0 else number,
            bid=float(random.choice([NAN, 0.1 + 0.2, 1 / 3, 1e-300, 432.1])),
            ask=float(random.choice([NAN, 5e-324, 1.7976931348623157e308, 432.15])),
            last=float(random.choice([NAN, 2 / 3, 100.0])),
            volume=float(random.choice([0.0, 0.1, 3.0, 12345.678])),
            flags=int(random.choice([2, 6, 24, 56, 88, 1112])),
            received_us=at(3, 0) + number,
        )
        found[row.symbol_id, row.time_us, row.seq] = row
    return list(found.values())


@pytest.fixture
def loaded(conn: connection) -> connection:
    with conn.cursor() as cur:
        cur.execute("SET timezone = 'UTC'")
        for day in DAYS:
            cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (at(day) / 1e6,))
        cur.execute("SELECT symbol_id, symbol FROM instruments WHERE symbol_id IN (1, 2, 3)")
        TickStore().write(cur, stored(ticks()), dict(cur.fetchall()))
    conn.commit()
    return conn


def in_table(conn: connection, symbol_id: int, start_us: int = at(-100), end_us: int = at(100)) -> list[TickRow]:
    """The table's ticks in the order of their keys, as (us, prices..., flags, seq)."""
    with conn.cursor() as cur:
        cur.execute(
            """SELECT (extract(epoch FROM time) * 1000000)::bigint, bid, ask, last, spread, volume, buy_volume,
                   sell_volume, flags, seq FROM ticks
               WHERE symbol_id = %s AND time >= to_timestamp(%s) AND time < to_timestamp(%s)
               ORDER BY time, seq < 0, greatest(seq, 0), received_at, journal_no""",
            (symbol_id, start_us / 1e6, end_us / 1e6),
        )
        rows = cur.fetchall()
    conn.rollback()
    return rows


def us_of(moment: datetime | str) -> int:
    if isinstance(moment, str):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment)
        moment = datetime.fromisoformat(moment)
    return (moment - EPOCH) // timedelta(microseconds=1)


def of_dicts(rows: list[dict[str, Any]]) -> list[TickRow]:
    return [(us_of(row["timestamp"]), *(row[name] for name in COLUMNS[1:])) for row in rows]


def from_csv(data: bytes) -> list[TickRow]:
    rows = csv.DictReader(io.StringIO(data.decode()))

    def number(name: str, text: str) -> float | int | None:
        return None if text == "" else (int if name in ("flags", "seq") else float)(text)

    return [(us_of(row["timestamp"]), *(number(name, row[name]) for name in COLUMNS[1:])) for row in rows]


READERS: dict[str, Callable[[bytes], list[TickRow]]] = {
    "csv": from_csv,
    "ndjson": lambda data: of_dicts([json.loads(line) for line in data.splitlines()]),
    "json": lambda data: of_dicts(json.loads(data)["ticks"]),
    "arrow": lambda data: of_dicts(pa.ipc.open_stream(data).read_all().to_pylist()),
    "parquet": lambda data: of_dicts(pq.read_table(io.BytesIO(data)).to_pylist()),
}

Export = Callable[..., str]


@pytest.fixture
def run(database_url: str, capfd: pytest.CaptureFixture[str]) -> Export:
    def run(*arguments: object, status: int = 0) -> str:
        try:
            code = main(["export", *map(str, arguments), "--database-url", database_url])
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        said = capfd.readouterr()
        assert code == status, said.err
        return said.out if status == 0 else said.err

    return run


def spawn(database_url: str, *arguments: object, halts: str = "", **options: Any) -> subprocess.Popen[bytes]:
    """Start the command. halts: the numbers of pages, with commas between, before which it waits for `go_on`."""
    command = ["-c", STEP_BY_STEP, halts] if halts else ["-m", "app"]
    words = ["export", *map(str, arguments), "--database-url", database_url]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, *command, *words], env=environ, **pipes)


def go_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


# What is in a file


@pytest.mark.parametrize("small_pages", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_every_format_holds_the_values_of_the_table_to_the_last_bit(loaded, run, monkeypatch, name, small_pages):
    if small_pages:
        monkeypatch.setattr(export, "PAGE_ROWS", 7)
    said = run("TSLA", "--format", name, "--out", "ticks")
    expected = in_table(loaded, 1)
    assert READERS[name](Path("ticks").read_bytes()) == expected
    assert said.startswith(f"ticks: {len(expected):,} ticks of 1 symbol; ")


@pytest.mark.parametrize("name", READERS)
def test_the_name_of_the_file_tells_the_format(loaded, run, name):
    run("TSLA", "--out", f"ticks.{name}")
    run("TSLA", "--out", f"ticks.{name}.gz")
    plain = Path(f"ticks.{name}").read_bytes()
    assert READERS[name](plain) == in_table(loaded, 1)
    assert READERS[name](gzip.decompress(Path(f"ticks.{name}.gz").read_bytes())) == in_table(loaded, 1)


def test_gzip_on_request(loaded, run):
    run("TSLA", "--gzip", "--out", "ticks.csv")
    assert from_csv(gzip.decompress(Path("ticks.csv").read_bytes())) == in_table(loaded, 1)


def test_json_is_as_the_interface_has_it(loaded, run):
    run("tsla.us", "--out", "ticks.json")
    answer = json.loads(Path("ticks.json").read_text())
    assert answer["symbol"] == "TSLA"
    assert list(answer["ticks"][0]) == COLUMNS


def test_stdout_has_the_rows_and_stderr_the_rest(loaded, run):
    assert from_csv(run("TSLA", "--out", "-").encode()) == in_table(loaded, 1)


def test_several_symbols_in_one_file_have_a_symbol_column_in_front(loaded, run):
    run("NVDA", "tsla", "nvda.us", "--out", "ticks.csv")
    rows = list(csv.DictReader(Path("ticks.csv").read_text().splitlines()))
    assert list(rows[0]) == ["symbol", *COLUMNS]
    assert [row["symbol"] for row in rows] == ["NVDA"] * len(in_table(loaded, 2)) + ["TSLA"] * len(in_table(loaded, 1))
    assert from_csv(Path("ticks.csv").read_bytes()) == in_table(loaded, 2) + in_table(loaded, 1)


def test_all_are_all_that_have_ticks_by_name(loaded, run):
    said = run("--all", "--out", "ticks.parquet")
    assert " ticks of 3 symbols; " in said
    table = pq.read_table("ticks.parquet")
    expected = [("AAPL", 3), ("NVDA", 2), ("TSLA", 1)]
    assert table.column("symbol").to_pylist() == [name for name, number in expected for _ in in_table(loaded, number)]
    assert of_dicts(table.to_pylist()) == [row for _, number in expected for row in in_table(loaded, number)]


@pytest.mark.parametrize(
    ("start", "end", "from_us", "to_us"),
    [
        ("2023-11-15", "2023-11-16", at(0), at(1)),
        ("2023-11-15T00:00:00.000010Z", None, at(0, 0.00001), at(100)),
        (None, "2023-11-15T01:00:30+01:00", at(-100), at(0, 30)),
        (str(at(0) // 1000), str(at(0, 60) // 1_000_000), at(0), at(0, 60)),
        ("2024-06-01", None, at(200), at(300)),
        ("2023-11-15", "2023-11-15", at(0), at(0)),
    ],
)
def test_the_range_holds_its_start_and_not_its_end(loaded, run, start, end, from_us, to_us):
    given = [*(["--start", start] if start else []), *(["--end", end] if end else [])]
    run("TSLA", *given, "--out", "ticks.csv")
    assert from_csv(Path("ticks.csv").read_bytes()) == in_table(loaded, 1, from_us, to_us)


def test_an_instrument_without_ticks_gives_a_file_without_rows(loaded, run):
    for name, read in READERS.items():
        run("MSFT", "--out", f"none.{name}")
        assert read(Path(f"none.{name}").read_bytes()) == []


def test_bars_are_those_of_the_table(loaded, run):
    run("TSLA", "--what", "bars", "--out", "bars.csv")
    with loaded.cursor() as cur:
        cur.execute("""SELECT to_char(time, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), coalesce(bid_close, last_close), ticks
                       FROM bars WHERE symbol_id = 1 AND resolution = 60
                           AND coalesce(bid_close, last_close) IS NOT NULL ORDER BY time""")
        expected = cur.fetchall()
    rows = list(csv.DictReader(Path("bars.csv").read_text().splitlines()))
    assert [(row["timestamp"], float(row["close"]), int(row["ticks"])) for row in rows] == expected
    assert {row["complete"] for row in rows} == {"true"}


def test_bars_know_intervals_prices_and_time_zones(loaded, run):
    said = run(
        "TSLA", "--what", "bars", "--interval", "1d", "--tz", "Asia/Kathmandu", "--price", "ask", "--out", "b.json"
    )
    answer = json.loads(Path("b.json").read_text())
    assert (answer["interval"], answer["price"]) == ("1d", "ask")
    assert {bar["timestamp"][11:] for bar in answer["bars"]} == {"18:15:00.000000Z"}
    assert f"{len(answer['bars'])} bars of 1 symbol" in said


# A folder


def hive_rows(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        return duck.execute(query).fetchall()


def test_the_folder_is_read_by_duckdb_and_polars_as_the_table_is(loaded, run, monkeypatch):
    monkeypatch.setattr(export, "PAGE_ROWS", 50)
    said = run("TSLA", "NVDA", "--partition", "hive")
    days = {
        (name, str(datetime.fromtimestamp(row[0] / 1e6, UTC).date()))
        for name, number in (("TSLA", 1), ("NVDA", 2))
        for row in in_table(loaded, number)
    }
    files = sorted(path for path in Path("hive").rglob("*") if path.is_file())
    assert files == sorted(Path(f"hive/symbol={name}/date={day}/part-0.parquet") for name, day in days)
    assert f"in {len(files)} files" in said
    for name, number in (("TSLA", 1), ("NVDA", 2)):
        by_duckdb = hive_rows(
            f"""SELECT epoch_us(timestamp), {", ".join(COLUMNS[1:])}, date = timestamp::date
                FROM read_parquet('hive/**/*.parquet', hive_partitioning = true, file_row_number = true)
                WHERE symbol = '{name}' ORDER BY date, file_row_number"""
        )
        assert [row[:-1] for row in by_duckdb] == in_table(loaded, number)
        assert all(row[-1] for row in by_duckdb)
        frame = polars.scan_parquet("hive/**/*.parquet", hive_partitioning=True).filter(polars.col("symbol") == name)
        by_polars = frame.sort("date", maintain_order=True).select(COLUMNS).collect().to_dicts()
        assert of_dicts(by_polars) == in_table(loaded, number)


def test_a_day_that_is_read_in_many_pages_is_one_file(loaded, run, monkeypatch):
    run("TSLA", "--partition", "one")
    monkeypatch.setattr(export, "PAGE_ROWS", 3)
    run("TSLA", "--partition", "many")
    for path in Path("one").rglob("*.parquet"):
        other = Path("many") / path.relative_to("one")
        assert pq.read_table(path, partitioning=None).equals(pq.read_table(other, partitioning=None))


def test_exporting_again_replaces_the_days_of_the_range_and_no_others(loaded, run):
    run("TSLA", "--partition", "hive")
    yesterday, today = (Path(f"hive/symbol=TSLA/date=2023-11-{day}/part-0.parquet") for day in (15, 16))
    before = yesterday.read_bytes()
    yesterday.write_bytes(b"kept")
    today.write_bytes(b"replaced")
    with loaded.cursor() as cur:
        TickStore().write(cur, stored([Row(time_us=at(1, 86_399), seq=99, bid=1.0)]), {1: "TSLA"})
    loaded.commit()
    run("TSLA", "--partition", "hive", "--start", "2023-11-16", "--end", "2023-11-17")
    assert yesterday.read_bytes() == b"kept" != before
    assert of_dicts(pq.read_table(today, partitioning=None).to_pylist()) == in_table(loaded, 1, at(1), at(2))


def test_names_that_are_no_names_of_folders_come_back_as_they_are(loaded, run):
    names = ["EUR/USD", "GER40.cash", "#US 30", "BRK^B", "50%", "7203"]
    with loaded.cursor() as cur:
        for number, name in enumerate(names):
            cur.execute("INSERT INTO instruments (symbol) VALUES (%s) RETURNING symbol_id", (name,))
            (symbol_id,) = cur.fetchone()
            row = Row(symbol_id=symbol_id, time_us=at(0), bid=float(number + 1))
            TickStore().write(cur, stored([row]), {symbol_id: name})
    loaded.commit()
    run(*names, "--partition", "hive")
    assert len(list(Path("hive").iterdir())) == len(names)
    found = hive_rows(
        """SELECT symbol, bid FROM read_parquet('hive/**/*.parquet', hive_partitioning = true,
           hive_types = {'symbol': VARCHAR}) ORDER BY bid"""
    )
    assert found == [(name, float(number + 1)) for number, name in enumerate(names)]
    schema = {"symbol": polars.String, "date": polars.Date}
    frame = polars.scan_parquet("hive/**/*.parquet", hive_schema=schema).sort("bid").select("symbol", "bid").collect()
    assert frame.rows() == found


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out"),
        (["TSLA"], "--out"),
        (["--out", "x"], "name one or more symbols"),
        (["TSLA", "--all", "--out", "x"], "name one or more symbols"),
        (["TSLA", "--out", "x", "--partition", "y"], "not allowed with"),
        (["TSLA", "--out", "x", "--start", "yesterday"], "argument --start: yesterday is no time"),
        (["TSLA", "--out", "x", "--start", "2026-01-13T17:54:43"], "add Z for UTC"),
        (["TSLA", "--out", "x", "--start", "2026-01-13", "--end", "2026-01-12"], "--end is before --start"),
        (["TSLA", "--out", "x", "--interval", "5m"], "give --what bars"),
        (["TSLA", "--out", "x", "--what", "bars", "--interval", "7m"], "--interval"),
        (["TSLA", "--out", "x", "--what", "bars", "--tz", "Mars/Olympus"], "--tz: no time zone is called"),
        (["TSLA", "--out", "x", "--format", "xml"], "--format"),
        (["TSLA", "--partition", "x", "--format", "csv"], "--partition writes Parquet"),
        (["TSLA", "--partition", "x", "--gzip"], "--partition writes Parquet"),
        (["TSLA", "--partition", "x", "--end", "2026-01-13T17:54:43Z"], "whole days: --end must be midnight"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(run, arguments, message):
    assert message in run(*arguments, status=2)
    assert not Path("x").exists()


def test_an_unknown_symbol_is_named_and_nothing_is_written(loaded, run):
    Path("ticks.csv").write_text("from before")
    said = run("TSLA", "NOSUCH'; DROP TABLE ticks; --", "--out", "ticks.csv", status=1)
    assert said == "tickhub: unknown symbol: NOSUCH'; DROP TABLE ticks; --\n"
    assert Path("ticks.csv").read_text() == "from before"


@pytest.mark.parametrize("target", ["no/such/folder/x.csv", "/proc/x.csv", "."])
def test_a_place_that_cannot_be_written_is_named(loaded, run, target):
    assert re.match(r"tickhub: .* cannot be written: .+", run("TSLA", "--out", target, status=1))


# What goes wrong on the way


def part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@pytest.mark.parametrize("old", [None, b"from before"])
def test_an_export_that_is_killed_leaves_no_half_file_and_can_be_run_again(loaded, database_url, run, tmp_path, old):
    target = tmp_path / "ticks.csv"
    if old is not None:
        target.write_bytes(old)
    with spawn(database_url, "TSLA", "--out", target, halts="15") as process:
        wait_until(lambda: part_of(target).exists() and part_of(target).stat().st_size > 1000, what="some rows")
        process.kill()
    assert (target.read_bytes() if target.exists() else None) == old
    run("TSLA", "--out", target)
    assert from_csv(target.read_bytes()) == in_table(loaded, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["ticks.csv"]


def test_nothing_of_what_a_killed_export_left_gets_into_the_file(loaded, run, tmp_path):
    target = tmp_path / "ticks.csv"
    part_of(target).write_bytes(b"left behind\n" * 100_000)
    run("TSLA", "--out", target)
    assert from_csv(target.read_bytes()) == in_table(loaded, 1)


def test_a_killed_export_of_a_folder_leaves_whole_files_only(loaded, database_url, run, tmp_path):
    with spawn(database_url, "TSLA", "NVDA", "--partition", tmp_path / "hive", halts="15") as process:
        wait_until(lambda: len(list(tmp_path.rglob("*.parquet"))) >= 2, what="some files")
        process.kill()
    whole = list(tmp_path.rglob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in whole) > 0
    run("TSLA", "NVDA", "--partition", tmp_path / "hive")
    expected = len(in_table(loaded, 1)) + len(in_table(loaded, 2))
    assert hive_rows(f"SELECT count(*) FROM read_parquet('{tmp_path}/hive/**/*.parquet')") == [(expected,)]
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_an_export_that_is_interrupted_cleans_up(loaded, database_url, tmp_path):
    target = tmp_path / "ticks.csv"
    with spawn(database_url, "TSLA", "--out", target, halts="15") as process:
        wait_until(lambda: part_of(target).exists() and part_of(target).stat().st_size > 1000, what="some rows")
        process.send_signal(2)
        assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == []


def test_two_exports_do_not_write_one_file(loaded, run, tmp_path):
    target = tmp_path / "ticks.csv"
    with part_of(target).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another export writes it" in run("TSLA", "--out", target, status=1)
    run("TSLA", "--out", target)
    assert from_csv(target.read_bytes()) == in_table(loaded, 1)


@pytest.mark.parametrize("arguments", [["--out", "ticks.csv"], ["--partition", "hive"]])
def test_a_disk_without_room_is_told_and_no_half_file_stays(loaded, database_url, tmp_path, arguments):
    Path("ticks.csv").write_text("from before")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    with spawn(database_url, "TSLA", *arguments, preexec_fn=little_room) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(
        rb"tickhub: .*(ticks\.csv|part-0\.parquet) cannot be written: File too large\n", said.splitlines(True)[-1]
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "ticks.csv"]
    assert Path("ticks.csv").read_text() == "from before"


def test_a_full_device_is_told_and_stays_a_device(loaded, run):
    assert "/dev/full cannot be written: No space left on device" in run("TSLA", "--out", "/dev/full", status=1)
    assert Path("/dev/full").is_char_device()


def test_a_link_goes_on_leading_to_the_file(loaded, run):
    Path("folder").mkdir()
    Path("folder/real.csv").write_text("old")
    Path("link.csv").symlink_to("folder/real.csv")
    run("TSLA", "--out", "link.csv")
    assert Path("link.csv").is_symlink()
    assert from_csv(Path("folder/real.csv").read_bytes()) == in_table(loaded, 1)


def test_a_reader_that_has_read_enough_is_no_error(loaded, database_url):
    with spawn(database_url, "TSLA", "--out", "-", halts="15", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"timestamp,")
        process.stdout.close()
        go_on(process)
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.long
def test_a_database_that_goes_away_on_the_way_is_waited_for(loaded, database_url, tmp_path):
    target = tmp_path / "ticks.csv"
    with spawn(database_url, "TSLA", "--out", target, halts="5,15") as process:
        for size in (1000, 10_000):
            wait_until(
                lambda size=size: part_of(target).exists() and part_of(target).stat().st_size > size, what="rows"
            )
            with loaded.cursor() as cur:
                cur.execute(
                    """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE application_name LIKE '%export%' AND pid <> pg_backend_pid()"""
                )
                assert cur.fetchone() == (1,)
            loaded.rollback()
            go_on(process)
        assert process.wait(60) == 0, process.stderr.read()
    assert from_csv(target.read_bytes()) == in_table(loaded, 1)


def test_a_database_that_stays_away_is_told(monkeypatch, capfd):
    monkeypatch.setattr(export, "TRIES", 2)
    url = "postgresql://tickhub@127.0.0.1:1/tickhub"
    assert main(["export", "TSLA", "--out", "ticks.csv", "--database-url", url]) == 1
    assert re.match(r"tickhub: .*[Cc]onnection refused", capfd.readouterr().err)
    assert not Path("ticks.csv").exists()


def test_ticks_that_arrive_meanwhile_repeat_and_lose_nothing(loaded, run, monkeypatch, database_url):
    """Those before the place of the export are missing, those behind it are in it; every other one is there once."""
    before = in_table(loaded, 1)
    monkeypatch.setattr(export, "PAGE_ROWS", 10)
    read, seq = export.TickSource.read, iter(range(10_000, 20_000))

    def read_and_write(*arguments: Any, **options: Any) -> Any:
        page = read(*arguments, **options)
        with psycopg2.connect(database_url) as other, other.cursor() as cur:
            rows = [Row(time_us=at(day, 1), seq=next(seq), bid=9.0) for day in (-8, 0, 2)]
            TickStore().write(cur, stored(rows), {1: "TSLA"})
        other.close()
        return page

    monkeypatch.setattr(export.TickSource, "read", read_and_write)
    run("TSLA", "--out", "ticks.csv")
    found, after = from_csv(Path("ticks.csv").read_bytes()), in_table(loaded, 1)
    assert len(set(found)) == len(found)
    assert set(before) < set(found) < set(after)
    assert found == [row for row in after if row in set(found)]


def test_a_terminal_sees_how_far_it_is(loaded, database_url, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = ["export", "TSLA", "NVDA", "--out", tmp_path / "x.csv", "--database-url", database_url]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app", *map(str, arguments)]
    with subprocess.Popen(command, env=environ, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        said = b""
        try:
            while more := os.read(ours, 4096):
                said += more
        except OSError:
            pass  # the terminal is gone when the process is
        assert process.wait(60) == 0
    os.close(ours)
    count = len(in_table(loaded, 1)) + len(in_table(loaded, 2))
    shown = f"{count / 1000:.2f}k" if count >= 1000 else str(count)
    assert re.search(rf"100%\|█+\| {re.escape(f'{shown}/{shown}')} \[", said.decode()), said


@pytest.fixture
def many(conn: connection) -> int:
    count = 600_000
    with conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (at(0) / 1e6,))
        columns = stored([Row()])
        for start in range(0, count, 100_000):
            block = columns.take(np.zeros(100_000, np.int64))
            block.time_us = at(0) + np.arange(start, start + 100_000, dtype=np.int64) * 1000
            block.bid = np.random.default_rng(start).uniform(1, 2, 100_000)
            TickStore().write(cur, block, {1: "TSLA"})
    conn.commit()
    return count


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_memory_does_not_grow_with_the_export(many, database_url, name):
    def peak_mb(end_us: int) -> float:
        with spawn(database_url, "TSLA", "--end", end_us, "--format", name, "--out", "x") as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss / 1024

    few, all_of_them = peak_mb(at(0, 120)), peak_mb(at(1))
    assert all_of_them < few + 20
