"""Bars equal those that DuckDB computes from the stored ticks: its SQL, its order, its time zones, its sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pytest
from psycopg2.extensions import connection, cursor

from app.market.bar_series import PRICES
from app.market.intervals import INTERVALS, Buckets
from app.storage.bar_reader import BARS, BarQuery, read_bars
from app.storage.ticks_writer import TickStore
from tests.tick_sets import NAN, Row, stored

NAMES = {1: "TSLA", 2: "NVDA", 3: "AAPL", 4: "MSFT"}
NOW_US = 4_000_000_000_000_000
CALENDAR = {"1d": "day", "1w": "week", "1M": "month"}
ZONES = (
    "UTC",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Adelaide",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Europe/London",
    "Africa/Monrovia",
)
MOMENTS = (
    "1971-12-31T00:00",  # Monrovia: days begin at 00:44:30, and on 7 January 1972 at midnight
    "1972-01-07T00:44",
    "2011-12-30T10:00",  # Apia has no 30 December
    "2018-11-04T03:00",  # Sao Paulo: no midnight
    "2018-02-18T01:30",  # Sao Paulo: its last hour of Saturday twice
    "2024-03-10T06:00",  # New York: 23 hours
    "2024-11-03T05:00",  # New York: 25 hours, and the end of a week's partition
    "2024-04-06T14:00",  # Adelaide
    "2024-10-05T15:00",
    "2024-12-31T18:15",  # Kathmandu: a new year begins
)

_TICKS = """
    SELECT symbol_id, (extract(epoch FROM time) * 1000000)::bigint AS us, seq, bid, ask, last, volume::text, flags,
           (extract(epoch FROM received_at) * 1000000)::bigint AS received_us, journal_no
    FROM ticks
"""
_RANKED = """
    CREATE TABLE ranked AS
    SELECT *, CASE WHEN bid > 0 THEN bid END AS bid_price, CASE WHEN ask > 0 THEN ask END AS ask_price,
        CASE WHEN bid > 0 AND ask > 0 THEN (bid + ask) / 2 END AS mid_price,
        CASE WHEN last > 0 AND flags & 8 = 8 THEN last END AS last_price,
        CASE WHEN flags & 8 = 8 THEN volume::DECIMAL(38, 8) ELSE 0 END AS traded,
        row_number() OVER (PARTITION BY symbol_id ORDER BY us, CASE WHEN seq >= 0 THEN 0 ELSE 1 END,
            CASE WHEN seq >= 0 THEN seq END, received_us, journal_no) AS place
    FROM ticks
"""
_BARS = """
    SELECT symbol_id, {bucket} AS bucket,
        {one}, sum(traded), sum(CASE WHEN flags & 32 = 32 THEN traded ELSE 0 END),
        sum(CASE WHEN flags & 64 = 64 THEN traded ELSE 0 END), count(*)
    FROM ranked GROUP BY ALL HAVING {close} IS NOT NULL ORDER BY ALL
"""


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        yield open_cursor


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def _feed(random: np.random.Generator, symbol_id: int, count: int) -> list[Row]:
    """Make ticks around the moments: 1 is quoted and traded, 2 has bids only, 3 trades only, 4 is each by turns."""
    identities: set[tuple[int, int]] = set()
    rows = []
    for _ in range(count):
        kind = symbol_id if symbol_id < 4 else int(random.integers(1, 4))
        spread_s = float(random.choice([2, 200, 20_000, 150_000]))
        offset_ms = int(random.normal(0, spread_s) * 1000) if random.random() < 0.8 else int(random.integers(-3, 3))
        time_us = _us(str(random.choice(MOMENTS))) + offset_ms * 1000 + int(random.choice([0, 0, 999]))
        seq = int(random.integers(-40, 40))
        if (time_us, seq) in identities:
            continue
        identities.add((time_us, seq))
        price = round(100 + float(random.normal(0, 3)), 2)
        prices = {
            "bid": price if kind != 3 and random.random() < 0.9 else float(random.choice([NAN, 0.0])),
            "ask": price + 0.25 if kind == 1 and random.random() < 0.9 else NAN,
            "last": round(price + 0.1, 2) if kind == 3 or random.random() < 0.5 else NAN,
        }
        flags = int(random.choice([24, 56, 88, 120])) if kind == 3 or random.random() < 0.3 else 6
        volume = round(float(random.choice([0.0, 0.1, 0.3, 1e-8, 2.5, 700.0, 1234567.12345678])), 8)
        rows.append(Row(symbol_id=symbol_id, time_us=time_us, seq=seq, **prices, volume=volume, flags=flags))
    return rows


def _arrive(cur: cursor, random: np.random.Generator, rows: list[Row]) -> None:
    """Store the rows out of order, in flushes of two journals, some rows again in later flushes."""
    for week in sorted({row.time_us // 604_800_000_000 for row in rows}):
        for day in (0, 6):
            cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", ((week * 7 + day) * 86_400,))
    arriving = [rows[at] for at in random.permutation(len(rows))]
    received_us = _us("2025-06-01T00:00")
    store = TickStore()
    for start in range(0, len(arriving), 150):
        batch = arriving[start : start + 150]
        batch += [arriving[at] for at in random.integers(0, start + len(batch), 20)]
        journal_no = int(random.integers(1, 3))
        received = [received_us + at for at in range(len(batch))]
        received_us += int(random.integers(1, 400))  # of two journals they may overlap
        numbered = [
            Row(**{**vars(row), "journal_no": journal_no, "received_us": us})
            for row, us in zip(batch, received, strict=True)
        ]
        store.write(cur, stored(numbered), NAMES)


def _duck(cur: cursor) -> duckdb.DuckDBPyConnection:
    cur.execute(_TICKS)
    assert cur.description is not None
    ticks = pd.DataFrame(cur.fetchall(), columns=[column.name for column in cur.description])
    duck = duckdb.connect(config={"autoinstall_known_extensions": False})
    duck.register("ticks_frame", ticks)
    # A frame has NaN where there is none.
    duck.execute(
        "CREATE TABLE ticks AS SELECT * REPLACE (CASE WHEN NOT isnan(bid) THEN bid END AS bid,"
        " CASE WHEN NOT isnan(ask) THEN ask END AS ask, CASE WHEN NOT isnan(last) THEN last END AS last)"
        " FROM ticks_frame"
    )
    duck.execute(_RANKED)
    return duck


def _expected(duck: duckdb.DuckDBPyConnection, interval: str, zone: str, price: str) -> dict[int, list[Any]]:
    """Return the bars by symbol as DuckDB computes them; a bucket is its start or, in a zone, its first date."""

    def one(part: str) -> str:
        def of(side: str) -> str:
            value = f"{side}_price"
            return {
                "open": f"arg_min({value}, place) FILTER ({value} IS NOT NULL)",
                "high": f"max({value})",
                "low": f"min({value})",
                "close": f"arg_max({value}, place) FILTER ({value} IS NOT NULL)",
            }[part]

        return f"coalesce({of('bid')}, {of('last')})" if price == "bid" else of(price)

    if interval in CALENDAR:
        duck.execute("SET timezone = 'UTC'")
        bucket = f"date_trunc('{CALENDAR[interval]}', timezone('{zone}', make_timestamptz(us)))::DATE"
    else:
        count, unit = int(interval[:-1]), {"s": "second", "m": "minute", "h": "hour"}[interval[-1]]
        bucket = f"epoch_us(time_bucket(INTERVAL '{count} {unit}', make_timestamp(us)))"
    parts = ", ".join(one(part) for part in ("open", "high", "low", "close"))
    bars: dict[int, list[Any]] = {symbol_id: [] for symbol_id in NAMES}
    for symbol_id, start, *values in duck.execute(
        _BARS.format(bucket=bucket, one=parts, close=one("close"))
    ).fetchall():
        bars[symbol_id].append((start, *(float(value) for value in values[:7]), values[7]))
    return bars


def _first_date(interval: str, zone: str, start_us: int) -> date:
    """Return the date that names a bucket: a Monday or a first that was left out has no moment of its own."""
    day = datetime.fromtimestamp(start_us // 1_000_000, ZoneInfo(zone)).date()
    if interval == "1d":
        return day
    return day - timedelta(day.weekday()) if interval == "1w" else day.replace(day=1)


def _found(cur: cursor, symbol_id: int, interval: str, zone: str, price: str, pages: int | None = None) -> list[Any]:
    query = BarQuery(Buckets(interval, zone), price, None, None, fill=False, now_us=NOW_US)
    rows: list[tuple[Any, ...]] = []
    after_us = None
    while True:
        page = read_bars(
            cur, symbol_id, False, query, after_us=after_us, descending=pages is not None, max_bars=pages or 100_000
        )
        assert [field.name for field in BARS[-2:]] == ["ticks", "complete"]
        rows += zip(*(np.asarray(values).tolist() for values in page.table.columns[:-1]), strict=True)
        if not page.more:
            break
        after_us = rows[-1][0]
    if pages is not None:
        rows.reverse()
    if interval in CALENDAR:
        return [(_first_date(interval, zone, start), *rest) for start, *rest in rows]
    return rows


def _compare(cur: cursor, seed: int, count: int, symbols_each: int) -> int:
    """Compare the bars of every interval, zone and price, of so many symbols in turn; return how many."""
    random = np.random.default_rng(seed)
    rows = [row for symbol_id in NAMES for row in _feed(random, symbol_id, count)]
    _arrive(cur, random, rows)
    zoned = [(interval, zone) for interval in INTERVALS for zone in (ZONES if interval in CALENDAR else ("UTC",))]
    compared = 0
    with closing(_duck(cur)) as duck:
        assert duck.execute("SELECT count(*) FROM ticks").fetchall() == [(len(rows),)]
        for turn, (interval, zone) in enumerate(zoned):
            for place, price in enumerate(PRICES):
                expected = _expected(duck, interval, zone, price)
                for more in range(symbols_each):
                    symbol_id = 1 + (turn + place + more) % len(NAMES)
                    found = _found(cur, symbol_id, interval, zone, price)
                    assert found == expected[symbol_id], (symbol_id, interval, zone, price)
                    compared += len(found)
    return compared


@pytest.mark.long
def test_bars_equal_those_that_duckdb_computes(cur: cursor) -> None:
    assert _compare(cur, seed=1, count=300, symbols_each=1) > 3_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 4))
def test_many_bars_equal_those_that_duckdb_computes(cur: cursor, seed: int) -> None:
    assert _compare(cur, seed, count=3_000, symbols_each=4) > 50_000


@pytest.mark.long
def test_pages_backwards_equal_those_that_duckdb_computes(cur: cursor) -> None:
    random = np.random.default_rng(3)
    _arrive(cur, random, [row for symbol_id in NAMES for row in _feed(random, symbol_id, 500)])
    with closing(_duck(cur)) as duck:
        for interval in INTERVALS:
            for zone in ("UTC", "Asia/Kathmandu", "Africa/Monrovia") if interval in CALENDAR else ("UTC",):
                for price in ("bid", "last"):
                    expected = _expected(duck, interval, zone, price)
                    for symbol_id, pages in ((1, 7), (3, 50), (4, 1000)):
                        found = _found(cur, symbol_id, interval, zone, price, pages)
                        assert found == expected[symbol_id], (symbol_id, interval, zone, price)
