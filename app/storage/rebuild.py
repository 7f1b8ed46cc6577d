"""Compute bars and `current` again from the stored ticks, beside a running server. Lane side.

Each transaction locks the table that it rewrites against every flush, and reads the ticks after that. A flush
that has merged its ticks into the table is waited for, so its ticks are seen. One that has not merged them yet
waits in its turn: its ticks are not seen, and it merges them into what was written here. A flush locks ticks,
then bars, then `current`; a rebuild locks one of the latter two and no tick, so the two cannot deadlock.

Where ticks are not in the database any more (`tick_ranges`), bars and what `current` has of them stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.market.bars import aggregate, newest
from app.market.columns import StoredTicks
from app.storage.bars_sql import merge_bars, merge_current
from app.storage.connection import Connection
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_out
from app.storage.instruments import Known

BLOCK_ROWS = 100_000
"""Ticks in memory at a time, some 30 MB; a day of a busy symbol is several blocks."""

_DAY = timedelta(days=1)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ALL = "SELECT symbol_id, symbol, digits, allow_nonpositive FROM instruments ORDER BY symbol_id"
_COUNT_DAYS = "SELECT count(*) FROM bars WHERE symbol_id = %s AND resolution = 86400"
# A minimum for each resolution is a look into the index; one for all would read every bar of the symbol.
_FIRST_FROM = """
    SELECT least(
        (SELECT min(time) FROM ticks WHERE symbol_id = %(id)s AND time >= %(start)s),
        (SELECT min(time) FROM bars WHERE symbol_id = %(id)s AND resolution = 60 AND time >= %(start)s),
        (SELECT min(time) FROM bars WHERE symbol_id = %(id)s AND resolution = 3600 AND time >= %(start)s),
        (SELECT min(time) FROM bars WHERE symbol_id = %(id)s AND resolution = 86400 AND time >= %(start)s))
"""
_DELETE_BARS = "DELETE FROM bars WHERE symbol_id = %s AND time >= %s AND time < %s"
_DELETE_BARS_OF_NOBODY = "DELETE FROM bars WHERE symbol_id NOT IN (SELECT symbol_id FROM instruments)"
_ELSEWHERE = """
    SELECT upper(range) FROM tick_ranges
    WHERE state <> 'hot' AND range && tstzrange(%s, %s) ORDER BY range DESC LIMIT 1
"""
_RANGES_ELSEWHERE = "SELECT lower(range), upper(range) FROM tick_ranges WHERE state <> 'hot'"
_SIDES = ("bid", "ask", "last")
_OLD = "SELECT * FROM current WHERE symbol = %s FOR UPDATE"
_DELETE_CURRENT = "DELETE FROM current WHERE symbol = %s"
_DELETE_CURRENT_OF_NOBODY = "DELETE FROM current WHERE symbol NOT IN (SELECT symbol FROM instruments)"

_FORMATS = {"seq": ">i8", "time_us": ">i8", "received_us": ">i8", "flags": ">i4", "journal_no": ">i4"}
_FLOATS = ("bid", "ask", "last", "spread", "volume")
_TICKS = """
    SELECT seq, time, received_at, flags, journal_no,
        coalesce(bid, 'NaN'), coalesce(ask, 'NaN'), coalesce(last, 'NaN'), coalesce(spread, 'NaN'), volume
    FROM ticks WHERE symbol_id = %(id)s AND
"""
_TICKS_OF_A_DAY = f"""{_TICKS} time >= %(start)s AND time < %(end)s AND (time, seq) > (%(time)s, %(seq)s)
    ORDER BY time, seq LIMIT %(limit)s
"""
_TICKS_AT = f"{_TICKS} time = ANY(%(times)s)"
# What is the newest is found by the same code as in a flush; this finds the few ticks that it can be among.
_NEWEST_TIMES = """
    SELECT ARRAY[
        (SELECT max(time) FROM ticks WHERE symbol_id = %(id)s),
        (SELECT max(time) FROM ticks WHERE symbol_id = %(id)s AND (bid > 0 OR (%(any)s AND bid <= 0))),
        (SELECT max(time) FROM ticks WHERE symbol_id = %(id)s AND (ask > 0 OR (%(any)s AND ask <= 0))),
        (SELECT max(time) FROM ticks WHERE symbol_id = %(id)s AND (last > 0 OR (%(any)s AND last <= 0))
            AND flags & 8 <> 0)]
"""


def all_instruments(connection: Connection) -> list[Known]:
    """Return every instrument, by id. Raises DatabaseAway."""
    with connection.transaction() as cur:
        cur.execute(_ALL)
        return [Known(*row) for row in cur.fetchall()]


def count_days(connection: Connection, instrument: Known) -> int:
    """Return on how many days the instrument has bars now. Raises DatabaseAway."""
    with connection.transaction() as cur:
        cur.execute(_COUNT_DAYS, (instrument.symbol_id,))
        return int(_one(cur))


def rebuild_bars(connection: Connection, instrument: Known) -> Iterator[int]:
    """Rewrite the instrument's bars, a day (UTC) a transaction; yield each day's number of ticks.

    Flushes wait meanwhile, no longer than a day of one symbol takes. Bars without ticks go. Cut off anywhere,
    the days that are done are right and the others as they were. Raises DatabaseAway.
    """
    start = _BEGINNING
    while True:
        with connection.transaction() as cur:
            cur.execute(_FIRST_FROM, {"id": instrument.symbol_id, "start": start})
            first: datetime | None = _one(cur)
        if first is None:
            return
        day = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = day + _DAY
        with connection.transaction() as cur:
            # What moves ticks out of the database waits for this, as for a flush.
            cur.execute("LOCK TABLE tick_ranges IN ROW SHARE MODE")
            cur.execute(_ELSEWHERE, (day, start))
            if (elsewhere := cur.fetchone()) is not None:
                if elsewhere[0] is None:
                    return
                start = max(start, elsewhere[0])
                continue
            cur.execute("LOCK TABLE bars IN SHARE ROW EXCLUSIVE MODE")
            rows = compute_day(cur, instrument, day)
        yield rows


def compute_day(cur: Cursor, instrument: Known, day: datetime) -> int:
    """Rewrite the instrument's bars of a day (UTC) from its ticks, in the open transaction; return their number.

    No flush may commit a tick of that day meanwhile: the caller has locked its bars, or the table.
    """
    cur.execute(_DELETE_BARS, (instrument.symbol_id, day, day + _DAY))
    rows = 0
    for ticks in _ticks_of_a_day(cur, instrument, day):
        merge_bars(cur, aggregate(ticks))
        rows += len(ticks)
    return rows


def rebuild_current(connection: Connection, instrument: Known) -> None:
    """Rewrite the instrument's row in `current`. Raises DatabaseAway."""
    with connection.transaction() as cur:
        cur.execute("LOCK TABLE current IN SHARE ROW EXCLUSIVE MODE")
        compute_current(cur, instrument)


def compute_current(cur: Cursor, instrument: Known, deleted_us: tuple[int, int] | None = None) -> None:
    """Rewrite the instrument's row in `current` from its ticks, in the open transaction.

    What the row has of ticks that are not in the database any more stays, unless they are of deleted_us, [start, end)
    in UTC microseconds. No flush may write the row meanwhile: the caller has locked it, or the table.
    """
    cur.execute(_OLD, (instrument.symbol,))
    row = cur.fetchone()
    old = {} if row is None else dict(zip([column.name for column in cur.description or ()], row, strict=True))
    cur.execute(_DELETE_CURRENT, (instrument.symbol,))
    cur.execute(_NEWEST_TIMES, {"id": instrument.symbol_id, "any": instrument.nonpositive_ok})
    times = [time for time in _one(cur) if time is not None]
    ticks = _read(cur, instrument, _TICKS_AT, {"times": times})
    merge_current(cur, newest(ticks), {instrument.symbol_id: instrument.symbol})
    if old:
        _keep_what_is_elsewhere(cur, instrument, old, deleted_us)


def _keep_what_is_elsewhere(
    cur: Cursor, instrument: Known, old: dict[str, Any], deleted_us: tuple[int, int] | None
) -> None:
    cur.execute(_RANGES_ELSEWHERE)
    ranges = [(low or _BEGINNING, high or _END) for low, high in cur.fetchall()]

    def stays(key: Any) -> bool:
        if key is None:
            return False
        time_us = int.from_bytes(bytes(key)[:8], "big")
        if deleted_us is not None and deleted_us[0] <= time_us < deleted_us[1]:
            return False
        time = _EPOCH + timedelta(microseconds=time_us)
        return any(low <= time < high for low, high in ranges)

    kept = [side for side in _SIDES if stays(old[f"{side}_key"])]
    if stays(old["tick_key"]):
        # Of the tick itself, where no newer one is here; then of its prices.
        columns = [name for name in old if name.removesuffix("_key") not in _SIDES]
        given = ", ".join(f"{name} = excluded.{name}" for name in columns)
        cur.execute(
            f"INSERT INTO current ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"  # noqa: S608
            f" ON CONFLICT (symbol) DO UPDATE SET {given} WHERE current.tick_key < excluded.tick_key",
            [old[name] for name in columns],
        )
    for side in kept:
        cur.execute(
            f"UPDATE current SET {side} = %(price)s, {side}_key = %(key)s"  # noqa: S608 - names of columns
            f" WHERE symbol = %(symbol)s AND ({side}_key IS NULL OR {side}_key < %(key)s)",
            {"price": old[side], "key": old[f"{side}_key"], "symbol": instrument.symbol},
        )


def delete_what_has_no_instrument(connection: Connection, table: str) -> None:
    """Delete the rows of `bars` or `current` whose instrument is gone. Raises DatabaseAway."""
    statements = {"bars": _DELETE_BARS_OF_NOBODY, "current": _DELETE_CURRENT_OF_NOBODY}
    with connection.transaction() as cur:
        cur.execute(statements[table])


def _ticks_of_a_day(cur: Cursor, instrument: Known, day: datetime) -> Iterator[StoredTicks]:
    after: dict[str, Any] = {"time": day - timedelta(microseconds=1), "seq": 0}
    while True:
        bounds = {"start": day, "end": day + _DAY, "limit": BLOCK_ROWS}
        ticks = _read(cur, instrument, _TICKS_OF_A_DAY, {**bounds, **after})
        if not len(ticks):
            return
        yield ticks
        # Behind the last one in the order of the key, however many share its time.
        after = {"time": _EPOCH + timedelta(microseconds=int(ticks.time_us[-1])), "seq": int(ticks.seq[-1])}


def _read(cur: Cursor, instrument: Known, query: str, parameters: dict[str, Any]) -> StoredTicks:
    names = (*_FORMATS, *_FLOATS)
    formats = [_FORMATS.get(name, ">f8") for name in names]
    bound = cur.mogrify(query, {"id": instrument.symbol_id, **parameters}).decode()
    found = copy_out(cur, bound, formats)
    columns = {name: found[f"v{index}"].astype(formats[index][1:]) for index, name in enumerate(names)}
    columns["time_us"] += POSTGRES_EPOCH_US
    columns["received_us"] += POSTGRES_EPOCH_US
    return StoredTicks(
        symbol_id=np.full(len(found), instrument.symbol_id, np.int32),
        row_no=np.zeros(len(found), np.int64),  # not stored, and nothing here asks
        nonpositive_ok=np.full(len(found), instrument.nonpositive_ok),
        **columns,
    )


def _one(cur: Cursor) -> Any:
    row = cur.fetchone()
    assert row is not None
    return row[0]
