"""The version of a range of ticks: what changes whenever a tick in it does. Lane side.

Every write of a day's bar leaves a new random number in it, in the transaction that stores the ticks. The number of
day bars and the sum of their versions therefore never come back, not even after a restore of the database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg2.extensions import cursor as Cursor

DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Of -infinity and infinity the planner knows that they are ends of the index; of a NULL it would not.
_VERSION = """
    SELECT count(*), coalesce(sum(version), 0)::text FROM bars
    WHERE symbol_id = %(symbol_id)s AND resolution = 86400 AND time >= %(start)s AND time < %(end)s
"""


def range_version(cur: Cursor, symbol_id: int, start_us: int | None, end_us: int | None) -> str:
    """Return the version of one symbol's ticks, and all that is made of them, in a range; a short text.

    start_us (inclusive), end_us (exclusive): UTC microseconds since 1970; None: without an end. Ticks of the days (UTC)
    that the range touches change it, other ticks do not. Read it in the snapshot that it is to stand for, or before.
    """
    start = "-infinity" if start_us is None else _moment(start_us // DAY_US * DAY_US)
    # An empty range touches no day, wherever it lies.
    empty = start_us is not None and end_us is not None and end_us <= start_us
    end = start if empty else "infinity" if end_us is None else _moment(end_us)
    cur.execute(_VERSION, {"symbol_id": symbol_id, "start": start, "end": end})
    row = cur.fetchone()
    assert row is not None
    days, total = row
    return f"{days:x}-{int(total):x}"


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
