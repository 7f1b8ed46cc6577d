"""Pages of ticks from a real database: in the order of the keys, whole, wherever the ticks lie."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg2.extensions import connection, cursor

from app.storage.partitions import WEEK_US
from app.storage.tick_reader import TickKey, read_ticks
from app.storage.ticks_writer import TickStore
from tests.tick_sets import MIDNIGHT_US, Row, key_of, stored

DAY_US = 86_400_000_000


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        yield open_cursor


def _store(cur: cursor, rows: list[Row]) -> None:
    for time_us in {row.time_us for row in rows}:
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (time_us / 1e6,))
    TickStore().write(cur, stored(rows), {1: "TSLA", 2: "NVDA"})


def _pages(
    cur: cursor,
    start_us: int | None = None,
    end_us: int | None = None,
    *,
    descending: bool = False,
    page_rows: int = 3,
) -> list[tuple[int, int]]:
    """Read all pages; return (time, seq) of every tick."""
    found: list[tuple[int, int]] = []
    after: TickKey | None = None
    while True:
        page = read_ticks(cur, 1, start_us, end_us, after=after, descending=descending, max_rows=page_rows)
        times, seqs = page.table.columns[0], page.table.columns[9]
        found += [(int(time_us or 0), int(seq or 0)) for time_us, seq in zip(times, seqs, strict=True)]
        if not page.more:
            return found
        assert len(page.table) == page_rows
        assert page.last_key is not None
        after = TickKey.decode(page.last_key.encode())


def _spread_out() -> list[Row]:
    """Ticks of one symbol in several weeks, some days full, some with one tick; another symbol between them."""
    rows = [Row(time_us=MIDNIGHT_US + day * DAY_US, seq=seq, bid=1.0) for day in (0, 1, 8, 9, 40) for seq in range(4)]
    rows += [Row(time_us=MIDNIGHT_US + day * DAY_US + 5, seq=0, bid=1.0) for day in (0, 20, 21, 39)]
    rows += [Row(symbol_id=2, time_us=MIDNIGHT_US + day * DAY_US, seq=0, bid=1.0) for day in range(41)]
    return rows


@pytest.mark.parametrize("page_rows", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_hold_every_tick_of_the_range_once(cur: cursor, page_rows: int, descending: bool) -> None:
    rows = _spread_out()
    _store(cur, rows)
    own = sorted((row.time_us, row.seq) for row in rows if row.symbol_id == 1)
    for start_us in (None, MIDNIGHT_US, MIDNIGHT_US + 5, MIDNIGHT_US + 9 * DAY_US, MIDNIGHT_US + 15 * DAY_US):
        for end_us in (None, MIDNIGHT_US + 5, MIDNIGHT_US + 21 * DAY_US + 6, MIDNIGHT_US + 40 * DAY_US):
            wanted = [tick for tick in own if (start_us or 0) <= tick[0] < (end_us or 1 << 62)]
            found = _pages(cur, start_us, end_us, descending=descending, page_rows=page_rows)
            assert found == (wanted[::-1] if descending else wanted)


@pytest.mark.parametrize("descending", [False, True])
def test_ticks_of_one_time_come_by_given_seq_and_then_by_arrival(cur: cursor, descending: bool) -> None:
    derived = [Row(seq=-seq, received_us=MIDNIGHT_US + us, journal_no=no, bid=1.0) for seq, us, no in _ARRIVALS]
    rows = [*derived, *(Row(seq=seq, received_us=MIDNIGHT_US + 99 - seq, bid=1.0) for seq in (0, 3, 7))]
    _store(cur, rows)
    wanted = [(row.time_us, row.seq) for row in sorted(rows, key=key_of)]
    for page_rows in range(1, len(rows) + 1):
        found = _pages(cur, descending=descending, page_rows=page_rows)
        assert found == (wanted[::-1] if descending else wanted)


_ARRIVALS = [(1, 30, 1), (2, 10, 2), (3, 10, 1), (9, 20, 1), (4, 40, 2)]
"""Identity, microsecond of arrival and journal of ticks that came without seq."""


@pytest.mark.parametrize("descending", [False, True])
def test_bars_that_outlived_their_ticks_hide_none(cur: cursor, descending: bool) -> None:
    rows = _spread_out()
    _store(cur, rows)
    low_us, high_us = MIDNIGHT_US // WEEK_US * WEEK_US, MIDNIGHT_US + 21 * DAY_US
    if descending:
        low_us, high_us = high_us, MIDNIGHT_US + 60 * DAY_US
    cur.execute(
        "DELETE FROM ticks WHERE time >= to_timestamp(%s) AND time < to_timestamp(%s)", (low_us / 1e6, high_us / 1e6)
    )
    left = sorted((row.time_us, row.seq) for row in rows if row.symbol_id == 1 and not low_us <= row.time_us < high_us)
    for page_rows in (1, 3, 4, 100):
        assert _pages(cur, descending=descending, page_rows=page_rows) == (left[::-1] if descending else left)


def test_a_symbol_without_ticks_has_an_empty_page(cur: cursor) -> None:
    _store(cur, [Row(symbol_id=2, bid=1.0)])
    page = read_ticks(cur, 1, None, None, after=None, descending=False, max_rows=10)
    assert (len(page.table), page.last_key, page.more) == (0, None, False)


def test_a_page_of_a_long_history_is_planned_for_the_weeks_that_it_lies_in(cur: cursor) -> None:
    rows = [Row(time_us=MIDNIGHT_US + week * WEEK_US, seq=seq, bid=1.0) for week in range(30) for seq in range(3)]
    _store(cur, rows)
    read_ticks(cur, 1, None, None, after=None, descending=False, max_rows=1)
    cur.execute(
        "SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class c ON c.oid = relation"
        " WHERE pid = pg_backend_pid() AND c.relname ~ '^ticks_[0-9]+$' AND mode = 'AccessShareLock'"
    )
    found = cur.fetchone()
    assert found is not None
    assert found[0] <= 2
