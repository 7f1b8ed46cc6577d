"""Read trades by pages: sent ones and those of trade ticks, in the order of (time, seq, symbol). Lane side.

Most ticks are quotes, and there may be none but quotes for years. So the maintained bars, and the index of what was
sent, first tell the minutes that hold trades, some at a time; within these the keys of a page are taken in order, by
the key's index; and only for them `trades_between` (migration 0014) looks for the quote. Where ticks are archived,
`archive_trades` does the same with files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset
from app.formats.table import NULL_INT, Table, Values, empty
from app.storage.archive_trades import MINUTE_US, read_archived_trades
from app.storage.range_version import range_version
from app.storage.rows_reader import FETCH_ROWS, RowsPage, fields_of, rows_version
from app.storage.tick_ranges import Archived, archive_dir_of, archived_within
from app.storage.tick_reader import timestamp

_HOUR_US, _DAY_US = 60 * MINUTE_US, 1440 * MINUTE_US

FIRST_MINUTES, MOST_MINUTES = 64, 4096
"""Minutes with trades that are looked up at once: few, as one may hold a page; then twice as many each time."""

LEAST_OF_A_SYMBOL = 4
"""Of each, where all symbols are asked for."""

_MAX_INT = (1 << 63) - 1

# Days, then their hours, then their minutes: whoever traded once a month is not looked for in each of its minutes.
_MINUTES = """
    SELECT s.id, false, m.us FROM unnest(%(ids)s::integer[]) s (id) CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM m.time) * 1000000)::bigint AS us FROM (
            SELECT time FROM bars WHERE symbol_id = s.id AND resolution = 86400 AND last_open IS NOT NULL
                AND time >= %(day)s::timestamptz AND time < %(end)s::timestamptz ORDER BY time {order}) d
        CROSS JOIN LATERAL (
            SELECT time FROM bars WHERE symbol_id = s.id AND resolution = 3600 AND last_open IS NOT NULL
                AND time >= greatest(d.time, %(hour)s::timestamptz)
                AND time < least(d.time + interval '24 hours', %(end)s::timestamptz) ORDER BY time {order}) h
        CROSS JOIN LATERAL (
            SELECT time FROM bars WHERE symbol_id = s.id AND resolution = 60 AND last_open IS NOT NULL
                AND time >= greatest(h.time, %(start)s::timestamptz)
                AND time < least(h.time + interval '1 hour', %(end)s::timestamptz) ORDER BY time {order}) m
        LIMIT %(minutes)s) m
    UNION ALL
    SELECT s.id, true, m.us FROM unnest(%(ids)s::integer[]) s (id) CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM time) * 1000000)::bigint AS us FROM trades_sent
        WHERE symbol_id = s.id AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz
        ORDER BY time {order} LIMIT %(minutes)s) m
"""
_TRADED = """
    SELECT i.symbol_id FROM instruments i LEFT JOIN current c USING (symbol)
    WHERE c.last IS NOT NULL OR EXISTS (SELECT FROM trades_sent s WHERE s.symbol_id = i.symbol_id)
"""
_PAGE = """
    SELECT t.symbol, (extract(epoch FROM t.time) * 1000000)::bigint, t.seq, t.price, t.volume, t.value, t.trade_type,
        t.bid_price, t.ask_price, t.symbol_id
    FROM (
        SELECT k.* FROM unnest(%(lows)s::timestamptz[]) m (low) CROSS JOIN LATERAL (
            SELECT * FROM (
                (SELECT symbol_id, time, seq FROM trades_sent t WHERE {where} ORDER BY {key} LIMIT %(limit)s)
                UNION
                (SELECT symbol_id, time, seq FROM ticks t
                 WHERE {where} AND (flags & 8) <> 0 AND (last > 0 OR (last <= 0 AND
                     (SELECT allow_nonpositive FROM instruments i WHERE i.symbol_id = t.symbol_id)))
                 ORDER BY {key} LIMIT %(limit)s)
            ) t ORDER BY {key} LIMIT %(limit)s) k
        LIMIT %(limit)s) k
    CROSS JOIN LATERAL (
        SELECT * FROM trades_between(%(first)s::timestamptz, %(last)s::timestamptz) t
        WHERE t.symbol_id = k.symbol_id AND t.time = k.time AND t.seq = k.seq OFFSET 0) t
    ORDER BY {key}
"""
_WHERE = """{symbols} AND t.time >= m.low AND t.time < m.low + interval '1 minute'
    AND t.time >= %(start)s::timestamptz AND t.time < %(end)s::timestamptz {behind}"""
_BEHIND = "AND (t.time, t.seq, t.symbol_id) {compare} (%(time)s::timestamptz, %(seq)s, %(symbol_id)s)"


@dataclass(frozen=True, slots=True)
class TradePlace:
    """The key of a trade."""

    time_us: int
    seq: int
    symbol_id: int

    def encode(self) -> bytes:
        """Return it as bytes for a page token."""
        return msgspec.msgpack.encode((self.time_us, self.seq, self.symbol_id))

    @classmethod
    def decode(cls, data: bytes) -> TradePlace:
        """Read what `encode` wrote. Raises ValueError for anything else."""
        try:
            place = cls(*msgspec.msgpack.decode(data, type=tuple[int, int, int]))
        except msgspec.DecodeError as error:
            raise ValueError("not a trade's key") from error
        if abs(place.seq) > _MAX_INT or abs(place.symbol_id) > 1 << 31:
            raise ValueError("not a trade's key")
        timestamp(place.time_us - MINUTE_US)
        timestamp(place.time_us + MINUTE_US)
        return place


def read_trades(
    cur: Cursor,
    dataset: Dataset,
    *,
    symbol_id: int | None,
    start_us: int | None,
    end_us: int | None,
    after: bytes | None,
    descending: bool,
    max_rows: int,
) -> RowsPage:
    """Return at most `max_rows` trades of [start_us, end_us), behind `after` in the asked direction.

    symbol_id: of one instrument, None: of all. Raises ArchiveAway, and ValueError for an `after` that no page of trades
    gave.
    """
    place = None if after is None else TradePlace.decode(after)
    if place is not None and descending:
        end_us = place.time_us + 1 if end_us is None else min(end_us, place.time_us + 1)
    elif place is not None:
        start_us = place.time_us if start_us is None else max(start_us, place.time_us)
    ids = [symbol_id] if symbol_id is not None else _traded(cur)
    left = _Left(start_us, end_us)
    count = max(LEAST_OF_A_SYMBOL, FIRST_MINUTES // max(len(ids), 1))
    rows: list[tuple[Any, ...]] = []
    while len(rows) <= max_rows and not left.over and ids:
        found, archived = _of_one_place(cur, _minutes(cur, ids, left, count, descending), left)
        missing = max_rows + 1 - len(rows)
        if archived is not None:
            rows += _archived_rows(cur, archived, ids, found, left, place, descending, missing)
        elif len(found):
            rows += _rows(cur, ids, found, left, place, descending, missing)
        count = min(count * 2, MOST_MINUTES)
    return _page(dataset, rows, max_rows)


def trades_version(
    cur: Cursor, dataset: Dataset, symbol_id: int | None, start_us: int | None, end_us: int | None
) -> str:
    """Return what changes whenever a trade of the range does, or a quote that may have told its side."""
    ids = [symbol_id] if symbol_id is not None else _traded(cur)
    # A trade's quote may be a week old. There are no ticks before 1970.
    since_us = None if start_us is None else max(start_us - 8 * _DAY_US, 0)
    ticks = [range_version(cur, number, since_us, end_us) for number in ids]
    return ".".join([rows_version(cur, dataset, symbol_id, start_us, end_us), *ticks])


@dataclass(slots=True)
class _Left:
    """What of the range has not been looked at."""

    start_us: int | None
    end_us: int | None
    over: bool = False

    def bounds(self) -> dict[str, str]:
        """Return both ends for SQL, and the hour and the day of the start."""
        bounds = {"end": "infinity" if self.end_us is None else timestamp(self.end_us)}
        for name, length in (("start", MINUTE_US), ("hour", _HOUR_US), ("day", _DAY_US)):
            us = self.start_us
            bounds[name] = "-infinity" if us is None else timestamp(us // length * length)
        return bounds


def _traded(cur: Cursor) -> list[int]:
    cur.execute(_TRADED)
    return sorted(number for (number,) in cur.fetchall())


def _minutes(
    cur: Cursor, ids: Sequence[int], left: _Left, count: int, descending: bool
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the next minutes that hold trades, in the asked direction; `left` is `over` when these are the last."""
    order = "DESC" if descending else ""
    cur.execute(_MINUTES.format(order=order), {"ids": list(ids), "minutes": count, **left.bounds()})
    by_source: dict[tuple[int, bool], list[int]] = {}
    for number, was_sent, us in cur.fetchall():
        by_source.setdefault((number, was_sent), []).append(us // MINUTE_US * MINUTE_US)
    minutes = np.unique(np.array([us for part in by_source.values() for us in part], np.int64))
    # Where a source had more than it told, nobody knows what is beyond its last minute.
    cut = [min(part) if descending else max(part) for part in by_source.values() if len(part) >= count]
    left.over = not cut
    if descending:
        return minutes[minutes >= max(cut)][::-1] if cut else minutes[::-1]
    return minutes[minutes <= min(cut)] if cut else minutes


def _rows(
    cur: Cursor,
    ids: Sequence[int],
    minutes: np.ndarray[Any, np.dtype[np.int64]],
    left: _Left,
    place: TradePlace | None,
    descending: bool,
    max_rows: int,
) -> list[tuple[Any, ...]]:
    """Return trades of these minutes, and take them off what is left."""
    direction = " DESC" if descending else ""
    first_us, last_us = int(minutes.min()), int(minutes.max()) + MINUTE_US
    start_us = first_us if left.start_us is None else max(first_us, left.start_us)
    end_us = last_us if left.end_us is None else min(last_us, left.end_us)
    values: dict[str, Any] = {
        "lows": [timestamp(us) for us in minutes.tolist()],
        "first": timestamp(first_us),
        "last": timestamp(last_us),
        "start": timestamp(start_us),
        "end": timestamp(end_us),
        "ids": list(ids),
        "limit": max_rows,
    }
    behind = ""
    if place is not None:
        behind = _BEHIND.format(compare="<" if descending else ">")
        values |= {"time": timestamp(place.time_us), "seq": place.seq, "symbol_id": place.symbol_id}
    # Of one symbol the index gives the rows in order; `= ANY` would have them sorted.
    symbols = f"t.symbol_id = {int(ids[0])}" if len(ids) == 1 else "t.symbol_id = ANY(%(ids)s)"
    key = ", ".join(f"t.{name}{direction}" for name in ("time", "seq", "symbol_id"))
    cur.execute(_PAGE.format(where=_WHERE.format(symbols=symbols, behind=behind), key=key), values)
    rows: list[tuple[Any, ...]] = []
    while part := cur.fetchmany(FETCH_ROWS):
        rows += part
    if descending:
        left.end_us = first_us
    else:
        left.start_us = last_us
    return rows


def _of_one_place(
    cur: Cursor, minutes: np.ndarray[Any, np.dtype[np.int64]], left: _Left
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Archived | None]:
    """Return the first of the minutes, as many as are hot, or archived in one range; and that range."""
    if not len(minutes):
        return minutes, None
    places = archived_within(cur, timestamp(int(minutes.min())), timestamp(int(minutes.max()) + MINUTE_US))
    of = np.full(len(minutes), -1)
    for number, place in enumerate(places):
        of[(minutes >= place.start_us) & (minutes < place.end_us)] = number
    others = np.flatnonzero(of != of[0])
    if len(others):
        left.over = False
        minutes = minutes[: int(others[0])]
    return minutes, None if of[0] < 0 else places[int(of[0])]


def _archived_rows(
    cur: Cursor,
    place_of: Archived,
    ids: Sequence[int],
    minutes: np.ndarray[Any, np.dtype[np.int64]],
    left: _Left,
    place: TradePlace | None,
    descending: bool,
    max_rows: int,
) -> list[tuple[Any, ...]]:
    """Return trades of these archived minutes, and take them off what is left. Raises ArchiveAway."""
    root = archive_dir_of(cur)
    low_us = -_MAX_INT if left.start_us is None else left.start_us
    high_us = _MAX_INT if left.end_us is None else left.end_us
    after = None if place is None else (place.time_us, place.seq, place.symbol_id)
    rows: list[tuple[Any, ...]] = []
    for part in read_archived_trades(cur, root, place_of.folder, place_of.manifest(root), ids, minutes):
        inside = [(key, row) for row in part if low_us <= (key := (row[1], row[2], row[9]))[0] < high_us]
        if after is not None:
            inside = [(key, row) for key, row in inside if (key < after if descending else key > after)]
        rows += [row for _, row in sorted(inside, reverse=descending)]
        if len(rows) >= max_rows:
            break
    if descending:
        left.end_us = int(minutes[-1])
    else:
        left.start_us = int(minutes[-1]) + MINUTE_US
    return rows[:max_rows]


def _page(dataset: Dataset, rows: list[tuple[Any, ...]], max_rows: int) -> RowsPage:
    fields = fields_of(dataset)
    more, rows = len(rows) > max_rows, rows[:max_rows]
    if not rows:
        return RowsPage(empty(fields), None, False)
    *listed, ids = zip(*rows, strict=True)
    columns: list[Values] = []
    for field, values in zip(fields, listed, strict=True):
        if field.kind in ("time", "int"):
            columns.append(np.array([NULL_INT if value is None else value for value in values], np.int64))
        elif field.kind == "float":
            columns.append(np.array(values, np.float64))  # None becomes NaN
        else:
            columns.append(list(values))
    times, seqs = listed[1], listed[2]
    return RowsPage(Table(fields, columns), TradePlace(times[-1], seqs[-1], ids[-1]).encode(), more)
