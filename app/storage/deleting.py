"""Delete a symbol's ticks of a range, beside a running server; bars and `current` are then of the rest. Lane side.

One transaction:

    the ranges of ticks, as every flush reads them: what is archived cannot be deleted here
    the table of bars, as `rebuild` locks it: flushes that merged their bars are waited for, the others wait
    the ticks, all that were committed until then: a deletion waits for nobody, so this is no other order of locks
    the bars: of whole days gone, of the days at both ends computed again from what is left
    the row in `current`, if a tick behind it is gone; the row of audit_log

Locking only the symbol's bars was tried: a flush makes bars that nobody could have locked before, and the two deadlock.
Ticks go on being accepted meanwhile; a tick that is not committed when the bars are locked came after the deletion.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from app.errors import Conflict
from app.storage.connection import Connection
from app.storage.instruments import Known
from app.storage.rebuild import compute_current, compute_day

LOCK_TIMEOUT_S = 30
"""Longest wait for a lock: flushes hold theirs for less than a second."""

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANGES = """
    SELECT lower(range), upper(range), state FROM tick_ranges
    WHERE range && tstzrange(%(first)s, %(last)s) ORDER BY range FOR SHARE
"""
_BARS = """
    SELECT count(*) FROM bars WHERE symbol_id = %(id)s AND time < %(end)s
        AND time > %(start)s::timestamptz - interval '1 day' AND time + resolution * interval '1 second' > %(start)s
"""
_TICKS = "SELECT count(*) FROM ticks WHERE symbol_id = %(id)s AND time >= %(start)s AND time < %(end)s"
_DELETE_TICKS = "DELETE FROM ticks WHERE symbol_id = %(id)s AND time >= %(start)s AND time < %(end)s"
_DELETE_BARS = "DELETE FROM bars WHERE symbol_id = %(id)s AND time >= %(first)s AND time < %(last)s"
_KEYS = "SELECT tick_key, bid_key, ask_key, last_key FROM current WHERE symbol = %(symbol)s FOR UPDATE"
# Where ticks are not in the database any more, the bar of a day still knows its last price and which tick had it.
_OF_BARS = """
    UPDATE current c SET {side} = b.price, {side}_key = b.key
    FROM (
        SELECT {side}_close AS price, {side}_close_key AS key FROM bars
        WHERE symbol_id = %(id)s AND resolution = 86400 AND {side}_close_key IS NOT NULL
            AND EXISTS (SELECT FROM tick_ranges r WHERE r.state <> 'hot' AND r.range @> bars.time)
        ORDER BY time DESC LIMIT 1) b
    WHERE c.symbol = %(symbol)s AND (c.{side}_key IS NULL OR c.{side}_key < b.key)
"""
_AUDIT = """
    INSERT INTO audit_log (actor, action, symbol, range, rows, details)
    VALUES (%(actor)s, %(action)s, %(symbol)s, tstzrange(%(start)s, %(end)s), %(rows)s, %(details)s)
"""


# By the time at which they began, for numbers are not committed in their order. No deletion takes two hours.
_OF_LATE = """
    SELECT audit_id, symbol FROM audit_log
    WHERE action = 'delete' AND at > now() - interval '2 hours'
"""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What was deleted, or would be. bars: of all lengths, those that are computed again among them."""

    ticks: int
    bars: int
    current: bool


def count(connection: Connection, instrument: Known, start_us: int, end_us: int) -> Deletion:
    """Return what a deletion of [start_us, end_us) would meet, UTC microseconds. Raises Conflict, DatabaseAway."""
    bounds = _bounds(instrument, start_us, end_us)
    with connection.transaction() as cur:
        _refuse_what_is_not_here(cur, bounds)
        cur.execute(_TICKS, bounds)
        ticks = _one(cur)
        cur.execute(_BARS, bounds)
        bars = _one(cur)
        cur.execute(_KEYS.replace("FOR UPDATE", ""), bounds)
        return Deletion(ticks, bars, _is_behind(cur.fetchone(), start_us, end_us))


def delete(connection: Connection, instrument: Known, start_us: int, end_us: int, actor: str) -> Deletion:
    """Delete the instrument's ticks of [start_us, end_us), UTC microseconds, and correct bars and `current`.

    All or nothing; again it deletes what has come since. Raises Conflict where ticks of the range are not in the
    database any more, and DatabaseAway.
    """
    bounds = _bounds(instrument, start_us, end_us)
    with connection.transaction() as cur:
        cur.execute("SET LOCAL lock_timeout = %s", (f"{LOCK_TIMEOUT_S}s",))
        _refuse_what_is_not_here(cur, bounds)
        cur.execute("LOCK TABLE bars IN SHARE ROW EXCLUSIVE MODE")
        cur.execute(_BARS, bounds)
        bars = _one(cur)
        cur.execute(_DELETE_TICKS, bounds)
        ticks = cur.rowcount
        first, last = bounds["first"], bounds["last"] - _DAY
        in_part = {day for day, edge in ((first, bounds["start"]), (last, bounds["end"])) if not _is_midnight(edge)}
        if bars or ticks:
            whole = {"first": first + (first in in_part) * _DAY, "last": last + (last not in in_part) * _DAY}
            cur.execute(_DELETE_BARS, {**bounds, **whole})
            for day in sorted(in_part):
                compute_day(cur, instrument, day)
        current = _correct_current(cur, instrument, start_us, end_us, bounds)
        found = Deletion(ticks, bars, current)
        if found != Deletion(0, 0, False):
            details = Json({"bars": bars, "current": current})
            cur.execute(_AUDIT, {**bounds, "actor": actor, "action": "delete", "rows": found.ticks, "details": details})
    return found


def read_deletions(cur: Cursor) -> dict[int, str]:
    """Return the deletions of late: the symbol by their number in audit_log."""
    cur.execute(_OF_LATE)
    return dict(cur.fetchall())


def _bounds(instrument: Known, start_us: int, end_us: int) -> dict[str, Any]:
    start, end = _EPOCH + timedelta(microseconds=start_us), _EPOCH + timedelta(microseconds=end_us)
    first = start.replace(hour=0, minute=0, second=0, microsecond=0)
    last = (end - timedelta(microseconds=1)).replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    return {
        "id": instrument.symbol_id,
        "symbol": instrument.symbol,
        "start": start,
        "end": end,
        "first": first,
        "last": last,
    }


def _is_midnight(moment: datetime) -> bool:
    return moment == moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _refuse_what_is_not_here(cur: Cursor, bounds: dict[str, Any]) -> None:
    cur.execute(_RANGES, bounds)
    for low, high, state in cur.fetchall():
        if state == "hot":
            continue  # locked, so that it stays so
        inside = (low is None or low < bounds["end"]) and (high is None or high > bounds["start"])
        if state != "dropped" and inside:
            raise Conflict(
                "ticks of that time are in the archive: bring them back into the database first"
                " (python -m app archive bring-back)"
            )
        for edge, day in ((bounds["start"], bounds["first"]), (bounds["end"], bounds["last"] - _DAY)):
            if not _is_midnight(edge) and (low is None or low < day + _DAY) and (high is None or high > day):
                raise Conflict(
                    f"ticks of {day:%Y-%m-%d} are not in the database any more, only its bars: name whole days (UTC)"
                )


def _correct_current(cur: Cursor, instrument: Known, start_us: int, end_us: int, bounds: dict[str, Any]) -> bool:
    cur.execute(_KEYS, bounds)
    if not _is_behind(cur.fetchone(), start_us, end_us):
        return False
    compute_current(cur, instrument, deleted_us=(start_us, end_us))
    for side in ("bid", "ask", "last"):
        cur.execute(_OF_BARS.format(side=side), bounds)
    return True


def _is_behind(keys: tuple[Any, ...] | None, start_us: int, end_us: int) -> bool:
    """Tell whether a tick of the range is behind one of these order keys, which begin with its time."""
    times = [int.from_bytes(bytes(key)[:8], "big") for key in keys or () if key is not None]
    return any(start_us <= time < end_us for time in times)


def _one(cur: Cursor) -> int:
    row = cur.fetchone()
    assert row is not None
    return int(row[0])
