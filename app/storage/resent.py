"""Ticks that came again: counted by symbol, the quarter of an hour that they are of, and journal. Lane side.

By the journal too, so that no two flushes ever write one row. By quarters, because every exchange's day begins at one.
"""

from __future__ import annotations

import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.market.columns import I4, I8
from app.storage.tick_reader import timestamp

QUARTER_US = 900_000_000

_ADD = """
    INSERT INTO resent_ticks (symbol_id, time, journal_no, ticks)
    SELECT symbol_id, timestamptz 'epoch' + us * interval '1 microsecond', journal_no, ticks
    FROM unnest(%s::integer[], %s::bigint[], %s::integer[], %s::bigint[]) AS n (symbol_id, us, journal_no, ticks)
    ON CONFLICT (symbol_id, time, journal_no) DO UPDATE SET ticks = resent_ticks.ticks + excluded.ticks
"""
_COUNT = """
    SELECT coalesce(sum(ticks), 0)::bigint FROM resent_ticks
    WHERE symbol_id = %s AND time >= %s::timestamptz AND time < %s::timestamptz
"""


def add_resent(cur: Cursor, symbol_id: I4, time_us: I8, journal_no: I4) -> None:
    """Count these ticks, in the transaction that leaves them out because they are stored already."""
    keys = np.stack([symbol_id.astype(np.int64), time_us // QUARTER_US * QUARTER_US, journal_no.astype(np.int64)])
    # As np.unique would along the other axis, which takes ten times as long.
    keys = keys[:, np.lexsort(keys)]
    first = np.flatnonzero(np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)))
    cur.execute(_ADD, (*keys[:, first].tolist(), np.diff(first, append=keys.shape[1]).tolist()))


def resent(cur: Cursor, symbol_id: int, start_us: int, end_us: int) -> int:
    """Return how many ticks of the quarters that begin in [start_us, end_us) came again."""
    cur.execute(_COUNT, (symbol_id, timestamp(start_us), timestamp(end_us)))
    row = cur.fetchone()
    assert row is not None
    return int(row[0])
