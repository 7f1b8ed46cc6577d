"""Ticks on their way to the database, for tests: made, journalled in memory, written, and looked at afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from psycopg2.extensions import connection

from app.market import bars
from app.market.batches import Batch, LedgerEntry, Record
from app.market.columns import StoredTicks, Ticks
from app.storage.bars_sql import merge_bars, merge_current
from app.storage.connection import Connection
from app.storage.sink import DatabaseSink
from app.storage.writers import writers

NAN = float("nan")
NOON_US = 1_768_305_600_000_000
"""2026-01-13 12:00 UTC."""


@dataclass(frozen=True)
class Tick:
    """One tick as it is sent."""

    symbol: str = "TSLA"
    time_us: int = NOON_US
    seq: int = 0
    bid: float = 10.0
    ask: float = 10.5
    last: float = NAN
    spread: float = NAN
    volume: float = 0.0
    flags: int = 6


def ticks(rows: Sequence[Tick]) -> Ticks:
    """Return the rows as columns."""
    names = sorted({row.symbol for row in rows})
    types = {"time_us": np.int64, "seq": np.int64, "flags": np.int32}
    columns = {
        f.name: np.array([getattr(row, f.name) for row in rows], types.get(f.name, np.float64))
        for f in fields(Tick)
        if f.name != "symbol"
    }
    return Ticks(names, np.array([names.index(row.symbol) for row in rows], np.int32), **columns)


def many(count: int, **changes: Any) -> list[Tick]:
    """Return ticks at consecutive milliseconds."""
    base = Tick(**changes)
    return [replace(base, time_us=base.time_us + 1000 * i, bid=10 + i % 50 / 100) for i in range(count)]


class Feeder:
    """A journal without files: numbers rows and makes batches of them."""

    def __init__(self, received_us: int = NOON_US) -> None:
        self.journal_id = uuid.uuid4().hex
        self.row = 0
        self.received_us = received_us

    def batch(self, *requests: Sequence[Tick]) -> Batch:
        """Return the next batch: a record for each request."""
        batch = Batch(first_row=self.row)
        for rows in requests:
            payload = ticks(rows).encode()
            batch.records.append(Record("ticks", 1, len(rows), self.row, self.received_us, payload))
            self.row += len(rows)
            self.received_us += len(rows)
            batch.rows += len(rows)
        batch.end_row = self.row
        return batch


def new_sink(url: str, statement_timeout_s: float = 30) -> DatabaseSink:
    """Return a sink with a connection of its own."""
    return DatabaseSink(Connection(lambda: url, 5, statement_timeout_s, "test"), writers())


def write_all(sink: DatabaseSink, feeder: Feeder, *requests: Sequence[Tick]) -> LedgerEntry:
    """Write requests in one batch, in as many calls as that takes."""
    batch = feeder.batch(*requests)
    entry = sink.ledger(feeder.journal_id)
    while True:
        moved, *_ = sink.write(feeder.journal_id, entry, batch)
        if moved is not entry:
            return moved


def rows_of(conn: connection, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Return what a query finds now."""
    conn.rollback()
    with conn.cursor() as cur:
        cur.execute(query, parameters or None)
        found = cur.fetchall()
    conn.rollback()
    return found


def execute(conn: connection, *statements: str) -> None:
    """Run statements and commit."""
    conn.rollback()
    with conn.cursor() as cur:
        for statement in statements:
            cur.execute(statement)
    conn.commit()


def stored_keys(conn: connection) -> list[tuple[str, int, int]]:
    """Return (symbol, time_us, seq) of what is stored, sorted."""
    return sorted(
        rows_of(
            conn,
            "SELECT symbol, (extract(epoch FROM time) * 1000000)::bigint, seq"
            " FROM ticks JOIN instruments USING (symbol_id)",
        )
    )


def ledger_of(conn: connection, journal_id: str) -> tuple[int, ...]:
    """Return (next_row, stored, duplicates, set_aside, skipped, lost)."""
    return rows_of(
        conn,
        "SELECT next_row, stored, duplicates, set_aside, skipped, lost FROM ingest_log WHERE journal_id = %s",
        (journal_id,),
    )[0]


# Every byte of a bar but its version, which is new with every write and stands last.
BARS = """
    SELECT regexp_replace(bars::text, ',[0-9]+[)]$', ')') FROM bars ORDER BY symbol_id, resolution, time
"""
CURRENT = "SELECT current::text FROM current ORDER BY symbol"
_TICKS = """
    SELECT symbol_id, (extract(epoch FROM time) * 1000000)::bigint, seq, bid, ask, last, spread, ticks.volume, flags,
        journal_no, (extract(epoch FROM ticks.received_at) * 1000000)::bigint, allow_nonpositive
    FROM ticks JOIN instruments USING (symbol_id) ORDER BY symbol_id, time, seq
"""


def assert_bars_and_current_are_those_of_a_clean_load(conn: connection) -> None:
    """Load what is stored once more, in order and at once, and compare every byte of bars and current."""
    bars_there, current_there = rows_of(conn, BARS), rows_of(conn, CURRENT)
    found = rows_of(conn, _TICKS)
    names = dict(rows_of(conn, "SELECT symbol_id, symbol FROM instruments"))
    columns = list(zip(*found, strict=True)) or [()] * 12
    i4, i8, f8 = np.int32, np.int64, np.float64
    kinds = (i4, i8, i8, f8, f8, f8, f8, f8, i4, i4, i8, np.bool_)
    made = [np.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    stored = StoredTicks(*made[:11], np.zeros(len(found), i8), made[11])
    with conn.cursor() as cur:
        cur.execute("DELETE FROM bars")
        cur.execute("DELETE FROM current")
        if found:
            merge_bars(cur, bars.aggregate(stored))
            merge_current(cur, bars.newest(stored), names)
        cur.execute(BARS)
        assert bars_there == cur.fetchall()
        cur.execute(CURRENT)
        assert current_there == cur.fetchall()
    conn.rollback()
