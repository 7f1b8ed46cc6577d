"""Bars and `current` in the database: the same bytes, in whatever batches and order the ticks came."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection, cursor

from app.market.bars import aggregate, newest
from app.storage.bars_sql import merge_bars, merge_current
from tests.batches import BARS, CURRENT
from tests.integration.locking import wait_for_a_waiter
from tests.tick_sets import MIDNIGHT_US, NAN, Row, rows, stored

NAMES = {1: "TSLA", 2: "NVDA", 3: "AAPL"}

# The database is one for all examples; each clears it and rolls back.
PROPERTY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _load(cur: cursor, batches: list[list[Row]]) -> tuple[list[Any], list[Any]]:
    cur.execute("TRUNCATE bars, current")
    for batch in batches:
        ticks = stored(batch)
        merge_bars(cur, aggregate(ticks))
        merge_current(cur, newest(ticks), NAMES)
    cur.execute(BARS)
    bars = cur.fetchall()
    cur.execute(CURRENT)
    return bars, cur.fetchall()


@st.composite
def _batches(draw: st.DrawFn) -> tuple[list[Row], list[list[Row]]]:
    """Draw ticks, and the same ticks in any order cut into any batches."""
    ticks = draw(rows())
    order = draw(st.permutations(ticks))
    cuts = sorted(draw(st.sets(st.integers(0, len(ticks)), max_size=6)) | {0, len(ticks)})
    return ticks, [list(order[a:b]) for a, b in pairwise(cuts)]


@pytest.mark.long
@PROPERTY
@given(_batches())
def test_any_batches_in_any_order_leave_what_one_ordered_load_leaves(
    conn: connection, drawn: tuple[list[Row], list[list[Row]]]
) -> None:
    """As text: floats print so that they read back bit for bit, -0 unlike 0."""
    ticks, batches = drawn
    with conn.cursor() as cur:
        assert _load(cur, batches) == _load(cur, [sorted(ticks, key=lambda row: (row.time_us, row.seq))])
    conn.rollback()


def test_a_bar_holds_what_its_ticks_say(conn: connection) -> None:
    minute = MIDNIGHT_US + 60_000_000
    ticks = [
        Row(time_us=minute, bid=10.0, ask=10.5),
        Row(time_us=minute, seq=1, bid=12.0, ask=11.5),
        Row(time_us=minute + 1, last=11.25, volume=0.3, flags=56),
        Row(time_us=minute + 2, bid=9.0, flags=2),
    ]
    with conn.cursor() as cur:
        _load(cur, [[tick] for tick in reversed(ticks)])
        cur.execute("SELECT extract(epoch FROM time)::bigint, ticks FROM bars WHERE resolution = 60")
        assert cur.fetchall() == [(minute // 10**6, 4)]
        cur.execute(
            "SELECT volume::text, buy_volume::text, sell_volume::text FROM bars WHERE resolution = 60"
        )
        assert cur.fetchall() == [("0.30000000", "0.30000000", "0.00000000")]
        cur.execute("SELECT bid_open, bid_high, bid_low, bid_close, ask_open, ask_close FROM bars")
        assert cur.fetchall() == [(10.0, 12.0, 9.0, 9.0, 10.5, 11.5)] * 3
        cur.execute("SELECT mid_open, mid_close, last_open, last_close, spread_min, spread_max FROM bars")
        assert cur.fetchall() == [(10.25, 11.75, 11.25, 11.25, -0.5, 0.5)] * 3
        cur.execute("SELECT DISTINCT resolution FROM bars ORDER BY 1")
        assert cur.fetchall() == [(60,), (3600,), (86400,)]


def test_current_keeps_the_newest_of_each_price_and_never_moves_backwards(conn: connection) -> None:
    first, second, third = (MIDNIGHT_US + us for us in (1, 2, 3))
    with conn.cursor() as cur:
        _load(
            cur,
            [
                [Row(time_us=third, ask=3.5, spread=7.0, flags=4)],
                [Row(time_us=second, bid=2.0, ask=2.5, flags=6)],
                [Row(time_us=first, bid=1.0, last=1.25, volume=5.0, flags=56)],
            ],
        )
        cur.execute(
            "SELECT symbol, bid, ask, last, spread, volume, buy_volume, flags,"
            " (extract(epoch FROM last_updated) * 1000000)::bigint FROM current"
        )
        assert cur.fetchall() == [("TSLA", 2.0, 3.5, 1.25, 7.0, 0.0, 0.0, 4, third)]


def test_rows_are_locked_in_the_order_of_the_symbols_name(conn: connection, database_url: str) -> None:
    """NVDA has the smaller id here, AAPL the smaller name: who waits for AAPL does not hold NVDA yet."""
    ids = {1: "NVDA", 2: "AAPL"}
    both = newest(stored([Row(symbol_id=1, bid=1.0, ask=1.0), Row(symbol_id=2, bid=1.0, ask=1.0)]))
    with conn.cursor() as cur:
        merge_current(cur, both, ids)
    conn.commit()

    def merge_elsewhere() -> None:
        with closing(psycopg2.connect(database_url)) as other, other.cursor() as theirs:
            theirs.execute("SET lock_timeout = '30s'")
            merge_current(theirs, both, ids)

    with ThreadPoolExecutor(1) as pool, conn.cursor() as cur:
        cur.execute("SELECT FROM current WHERE symbol = 'AAPL' FOR UPDATE")
        merged = pool.submit(merge_elsewhere)
        try:
            wait_for_a_waiter(database_url)
            cur.execute("SELECT FROM current WHERE symbol = 'NVDA' FOR UPDATE NOWAIT")
            assert cur.rowcount == 1
        finally:
            conn.rollback()
        merged.result(timeout=30)


def test_a_symbol_name_with_quotes_and_braces_goes_in_as_it_is(conn: connection) -> None:
    name = "a'b\"c\\{d},NULL"
    with conn.cursor() as cur:
        merge_current(cur, newest(stored([Row(bid=1.0, ask=NAN)])), {1: name})
        cur.execute("SELECT symbol, bid, ask FROM current")
        assert cur.fetchall() == [(name, 1.0, None)]


def test_nothing_to_merge_is_nothing_done(conn: connection) -> None:
    with conn.cursor() as cur:
        assert _load(cur, [[]]) == ([], [])


def test_prices_keep_every_bit(conn: connection) -> None:
    prices = np.random.default_rng(7).lognormal(0, 12, 200)
    ticks = [Row(time_us=MIDNIGHT_US + 60_000_000 * at, bid=float(price)) for at, price in enumerate(prices)]
    with conn.cursor() as cur:
        _load(cur, [ticks])
        cur.execute("SELECT bid_open FROM bars WHERE resolution = 60 ORDER BY time")
        assert [row[0] for row in cur.fetchall()] == prices.tolist()


def test_moving_a_bar_on_touches_none_of_its_indexes(conn: connection) -> None:
    with conn.cursor() as cur:
        _load(cur, [[Row(seq=seq, bid=1.0 + seq)] for seq in range(4)])
        cur.execute(
            "SELECT pg_stat_get_xact_tuples_updated('bars'::regclass),"
            " pg_stat_get_xact_tuples_hot_updated('bars'::regclass)"
        )
        assert cur.fetchone() == (9, 9)
