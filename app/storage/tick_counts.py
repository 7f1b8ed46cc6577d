"""How many ticks there are, without counting them: the day bars know. Lane side."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

from app.storage.tick_reader import timestamp

_DAY_US = 86_400_000_000
_COUNT = """
    SELECT coalesce(sum(ticks), 0)::bigint FROM bars
    WHERE symbol_id = ANY(%(symbols)s) AND resolution = 86400
        AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
"""


def ticks_of_days(cur: Cursor, symbol_ids: Sequence[int], start_us: int | None, end_us: int | None) -> int:
    """Return the number of ticks on the days (UTC) that [start_us, end_us) touches; None: no bound."""
    start = "-infinity" if start_us is None else timestamp(start_us // _DAY_US * _DAY_US)
    end = "infinity" if end_us is None else timestamp(end_us)
    cur.execute(_COUNT, {"symbols": list(symbol_ids), "start": start, "end": end})
    row = cur.fetchone()
    assert row is not None
    return int(row[0])
