"""The history into a fresh database, in bulk: what it would hold had every tick come in over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg2
from psycopg2.extensions import connection as Connection

from app.market.bars import BarRows, SideRows, aggregate, newest
from app.market.columns import StoredTicks
from app.market.flags import sides
from app.storage.bars_sql import merge_bars, merge_current
from app.storage.copy_rows import copy_in, timestamps
from app.storage.schema import migrate
from app.storage.ticks_writer import with_spread
from tests.bench.client import BenchError
from tests.bench.history import DAYS, bars_before, start_us, ticks_by_day
from tests.bench.rows import MARKET, SYMBOLS

COPY_ROWS = 500_000
_LEDGER = "INSERT INTO ingest_log (journal_id, next_row, stored) VALUES ('history of the bench', %s, %s)"
_COUNTS = """
    SELECT i.symbol, t.ticks, b.ticks, t.newest, c.last_updated
    FROM instruments i
    JOIN current c USING (symbol)
    JOIN (SELECT symbol_id, count(*) AS ticks, max(time) AS newest FROM ticks GROUP BY symbol_id) t USING (symbol_id)
    JOIN (SELECT symbol_id, sum(ticks) FILTER (WHERE resolution = 60)::bigint AS ticks FROM bars
          WHERE time >= to_timestamp(%s) GROUP BY symbol_id) b USING (symbol_id)
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the database holds; ticks: how many, by symbol."""

    ticks: dict[str, int]
    symbol_ids: dict[str, int]
    bars: int
    seconds: float


def load(url: str, ticks: int, minutes_share: float, progress: Callable[[str], None]) -> Loaded:
    """Migrate the database and fill it; raises BenchError when ticks, bars and current do not agree afterwards.

    minutes_share: the part of the year before the ticks that has minute and hour bars too.
    """
    begun_s = time.monotonic()
    migrate(url)
    conn = psycopg2.connect(url)
    try:
        with conn.cursor() as cur:
            digits = [(places, name) for name, _, places, _ in MARKET]
            cur.executemany("UPDATE instruments SET digits = %s WHERE symbol = %s", digits)
            cur.execute("SELECT symbol, symbol_id FROM instruments")
            ids = dict(cur.fetchall())
        conn.commit()
        with conn.cursor() as cur:
            for columns in bars_before(ids, minutes_share):
                copy_in(cur, "bars", columns)
        conn.commit()
        for day, rows in zip(DAYS, ticks_by_day(ticks, ids), strict=True):
            _store_day(conn, rows, ids, start_us(day))
            progress(f"{day}: {len(rows):,} ticks")
        with conn.cursor() as cur:
            cur.execute(_LEDGER, (ticks, ticks))
        conn.commit()
        # As autovacuum does it within minutes of a load; here nobody waits for it.
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute("VACUUM (ANALYZE) ticks")
            cur.execute("VACUUM (ANALYZE) bars")
            cur.execute("VACUUM (ANALYZE) current")
            cur.execute("SELECT count(*) FROM bars")
            [(bars,)] = cur.fetchall()
        counts = _checked(conn, ticks)
    finally:
        conn.close()
    return Loaded(counts, ids, bars, time.monotonic() - begun_s)


def _store_day(conn: Connection, ticks: StoredTicks, ids: dict[str, int], day_us: int) -> None:
    ticks.spread = with_spread(ticks, {ids[name]: places for name, _, places, _ in MARKET})
    names = {number: name for name, number in ids.items()}
    with conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (day_us / 1e6,))
        conn.commit()
        # In order of time, all symbols mixed, as flushes leave them: a symbol's ticks lie far apart on the disk.
        for start in range(0, len(ticks), COPY_ROWS):
            _copy(conn, ticks.take(np.arange(start, min(start + COPY_ROWS, len(ticks)))))
        merge_bars(cur, _in_time_order(aggregate(ticks)))
        merge_current(cur, newest(ticks), names)
    conn.commit()


def _in_time_order(bars: BarRows) -> BarRows:
    """Return the bars as flushes leave them on the disk too: those of a minute side by side, of all symbols."""
    order = np.lexsort((bars.symbol_id, -bars.resolution_s, bars.time_us))

    def ordered(values: Any) -> Any:
        if isinstance(values, list):
            return [values[row] for row in order.tolist()]
        return values[order]

    sides_of = {
        name: SideRows(**{f.name: ordered(getattr(side, f.name)) for f in fields(side)})
        for name, side in bars.sides.items()
    }
    others = {f.name: ordered(getattr(bars, f.name)) for f in fields(bars) if f.name != "sides"}
    return BarRows(sides=sides_of, **others)


def _copy(conn: Connection, ticks: StoredTicks) -> None:
    buy, sell = sides(ticks.flags, ticks.volume)
    with conn.cursor() as cur:
        copy_in(
            cur,
            "ticks",
            [
                ("symbol_id", ">i4", ticks.symbol_id),
                ("time", ">i8", timestamps(ticks.time_us)),
                ("seq", ">i8", ticks.seq),
                *((name, ">f8", getattr(ticks, name)) for name in ("bid", "ask", "last", "spread", "volume")),
                ("buy_volume", ">f8", buy),
                ("sell_volume", ">f8", sell),
                ("flags", ">i4", ticks.flags),
                ("journal_no", ">i4", ticks.journal_no),
                ("received_at", ">i8", timestamps(ticks.received_us)),
            ],
        )
    conn.commit()


def _checked(conn: Connection, ticks: int) -> dict[str, int]:
    with conn.cursor() as cur:
        cur.execute(_COUNTS, (start_us(DAYS[0]) / 1e6,))
        found = cur.fetchall()
    counts = {symbol: stored for symbol, stored, *_ in found}
    if sum(counts.values()) != ticks or len(counts) != len(SYMBOLS):
        raise BenchError(f"{sum(counts.values())} ticks of {len(counts)} symbols are there, {ticks} were copied")
    for symbol, stored, in_bars, newest_tick, current in found:
        if stored != in_bars or newest_tick - current > timedelta(0):
            raise BenchError(f"{symbol}: {stored} ticks until {newest_tick}, {in_bars} in bars, current {current}")
    return counts
