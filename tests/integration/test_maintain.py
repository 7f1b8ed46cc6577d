"""`python -m app maintain`: all of it beside a flush that is open, and nothing that answers are made of changes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.storage import maintenance
from app.storage.connection import Connection
from app.storage.range_version import range_version
from tests.batches import (
    BARS,
    CURRENT,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    new_sink,
    rows_of,
    write_all,
)

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = [f"S{number}" for number in range(20)]
DAY = datetime(2026, 1, 13, tzinfo=UTC)


@pytest.fixture
def minutes(conn: connection, database_url: str) -> None:
    """Store four hours of twenty symbols, minute by minute, as they come."""
    execute(conn, *[f"INSERT INTO instruments (symbol) VALUES ('{name}')" for name in SYMBOLS])
    sink, feeder = new_sink(database_url), Feeder()
    for minute in range(240):
        at = int((DAY + timedelta(hours=9, minutes=minute)).timestamp() * 1e6)
        batch = [Tick(symbol=name, time_us=at + n, bid=10 + minute % 7) for n, name in enumerate(SYMBOLS)]
        write_all(sink, feeder, batch)
    sink.close()


def pages(conn: connection, symbol: str) -> int:
    [(count,)] = rows_of(
        conn,
        "SELECT count(DISTINCT (bars.ctid::text::point)[0]) FROM bars JOIN instruments USING (symbol_id)"
        " WHERE symbol = %s AND resolution = 60",
        (symbol,),
    )
    conn.commit()
    return int(count)


def test_a_finished_days_bars_are_written_together_and_stay_what_they_are(
    conn: connection, own: Connection, minutes: None, database_url: str
) -> None:
    before = rows_of(conn, BARS), rows_of(conn, CURRENT)
    [(symbol_id,)] = rows_of(conn, "SELECT symbol_id FROM instruments WHERE symbol = 'S3'")
    with conn.cursor() as cur:
        version = range_version(cur, symbol_id, None, None)
    conn.commit()
    scattered = pages(conn, "S3")
    now = DAY + timedelta(days=1, hours=3)
    assert list(maintenance.order_bars(own, 7, now - timedelta(days=1))) == [], "the day is not finished"
    assert len(list(maintenance.order_bars(own, 7, now))) == len(SYMBOLS)
    assert pages(conn, "S3") * 3 < scattered
    assert list(maintenance.order_bars(own, 7, now)) == []
    assert (rows_of(conn, BARS), rows_of(conn, CURRENT)) == before
    with conn.cursor() as cur:
        assert range_version(cur, symbol_id, None, None) == version
    conn.commit()
    # A late tick of that day.
    late = int((DAY + timedelta(hours=9, minutes=7)).timestamp() * 1e6) + 777
    sink = new_sink(database_url)
    write_all(sink, Feeder(), [Tick(symbol="S3", time_us=late, bid=99.0)])
    sink.close()
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_everything_goes_on_beside_an_open_flush_and_a_reader(
    conn: connection, own: Connection, minutes: None, database_url: str
) -> None:
    execute(conn, "UPDATE bars SET version = version", "UPDATE bars SET version = version")
    with closing(psycopg2.connect(database_url)) as flush, flush.cursor() as cur:
        cur.execute("SELECT * FROM tick_ranges FOR SHARE")
        cur.execute("UPDATE bars SET version = version WHERE resolution = 86400")
        cur.execute("UPDATE current SET flags = flags")
        done = {what.name for what in maintenance.vacuum(own) if what.skipped is None}
        assert {"bars", "current", "ticks_20260112"} <= done
        done = {what.name for what in maintenance.analyze(own) if what.skipped is None}
        assert {"bars", "ticks", "ticks_20260112"} <= done
    before = rows_of(conn, "SELECT relfilenode FROM pg_class WHERE relname = 'bars_pkey'")
    conn.commit()
    assert {what.name for what in maintenance.reindex(own, 0) if what.skipped is None} >= {"bars_pkey"}
    assert rows_of(conn, "SELECT relfilenode FROM pg_class WHERE relname = 'bars_pkey'") != before
    assert rows_of(conn, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_what_a_killed_reindex_left_is_removed(conn: connection, own: Connection) -> None:
    execute(conn, "CREATE INDEX bars_pkey_ccnew ON bars (symbol_id)")
    execute(conn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'bars_pkey_ccnew'::regclass")
    _, troubles = maintenance.health(own)
    assert troubles == ["1 indexes are not valid: reindex"]
    assert [done.what for done in maintenance.reindex(own)] == ["drop"]
    assert maintenance.health(own)[1] == []


def test_partitions_are_there_before_a_flush_needs_them(conn: connection, own: Connection) -> None:
    now = datetime(2026, 3, 30, 12, tzinfo=UTC)
    execute(conn, "SELECT ensure_month_partition('system_metrics', '2026-03-01')")
    names = [done.name for done in maintenance.partitions(own, now)]
    assert len(names) == maintenance.WEEKS_AHEAD + 2
    assert "system_metrics, 2026-04" in names
    assert rows_of(conn, "SELECT to_regclass('ticks_20260420') IS NOT NULL") == [(True,)]
    conn.commit()
    assert list(maintenance.partitions(own, now)) == []


def test_one_run_at_a_time(database_url: str) -> None:
    first, second = (Connection(lambda: database_url, 5, 60, "test") for _ in range(2))
    with maintenance.alone(first):
        with pytest.raises(maintenance.AnotherRun), maintenance.alone(second):
            pass
        # The lock lives through a transaction and an error of the one that has it.
        with pytest.raises(maintenance.AnotherRun), maintenance.alone(second):
            pass
    with maintenance.alone(second):
        pass


@pytest.mark.long
def test_the_command_does_all_and_tells(conn: connection, minutes: None, database_url: str, tmp_path: Path) -> None:
    def command(*words: str) -> tuple[int, str]:
        line = [sys.executable, "-m", "app", "maintain", *words, "--database-url", database_url, "--data-dir", tmp_path]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    status, told = command()
    assert status == 0, told
    for words in ("partitions: ", "everything is kept", "vacuum: ", "analyze: ", "reindex: ", "health: size"):
        assert words in told
    status, told = command("retention", "--keep-days-ticks", "1", "--allow-empty")
    assert (status, "240" in told or "4,800 rows in 1 partitions dropped" in told) == (0, True), told
    assert rows_of(conn, "SELECT count(*) FROM ticks") == [(0,)]
    assert command("retention", "--keep-days-bars", "1")[0] == 2
    assert command("statistics")[0] == 0
