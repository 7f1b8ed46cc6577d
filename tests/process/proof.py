"""That nothing was lost and nothing doubled: the database against what was acknowledged, and against a clean load."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np

from app.market.columns import StoredTicks
from app.pipeline.books import JOURNAL_FIELDS, Shelf
from app.storage.connection import Connection
from app.storage.partitions import ensure_partitions
from app.storage.ticks_writer import store_ticks
from tests.batches import BARS, CURRENT
from tests.process.harness import CLEAN, Database, Server, wait_until
from tests.process.load import Content

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STORED = """
    SELECT i.symbol, t.time, t.bid, t.ask, t.last, t.spread, t.volume, t.flags, t.seq
    FROM ticks t JOIN instruments i USING (symbol_id)
"""
_COLUMNS = "symbol_id, time, seq, bid, ask, last, spread, volume, flags, journal_no, received_at"


def stored(database: Database) -> Counter[Content]:
    """Return the stored ticks as `load.content` describes them."""
    return Counter(
        (symbol, _us(time), *values, seq if seq >= 0 else None)
        for symbol, time, *values, seq in database.rows(_STORED)
    )


def assert_stored_once(database: Database, expected: Counter[Content]) -> None:
    """Every acknowledged tick is there, once; bars and current are those of a clean load."""
    found = stored(database)
    missing, surplus = expected - found, found - expected
    assert not missing, f"{missing.total()} acknowledged ticks are not stored, such as {next(iter(missing))}"
    assert not surplus, f"{surplus.total()} ticks are stored too often, such as {next(iter(surplus))}"
    assert_as_loaded_cleanly(database)


def assert_ledger_adds_up(server: Server, acknowledged_rows: int, *, exactly: bool = False) -> None:
    """Every row of every journal is accounted for, and at least every acknowledged one.

    `exactly`: no request died without its answer, so not a row more either.
    """
    rows = server.database.rows(
        "SELECT journal_id, next_row, stored, duplicates, set_aside, skipped, lost FROM ingest_log"
    )
    for journal_id, next_row, *became in rows:
        assert next_row == sum(became), f"{journal_id}: {next_row} is not the sum of {became}"
    ended = {journal_id: next_row for journal_id, next_row, *_ in rows}
    shelf = Shelf(server.home / "run" / "books", JOURNAL_FIELDS)
    shelf.refresh()
    for book in shelf.books():
        assert book["end_row"] == ended.get(book.path.stem, 0), f"{book.path.stem} is not flushed to its end"
    done = sum(row[2] + row[3] + row[4] for row in rows)
    assert sum(row[2] for row in rows) == server.database.rows("SELECT count(*) FROM ticks")[0][0]
    assert done == acknowledged_rows if exactly else done >= acknowledged_rows
    assert not any(row[6] for row in rows), "rows were lost"


def assert_as_loaded_cleanly(database: Database) -> None:
    """Bars and current equal those of the stored ticks written at once, in order, into an empty database."""
    ticks = _read(database)
    connection = Connection(lambda: database.url(CLEAN), 10, 120, "clean load")
    try:
        with connection.transaction() as cur:
            cur.execute("TRUNCATE ticks, bars, current")
        ensure_partitions(connection, ticks.time_us)
        names = dict(database.rows("SELECT symbol_id, symbol FROM instruments"))
        with connection.transaction() as cur:
            assert store_ticks(cur, ticks, names).stored == len(ticks)
    finally:
        connection.close()
    for query in (BARS, CURRENT):
        assert database.rows(query) == database.rows(query, name=CLEAN)


def _read(database: Database) -> StoredTicks:
    rows = database.rows(f"SELECT {_COLUMNS} FROM ticks ORDER BY time, symbol_id, seq")
    columns = dict(zip(_COLUMNS.split(", "), zip(*rows, strict=True), strict=True))

    def floats(name: str) -> np.ndarray:
        return np.array([np.nan if value is None else value for value in columns[name]], np.float64)

    return StoredTicks(
        symbol_id=np.array(columns["symbol_id"], np.int32),
        time_us=np.array([_us(time) for time in columns["time"]], np.int64),
        seq=np.array(columns["seq"], np.int64),
        **{name: floats(name) for name in ("bid", "ask", "last", "spread", "volume")},
        flags=np.array(columns["flags"], np.int32),
        journal_no=np.array(columns["journal_no"], np.int32),
        received_us=np.array([_us(time) for time in columns["received_at"]], np.int64),
        row_no=np.arange(len(rows)),
        nonpositive_ok=np.zeros(len(rows), np.bool_),
    )


def _us(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def wait_for_line(server: Server, text: str) -> str:
    """Wait for a line of the log that holds the text, and return it."""

    def found() -> str | None:
        return next((line for line in server.log().splitlines() if text in line), None)

    return str(wait_until(found, what=f"the log to say {text!r}"))
