"""`python -m app delete`: bars and current are then what a clean load of the rest gives, also while flushes go on."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection, cursor

from app.errors import Conflict
from app.storage import deleting, rebuild, ticks_writer
from app.storage.connection import Connection
from app.storage.instruments import Known
from app.storage.range_version import range_version
from app.storage.ticks_writer import TickStore
from tests.batches import BARS, CURRENT
from tests.integration.locking import wait_for_a_waiter
from tests.tick_sets import MIDNIGHT_US, NAN, Row, stored, ticks_of_two_symbols, us_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = {1: "TSLA", 2: "NVDA"}
TSLA, NVDA = Known(1, "TSLA", None, False), Known(2, "NVDA", None, False)
HOUR = 3600


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        for day in (-8, -1, 6):
            open_cursor.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (us_of(day) / 1e6,))
        conn.commit()
        yield open_cursor


def _ticks(seed: int, count: int = 400) -> list[Row]:
    return ticks_of_two_symbols(seed, range(0, 12 * 1800, 1800), count)


def _flush(cur: cursor, ticks: list[Row]) -> None:
    TickStore().write(cur, stored(ticks), NAMES)


def _tables(cur: cursor) -> tuple[list[Any], list[Any]]:
    cur.execute(BARS)
    bars = cur.fetchall()
    cur.execute(CURRENT)
    return bars, cur.fetchall()


def _clean(cur: cursor, ticks: list[Row]) -> tuple[list[Any], list[Any]]:
    """Return what a clean load of these ticks gives, and leave everything as it is."""
    cur.execute("SAVEPOINT clean; DELETE FROM ticks; DELETE FROM bars; DELETE FROM current")
    _flush(cur, ticks)
    found = _tables(cur)
    cur.execute("ROLLBACK TO SAVEPOINT clean")
    return found


def _rest(ticks: list[Row], symbol_id: int, start_us: int, end_us: int) -> list[Row]:
    return [tick for tick in ticks if tick.symbol_id != symbol_id or not start_us <= tick.time_us < end_us]


@pytest.mark.parametrize(
    ("start_us", "end_us"),
    [
        (us_of(-1), us_of(1)),  # whole days
        (us_of(-2, 1800.5), us_of(1, HOUR * 2 + 1)),  # parts of days at both ends
        (us_of(0, 1800), us_of(0, 1801)),  # a second
        (us_of(1, 1800), us_of(9)),  # the newest
        (us_of(-9), us_of(9)),  # all
    ],
)
def test_what_is_left_is_a_clean_load_of_the_rest(
    conn: connection, cur: cursor, own: Connection, start_us: int, end_us: int
) -> None:
    ticks = _ticks(1)
    _flush(cur, ticks)
    expected = _clean(cur, _rest(ticks, 1, start_us, end_us))
    conn.commit()
    asked = deleting.count(own, TSLA, start_us, end_us)
    found = deleting.delete(own, TSLA, start_us, end_us, "desk@here")
    assert found == asked
    assert found.ticks == len(ticks) - len(_rest(ticks, 1, start_us, end_us)) > 0
    assert _tables(cur) == expected
    conn.commit()
    cur.execute("SELECT actor, action, symbol, lower(range), upper(range), rows FROM audit_log")
    moments = [datetime.fromtimestamp(us / 1e6, UTC) for us in (start_us, end_us)]
    assert cur.fetchall() == [("desk@here", "delete", "TSLA", *moments, found.ticks)]
    conn.commit()
    assert deleting.delete(own, TSLA, start_us, end_us, "desk@here").ticks == 0
    assert _tables(cur) == expected


def test_a_price_that_no_other_tick_has_is_gone_and_one_from_before_the_range_is_current_again(
    conn: connection, cur: cursor, own: Connection
) -> None:
    trade = Row(time_us=us_of(0, 60), seq=1, last=9.0, flags=8)
    _flush(cur, [Row(bid=1.5, ask=1.75), Row(time_us=us_of(0, 60), bid=2.5), trade])
    conn.commit()
    assert deleting.delete(own, TSLA, us_of(0, 60), us_of(0, 61), "me").current
    cur.execute("SELECT bid, ask, last, flags, last_updated FROM current")
    assert cur.fetchall() == [(1.5, 1.75, None, 6, datetime.fromtimestamp(MIDNIGHT_US / 1e6, UTC))]


def test_answers_of_the_days_get_another_version_and_others_keep_theirs(
    conn: connection, cur: cursor, own: Connection
) -> None:
    _flush(cur, [Row(bid=1.5), Row(time_us=us_of(0, 60), bid=2.5), Row(time_us=us_of(2), bid=3.5)])
    conn.commit()
    before = [range_version(cur, 1, us_of(day), us_of(day + 1)) for day in (0, 2)]
    conn.commit()
    deleting.delete(own, TSLA, us_of(0, 60), us_of(0, 61), "me")
    after = [range_version(cur, 1, us_of(day), us_of(day + 1)) for day in (0, 2)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_flush_that_merged_its_ticks_is_waited_for_and_what_comes_later_stays(
    conn: connection, cur: cursor, own: Connection, database_url: str
) -> None:
    _flush(cur, [Row(bid=1.5), Row(symbol_id=2, bid=7.0)])
    conn.commit()
    _flush(cur, [Row(time_us=us_of(0, 30), bid=2.5), Row(time_us=us_of(0, 300), bid=3.5)])
    with ThreadPoolExecutor(1) as pool:
        deleted = pool.submit(deleting.delete, own, TSLA, us_of(0, 10), us_of(0, 60), "me")
        wait_for_a_waiter(database_url)
        conn.commit()
        assert deleted.result(timeout=30).ticks == 1
    assert _tables(cur) == _clean(cur, [Row(bid=1.5), Row(symbol_id=2, bid=7.0), Row(time_us=us_of(0, 300), bid=3.5)])


def test_a_flush_in_the_middle_adds_its_ticks_to_what_is_left(
    conn: connection, cur: cursor, own: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [Row(bid=1.5)], [Row(seq=1, bid=2.5), Row(time_us=us_of(0, 90), bid=3.5)]
    _flush(cur, first)
    conn.commit()
    merge = ticks_writer.merge_bars

    # Its ticks are written, its bars are not.
    def merge_late(*arguments: Any) -> None:
        monkeypatch.undo()
        assert deleting.delete(own, TSLA, us_of(-1), us_of(1), "me").ticks == 1
        merge(*arguments)

    monkeypatch.setattr(ticks_writer, "merge_bars", merge_late)
    _flush(cur, second)
    conn.commit()
    assert _tables(cur) == _clean(cur, second)


def test_nothing_is_lost_while_flushes_and_deletions_race(
    conn: connection, cur: cursor, own: Connection, database_url: str
) -> None:
    ticks = _ticks(4, 1500)

    def flush_all(part: int) -> None:
        with closing(psycopg2.connect(database_url)) as flusher, flusher.cursor() as theirs:
            for start in range(part, len(ticks), 60):
                _flush(theirs, ticks[start : start + 60 : 3])
                flusher.commit()

    rounds = 0
    with ThreadPoolExecutor(3) as pool:
        flushers = [pool.submit(flush_all, part) for part in range(3)]
        while not all(flusher.done() for flusher in flushers):
            for number, instrument in enumerate((TSLA, NVDA)):
                deleting.delete(
                    own, instrument, us_of(rounds % 3 - 2, 1800), us_of(rounds % 3 - 1, 3600 * number), "me"
                )
            rounds += 1
        for flusher in flushers:
            flusher.result()
    assert rounds > 1
    left = _stored(cur)
    assert _tables(cur) == _clean(cur, left)


def test_what_is_archived_is_not_deleted_and_of_what_was_dropped_only_whole_days(
    conn: connection, cur: cursor, own: Connection
) -> None:
    _flush(cur, [Row(bid=1.5), Row(time_us=us_of(0, 90), bid=2.5), Row(time_us=us_of(1), bid=3.5)])
    cur.execute("INSERT INTO tick_ranges VALUES (tstzrange(NULL, to_timestamp(%s)), 'dropped')", (us_of(1) / 1e6,))
    cur.execute("DELETE FROM ticks WHERE time < to_timestamp(%s)", (us_of(1) / 1e6,))
    conn.commit()
    with pytest.raises(Conflict, match="name whole days"):
        deleting.delete(own, TSLA, us_of(0, 60), us_of(1), "me")
    before = _tables(cur)
    conn.commit()
    sum(rebuild.rebuild_bars(own, TSLA))
    rebuild.rebuild_current(own, TSLA)
    assert _tables(cur) == before, "bars and prices of dropped ticks stay when they are computed again"
    conn.commit()
    assert deleting.delete(own, TSLA, us_of(0), us_of(1), "me").ticks == 0
    assert _tables(cur) == _clean(cur, [Row(time_us=us_of(1), bid=3.5)])
    cur.execute("UPDATE tick_ranges SET state = 'archiving'")
    conn.commit()
    with pytest.raises(Conflict, match="archive"):
        deleting.delete(own, TSLA, us_of(0), us_of(1), "me")


def test_the_newest_prices_of_dropped_ticks_stay_when_a_later_one_is_deleted(
    conn: connection, cur: cursor, own: Connection
) -> None:
    _flush(cur, [Row(bid=1.5, ask=1.75, last=9.0, flags=8), Row(time_us=us_of(1), bid=2.5)])
    cur.execute("INSERT INTO tick_ranges VALUES (tstzrange(NULL, to_timestamp(%s)), 'dropped')", (us_of(1) / 1e6,))
    cur.execute("DELETE FROM ticks WHERE time < to_timestamp(%s)", (us_of(1) / 1e6,))
    _flush(cur, [Row(time_us=us_of(1, 1), bid=3.5)])
    conn.commit()
    deleting.delete(own, TSLA, us_of(1, 1), us_of(2), "me")
    cur.execute("SELECT bid, ask, last FROM current")
    assert cur.fetchall() == [(2.5, 1.75, 9.0)]


@pytest.mark.parametrize("state", ["dropped", "archived"])
def test_a_price_from_before_what_was_moved_out_of_the_database_is_current_again(
    conn: connection, cur: cursor, own: Connection, state: str
) -> None:
    _flush(cur, [Row(bid=1.5, ask=1.75, last=9.0, flags=8), Row(time_us=us_of(1), bid=2.5)])
    cur.execute(
        "INSERT INTO tick_ranges (range, state, manifest, manifest_sha256, rows, derived_rows, bytes)"
        " VALUES (tstzrange(NULL, to_timestamp(%s)), %s, '-', '-', 1, 0, 1)",
        (us_of(1) / 1e6, state),
    )
    cur.execute("DELETE FROM ticks WHERE time < to_timestamp(%s)", (us_of(1) / 1e6,))
    # The newest trade was a wrong one: the one before it is nowhere but in files, if there, and in its bar.
    _flush(cur, [Row(time_us=us_of(1, 1), bid=3.5, last=900.0, flags=8)])
    conn.commit()
    deleting.delete(own, TSLA, us_of(1, 1), us_of(2), "me")
    cur.execute("SELECT bid, ask, last FROM current")
    assert cur.fetchall() == [(2.5, 1.75, 9.0)]


@pytest.mark.long
def test_the_command_asks_tells_and_counts(conn: connection, cur: cursor, database_url: str, tmp_path: Path) -> None:
    _flush(cur, [Row(bid=1.5), Row(time_us=us_of(0, 90), bid=2.5)])
    conn.commit()
    times = ("--start", str(us_of(0, 60)), "--end", "2023-11-16")

    def command(*words: str, said: str = "") -> tuple[int, str]:
        line = [sys.executable, "-m", "app", "delete", *words, "--database-url", database_url]
        done = subprocess.run(
            [*line, "--data-dir", tmp_path],
            cwd=ROOT, input=said, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    status, told = command("tsla.us", *times, "--dry-run")
    assert (status, "1 ticks" in told, "nothing was deleted" in told) == (0, True, True)
    status, told = command("TSLA", *times, said="no\n")
    assert (status, "nothing was deleted" in told) == (1, True)
    status, told = command("TSLA", "--start", "2023-11-16", "--end", "2023-11-15", "--yes")
    assert (status, "--end must be later" in told) == (1, True)
    status, told = command("NOBODY", *times, "--yes")
    assert (status, "unknown symbol" in told) == (1, True)
    cur.execute("SELECT count(*) FROM ticks")
    assert cur.fetchone() == (2,)
    conn.commit()
    status, told = command("TSLA", *times, said="yes\n")
    assert (status, "deleted of TSLA" in told) == (0, True), told
    cur.execute("SELECT count(*), (SELECT actor LIKE %s FROM audit_log) FROM ticks", (f"{getpass.getuser()}@%",))
    assert cur.fetchone() == (1, True)


def _stored(cur: cursor) -> list[Row]:
    cur.execute(
        "SELECT symbol_id, (extract(epoch FROM time) * 1000000)::bigint, seq, bid, ask, last, spread, volume, flags,"
        " journal_no, (extract(epoch FROM received_at) * 1000000)::bigint FROM ticks"
    )
    return [
        Row(
            symbol_id,
            time_us,
            seq,
            *[NAN if value is None else value for value in prices],
            volume=volume,
            flags=flags,
            journal_no=journal_no,
            received_us=received_us,
        )
        for symbol_id, time_us, seq, *prices, volume, flags, journal_no, received_us in cur.fetchall()
    ]
