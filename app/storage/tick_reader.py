"""Read stored ticks by pages, in the order of their keys (docs/receive.md). Lane side.

Where a part of the range is archived, its ticks come from files (docs/archive.md): ranges are disjoint in time, so the
parts are read one after the other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.formats.table import Field, Table, empty
from app.market.columns import I8
from app.storage.archive_reader import Place, read_archived
from app.storage.archive_rows import WholeTicks
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_columns
from app.storage.tick_ranges import EARLIEST_US, LATEST_US, Archived, archive_dir_of, archived_within

TICKS: tuple[Field, ...] = (
    Field("timestamp", "time", "when it happened, UTC"),
    Field("bid", "float", "bid, a price"),
    Field("ask", "float", "ask, a price"),
    Field("last", "float", "last trade, a price; a stale repeat unless flags & 8"),
    Field("spread", "float", "ask - bid in points"),
    Field("volume", "float", "volume as sent, in the instrument's units; a stale repeat unless flags & 8"),
    Field("buy_volume", "float", "volume of a trade by a buyer, else 0"),
    Field("sell_volume", "float", "volume of a trade by a seller, else 0"),
    Field("flags", "int", "bits: bid 2, ask 4, last 8, volume 16, buy 32, sell 64"),
    Field("seq", "int", "ordinal at that time if >= 0 (the sender's), else derived from the content"),
)

# A column that may be NULL would change a row's width; no stored price is NaN.
_COLUMNS = """time, coalesce(bid, 'NaN') AS bid, coalesce(ask, 'NaN') AS ask, coalesce(last, 'NaN') AS last,
    coalesce(spread, 'NaN') AS spread, volume, buy_volume, sell_volume, flags, seq"""
_NAMES: tuple[str, ...] = (
    "time", "bid", "ask", "last", "spread", "volume", "buy_volume", "sell_volume", "flags", "seq"
)
_FORMATS: tuple[str, ...] = (">i8", *[">f8"] * 7, ">i4", ">i8")
# The order of the keys: at one time those with a seq of the sender's first, by it, then the others by arrival. The
# index gives the time; only ticks of one time are sorted.
_KEY = "time{0}, (seq < 0){0}, greatest(seq, 0){0}, received_at{0}, journal_no{0}"
_READ = """
    SELECT {columns} FROM ticks
    WHERE symbol_id = %(symbol_id)s AND time >= %(start)s::timestamptz AND time < %(end)s::timestamptz {behind}
    ORDER BY {key} LIMIT %(limit)s
"""
_BEHIND = """
    AND time {compare}= %(time)s::timestamptz AND (time <> %(time)s::timestamptz OR
        (seq < 0, greatest(seq, 0), received_at, journal_no) {compare}
        (%(seq)s < 0, greatest(%(seq)s, 0), %(received_at)s::timestamptz, %(journal_no)s))
"""
# The maintained days tell where ticks are. The nearest one may lie half outside the range, so it does not count.
_DAYS = """
    SELECT nearest, enough, CASE WHEN enough IS NULL THEN (SELECT time {days} ORDER BY time {opposite} LIMIT 1) END,
        EXISTS (SELECT FROM tick_ranges WHERE state = 'archived'
            AND lower(range) < %(end)s::timestamptz AND upper(range) > %(first_day)s::timestamptz)
    FROM (SELECT
        (SELECT time {days} ORDER BY time {order} LIMIT 1) AS nearest,
        (SELECT time FROM (
            SELECT time, sum(ticks) OVER days - first_value(ticks) OVER days AS ticks_behind_the_nearest {days}
            WINDOW days AS (ORDER BY time {order} ROWS UNBOUNDED PRECEDING)) counted
         WHERE ticks_behind_the_nearest >= %(limit)s ORDER BY time {order} LIMIT 1) AS enough) found
"""
_OF_DAYS = """
    FROM bars WHERE symbol_id = %(symbol_id)s AND resolution = 86400
        AND time >= %(first_day)s::timestamptz AND time < %(end)s::timestamptz
"""
_ARRIVAL = """
    SELECT (extract(epoch FROM received_at) * 1000000)::bigint, journal_no
    FROM ticks WHERE symbol_id = %s AND time = %s::timestamptz AND seq = %s
"""
_DAY_US = 86_400_000_000
_TOKEN = struct.Struct(">qqqi")


@dataclass(frozen=True, slots=True)
class TickKey:
    """Where a tick is in the order; received_us and journal_no are 0 where the sender gave seq."""

    time_us: int
    seq: int
    received_us: int = 0
    journal_no: int = 0

    def encode(self) -> bytes:
        """Return the key as bytes for a page token."""
        return _TOKEN.pack(self.time_us, self.seq, self.received_us, self.journal_no)

    @classmethod
    def decode(cls, data: bytes) -> TickKey:
        """Read what `encode` wrote. Raises ValueError for anything else."""
        try:
            key = cls(*_TOKEN.unpack(data))
        except struct.error as error:
            raise ValueError("not a tick's key") from error
        timestamp(key.time_us)
        timestamp(key.time_us + 1)  # where what is before it ends
        timestamp(key.received_us)
        return key


@dataclass(slots=True)
class TickPage:
    """Ticks in the asked order, the key of the last one, and whether there are more behind it.

    received_us: when each was accepted (UTC microseconds), where that was asked for.
    """

    table: Table
    last_key: TickKey | None
    more: bool
    received_us: I8 | None = None


def read_ticks(
    cur: Cursor,
    symbol_id: int,
    start_us: int | None,
    end_us: int | None,
    *,
    after: TickKey | None,
    descending: bool,
    max_rows: int,
    with_arrival: bool = False,
) -> TickPage:
    """Return at most `max_rows` ticks of [start_us, end_us), behind `after` in the asked direction.

    with_arrival: and when each was accepted.
    """
    if after is not None and descending:
        end_us = after.time_us + 1 if end_us is None else min(end_us, after.time_us + 1)
    elif after is not None:
        start_us = after.time_us if start_us is None else max(start_us, after.time_us)
    parameters: dict[str, Any] = {
        "symbol_id": symbol_id,
        "start": "-infinity" if start_us is None else timestamp(start_us),
        "end": "infinity" if end_us is None else timestamp(end_us),
        "limit": max_rows + 1,
    }
    behind = ""
    if after is not None:
        compare = "<" if descending else ">"
        behind = _BEHIND.format(compare=compare)
        given = after.seq >= 0  # then seq alone decides, whenever the tick itself arrived
        arrival = ("-infinity" if descending else "infinity") if given else timestamp(after.received_us)
        parameters |= {
            "time": timestamp(after.time_us),
            "seq": after.seq,
            "received_at": arrival,
            "journal_no": after.journal_no,
        }
    key = _KEY.format(" DESC" if descending else "")
    columns = f"{_COLUMNS}, received_at" if with_arrival else _COLUMNS
    query = _READ.format(columns=columns, key=key, behind=behind)
    near = _near(cur, parameters, start_us, end_us, descending)
    if near is None:
        return _nothing(with_arrival)
    place = None if after is None else _place(after, descending)
    reading = _Reading(cur, query, parameters, place, descending, near.archived, with_arrival)
    found = reading.read(near.range)
    if near.should_be_enough and found.rows <= max_rows:
        # Bars may outlive their ticks: then the days promise what is not there.
        found = reading.read({"start": parameters["start"], "end": parameters["end"]})
    return found.page(cur, symbol_id, max_rows) if found.rows else _nothing(with_arrival)


def _nothing(with_arrival: bool) -> TickPage:
    return TickPage(empty(TICKS), None, False, np.zeros(0, np.int64) if with_arrival else None)


@dataclass(slots=True)
class _Part:
    """Rows of one place: their columns, and whole where they are from the archive."""

    columns: list[npt.NDArray[Any]]
    archived: WholeTicks | None = None


@dataclass(slots=True)
class _Found:
    """The parts of a range in the direction."""

    parts: list[_Part] = field(default_factory=list)
    rows: int = 0

    def add(self, part: _Part) -> None:
        if len(part.columns[0]):
            self.parts.append(part)
            self.rows += len(part.columns[0])

    def page(self, cur: Cursor, symbol_id: int, max_rows: int) -> TickPage:
        """Return the first `max_rows` of them; there is one at least."""
        kept, left = self.parts[0], max_rows
        for kept in self.parts:
            if left <= len(kept.columns[0]):
                break
            left -= len(kept.columns[0])
        lists = zip(*(part.columns for part in self.parts), strict=True)
        columns = [(values[0] if len(values) == 1 else np.concatenate(values))[:max_rows] for values in lists]
        more = self.rows > max_rows
        last_us, last_seq = int(columns[0][-1]), int(columns[9][-1])
        last_key = TickKey(last_us, last_seq)
        if last_seq < 0 and more and kept.archived is not None:
            ticks = kept.archived
            last_key = TickKey(last_us, last_seq, int(ticks.received_us[left - 1]), int(ticks.journal_no[left - 1]))
        elif last_seq < 0 and more:
            cur.execute(_ARRIVAL, (symbol_id, timestamp(last_us), last_seq))
            found = cur.fetchone()
            assert found is not None  # the same snapshot has just shown it
            last_key = TickKey(last_us, last_seq, *found)
        received_us = columns[len(TICKS)] if len(columns) > len(TICKS) else None
        return TickPage(Table(TICKS, list(columns[: len(TICKS)])), last_key, more, received_us)


@dataclass(slots=True)
class _Reading:
    """Reads ticks of one symbol in one direction, `limit` of the parameters at most, wherever they are."""

    cur: Cursor
    query: str
    parameters: dict[str, Any]
    after: Place | None
    descending: bool
    archived: bool
    with_arrival: bool

    def read(self, bounds: dict[str, str]) -> _Found:
        """Return the first ticks of a range. Raises ArchiveAway."""
        found = _Found()
        places = archived_within(self.cur, bounds["start"], bounds["end"]) if self.archived else []
        for start, end, place in _pieces(bounds, places, self.descending):
            limit = self.parameters["limit"] - found.rows
            if limit <= 0:
                break
            if place is None:
                found.add(self._hot({"start": start, "end": end, "limit": limit}))
            else:
                found.add(self._archived(place, start, end, limit))
        return found

    def _hot(self, bounds: dict[str, Any]) -> _Part:
        names, formats = _NAMES, _FORMATS
        if self.with_arrival:
            names, formats = (*names, "received_at"), (*formats, ">i8")
        columns = copy_columns(self.cur, self.cur.mogrify(self.query, self.parameters | bounds), names, formats)
        for times in (columns[0], *columns[len(_NAMES) :]):
            times += POSTGRES_EPOCH_US
        return _Part(columns)

    def _archived(self, place: Archived, start: str, end: str, limit: int) -> _Part:
        root = archive_dir_of(self.cur)
        ticks = read_archived(
            root,
            place.folder,
            place.manifest(root),
            self.parameters["symbol_id"],
            _us(start),
            _us(end),
            after=self.after,
            descending=self.descending,
            max_rows=limit,
        )
        columns = [ticks.time_us, *(getattr(ticks, name) for name in _NAMES[1:])]
        columns[8] = ticks.flags.astype(np.int64)
        if self.with_arrival:
            columns.append(ticks.received_us)
        return _Part(columns, ticks)


def _pieces(
    bounds: dict[str, str], places: list[Archived], descending: bool
) -> list[tuple[str, str, Archived | None]]:
    """Return the range in pieces, in the direction: those that are archived, and what lies between them."""
    if not places:
        return [(bounds["start"], bounds["end"], None)]
    at_us, end_us = _us(bounds["start"]), _us(bounds["end"])
    pieces: list[tuple[str, str, Archived | None]] = []
    for place in places:
        low_us, high_us = max(at_us, place.start_us), min(end_us, place.end_us)
        if at_us < low_us:
            pieces.append((timestamp(at_us), timestamp(low_us), None))
        pieces.append((timestamp(low_us), timestamp(high_us), place))
        at_us = high_us
    if at_us < end_us:
        pieces.append((timestamp(at_us), timestamp(end_us), None))
    return pieces[::-1] if descending else pieces


def _us(text: str) -> int:
    """Return the microseconds of what `timestamp` wrote, or of an infinity."""
    if text.endswith("infinity"):
        return EARLIEST_US if text.startswith("-") else LATEST_US
    return int(np.datetime64(text[:-1], "us").astype(np.int64))


def _place(after: TickKey, descending: bool) -> Place:
    """Return where a key is in the order of the archive."""
    if after.seq < 0:
        return after.time_us, True, 0, after.received_us, after.journal_no
    # A given seq alone decides, whenever the tick arrived.
    return after.time_us, False, after.seq, EARLIEST_US if descending else LATEST_US, 0


@dataclass(slots=True)
class _Near:
    """A part of a range that holds its first ticks in the direction, all of them unless it should be enough."""

    range: dict[str, str]
    should_be_enough: bool
    archived: bool


def _near(
    cur: Cursor, parameters: dict[str, Any], start_us: int | None, end_us: int | None, descending: bool
) -> _Near | None:
    """Return the part of the range to look in for a page; None: there are no ticks in the range.

    Planning looks at every weekly partition that a range touches: 160 ms for those of ten years, 1 for one.
    """
    first_day = "-infinity" if start_us is None else timestamp(start_us // _DAY_US * _DAY_US)
    order, opposite = ("DESC", "") if descending else ("", "DESC")
    cur.execute(
        _DAYS.format(days=_OF_DAYS, order=order, opposite=opposite), {**parameters, "first_day": first_day}
    )
    found = cur.fetchone()
    if found is None or found[0] is None:
        return None
    nearest, enough, farthest, archived = found
    low_us, high_us = sorted(round(day.timestamp()) * 1_000_000 for day in (nearest, enough or farthest))
    high_us += _DAY_US
    low_us = low_us if start_us is None else max(low_us, start_us)
    high_us = high_us if end_us is None else min(high_us, end_us)
    return _Near({"start": timestamp(low_us), "end": timestamp(high_us)}, enough is not None, archived)


def timestamp(us: int) -> str:
    """Return UTC microseconds as PostgreSQL reads a timestamptz. Raises ValueError outside the years 1 to 9999."""
    if not -62_135_596_800_000_000 <= us <= 253_402_300_799_999_999:
        raise ValueError("no time that can be stored")
    return f"{np.datetime64(us, 'us')}Z"
