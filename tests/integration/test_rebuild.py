"""`python -m app rebuild`: what is computed again equals what the flushes made, also while they go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection, cursor

from app.storage import rebuild
from app.storage.connection import Connection
from app.storage.instruments import Known
from app.storage.ticks_writer import TickStore
from tests.batches import BARS, CURRENT
from tests.integration.locking import somebody_waits
from tests.tick_sets import Row, stored, ticks_of_two_symbols, us_of
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NAMES = {1: "TSLA", 2: "NVDA"}
TSLA, NVDA = Known(1, "TSLA", None, False), Known(2, "NVDA", None, False)


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        for day in range(-8, 9):
            open_cursor.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (us_of(day) / 1e6,))
        conn.commit()
        yield open_cursor


def _ticks(seed: int, count: int = 400) -> list[Row]:
    return ticks_of_two_symbols(seed, range(200), count)


def _flush(cur: cursor, ticks: list[Row]) -> None:
    TickStore().write(cur, stored(ticks), NAMES)


def _tables(cur: cursor) -> tuple[list[Any], list[Any]]:
    cur.execute(BARS)
    bars = cur.fetchall()
    cur.execute(CURRENT)
    return bars, cur.fetchall()


def _rebuild(own: Connection) -> int:
    rows = 0
    for instrument in (TSLA, NVDA):
        rows += sum(rebuild.rebuild_bars(own, instrument))
        rebuild.rebuild_current(own, instrument)
    return rows


def test_what_is_computed_again_equals_what_the_flushes_made(
    conn: connection, cur: cursor, own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "BLOCK_ROWS", 7)
    ticks = _ticks(1)
    for start in range(0, len(ticks), 50):
        _flush(cur, ticks[start : start + 50])
    expected = _tables(cur)
    cur.execute("DELETE FROM bars WHERE mod(extract(epoch FROM time)::bigint, 7) = 0")
    cur.execute("UPDATE bars SET bid_high = 99, ticks = 1, volume = 5, mid_open = NULL")
    cur.execute(
        "INSERT INTO bars (symbol_id, resolution, time, ticks, volume, buy_volume, sell_volume)"
        " VALUES (1, 60, '2020-01-01', 1, 0, 0, 0), (2, 86400, '2100-01-01', 1, 0, 0, 0)"
    )
    cur.execute("UPDATE current SET bid = 99, bid_key = '\\xff', last_updated = '2100-01-01', tick_key = '\\xff'")
    conn.commit()
    assert _tables(cur) != expected
    conn.commit()
    assert _rebuild(own) == len(ticks)
    assert _tables(cur) == expected


def test_prices_that_do_not_count_do_not_become_current_again(conn: connection, cur: cursor, own: Connection) -> None:
    _flush(cur, [Row(bid=1.5, ask=2.5), Row(seq=1, bid=-1.0, ask=0.0, last=9.0), Row(symbol_id=2, bid=0.0)])
    expected = _tables(cur)
    conn.commit()
    _rebuild(own)
    assert _tables(cur) == expected


def test_a_symbol_without_ticks_has_neither_bars_nor_current(conn: connection, cur: cursor, own: Connection) -> None:
    cur.execute("INSERT INTO current (symbol, bid, tick_key) VALUES ('TSLA', 1, '')")
    cur.execute("INSERT INTO bars VALUES (1, 3600, '2020-01-01', 1, 0, 0, 0)")
    conn.commit()
    assert _rebuild(own) == 0
    assert _tables(cur) == ([], [])


def test_a_flush_that_merged_its_ticks_already_is_waited_for(
    conn: connection, cur: cursor, own: Connection, database_url: str
) -> None:
    """It moved one bar on and made another: the first may be waited for by its row, the second only by a lock."""
    _flush(cur, [Row(bid=1.5)])
    conn.commit()
    _flush(cur, [Row(seq=1, bid=2.5), Row(time_us=us_of(0, 300), bid=3.5, last=1.0, volume=2.0, flags=56)])
    with ThreadPoolExecutor(1) as pool:
        rebuilt = pool.submit(_rebuild, own)
        wait_until(lambda: somebody_waits(database_url))
        expected = _tables(cur)
        conn.commit()
        assert rebuilt.result(timeout=30) == 3
    assert _tables(cur) == expected


def test_a_flush_that_did_not_merge_its_ticks_yet_merges_them_afterwards(
    conn: connection, cur: cursor, own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = _ticks(3)
    _flush(cur, ticks)
    expected = _tables(cur)
    conn.rollback()
    _flush(cur, ticks[::2])
    conn.commit()

    # The rebuild runs in the middle of the second flush: its ticks are written, its bars are not.
    def merge_late(*arguments: Any) -> None:
        monkeypatch.undo()
        _rebuild(own)
        merge(*arguments)

    from app.storage import ticks_writer

    merge = ticks_writer.merge_bars
    monkeypatch.setattr(ticks_writer, "merge_bars", merge_late)
    _flush(cur, ticks[1::2])
    conn.commit()
    assert _tables(cur) == expected


def test_nothing_is_lost_while_flushes_and_rebuilds_race(
    conn: connection, cur: cursor, own: Connection, database_url: str
) -> None:
    ticks = _ticks(4, 1500)

    def flush_all(part: int) -> None:
        with closing(psycopg2.connect(database_url)) as flusher, flusher.cursor() as theirs:
            for start in range(part, len(ticks), 60):
                _flush(theirs, ticks[start : start + 60 : 3])
                flusher.commit()

    with ThreadPoolExecutor(3) as pool:
        flushers = [pool.submit(flush_all, part) for part in range(3)]
        rounds = _rebuild_until(own, flushers)
    assert rounds > 0
    raced = _tables(cur)
    cur.execute("TRUNCATE ticks, bars, current")
    _flush(cur, ticks)
    assert raced == _tables(cur)


def _rebuild_until(own: Connection, flushers: list[Future[None]]) -> int:
    rounds = 0
    while not all(flusher.done() for flusher in flushers):
        _rebuild(own)
        rounds += 1
    for flusher in flushers:
        flusher.result()
    return rounds


def _command(url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "rebuild", *words, "--database-url", url, "--data-dir", str(home)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.long
def test_the_command_computes_all_or_one_symbol(
    conn: connection, cur: cursor, database_url: str, tmp_path: Path
) -> None:
    _flush(cur, _ticks(5))
    expected = _tables(cur)
    cur.execute("UPDATE current SET bid = 99; UPDATE bars SET ticks = 0")
    cur.execute("INSERT INTO current (symbol, bid) VALUES ('GONE', 1)")
    conn.commit()
    for words in (["current"], ["bars", "--symbol", "tsla.us"], ["bars", "--symbol", "NVDA"]):
        done = _command(database_url, tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert "computed" in done.stdout
    assert _tables(cur) == expected


def test_an_unknown_symbol_is_said_in_one_line(database_url: str, tmp_path: Path) -> None:
    done = _command(database_url, tmp_path, "bars", "--symbol", "FOO")
    assert done.returncode == 1
    assert done.stderr == "tickhub: unknown symbol: FOO\n"
