"""Write ticks, bars and `current`: from journalled batches to committed rows. Lane side.

New ticks are COPYed straight into `ticks`. When the key is violated, the rows are staged, compared with what is there
(equal content: duplicate; other content: set aside), and the rest is COPYed. Rows go in in one global order, so that
two senders of the same data wait for each other instead of deadlocking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg2
from psycopg2.extensions import cursor as Cursor

from app.market import bars
from app.market.batches import Outcome, Record
from app.market.columns import StoredTicks, Ticks
from app.market.flags import sides
from app.storage.bars_sql import merge_bars, merge_current
from app.storage.connection import Connection, first_line, is_about_a_row
from app.storage.copy_rows import Column, copy_in, copy_out, timestamps
from app.storage.instruments import InstrumentIds
from app.storage.partitions import Partitions
from app.storage.resent import add_resent
from app.storage.set_aside import set_aside
from app.storage.tick_ranges import cold

_NULLABLE = ("bid", "ask", "last", "spread")
_CONFLICT = ("seq_conflict", "another tick has this symbol, time and seq; this one differs from it")
MAX_RACES = 8
"""How often another transaction may commit the same key between our look and our COPY before that counts as trouble."""

_STAGE = """
    CREATE TEMP TABLE staged (ord integer, symbol_id integer, time timestamptz, seq bigint,
        bid double precision, ask double precision, last double precision, volume double precision,
        flags integer) ON COMMIT DROP
"""
# OFFSET 0 keeps the planner from turning 50,000 index look-ups into a scan of the whole table.
_MATCHES = """
    SELECT s.ord, t.same FROM staged s CROSS JOIN LATERAL (
        SELECT t.bid IS NOT DISTINCT FROM nullif(s.bid, 'NaN') AND t.ask IS NOT DISTINCT FROM nullif(s.ask, 'NaN')
           AND t.last IS NOT DISTINCT FROM nullif(s.last, 'NaN')
           AND t.volume = s.volume AND t.flags = s.flags AS same
        FROM {table} t
        WHERE t.symbol_id = s.symbol_id AND t.time = s.time AND t.seq = s.seq
          AND t.time >= to_timestamp({low}) AND t.time <= to_timestamp({high})
        OFFSET 0
    ) t
"""
@dataclass(slots=True)
class Prepared:
    """Ticks ready to be written, and the names of their symbols by id."""

    ticks: StoredTicks
    names: dict[int, str]


class TicksWriter:
    """The writer of the dataset `ticks`; remembers what a connection told it."""

    def __init__(self) -> None:
        self._ids = InstrumentIds()
        self._partitions = Partitions()
        self._store = TickStore()

    def prepare(self, connection: Connection, journal_no: int, records: Sequence[Record]) -> Prepared | None:
        """Decode the records to rows with ids; make missing instruments and partitions. Raises DatabaseAway."""
        parts = [Ticks.decode(record.payload, record.layout) for record in records]
        names = sorted({name for part in parts for name in part.names})
        found = self._ids.resolve(connection, names)
        if found is None:
            return None
        known = dict(zip(names, found, strict=True))
        ids = {name: entry.symbol_id for name, entry in known.items()}
        digits = {entry.symbol_id: entry.digits for entry in known.values()}
        nonpositive = [entry.symbol_id for entry in known.values() if entry.nonpositive_ok]

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        symbol_id = np.concatenate(
            [np.array([ids[name] for name in part.names], np.int32)[part.symbol] for part in parts]
        )
        ticks = StoredTicks(
            symbol_id=symbol_id,
            time_us=joined("time_us"),
            seq=joined("seq"),
            bid=joined("bid"),
            ask=joined("ask"),
            last=joined("last"),
            spread=joined("spread"),
            volume=joined("volume"),
            flags=joined("flags"),
            journal_no=np.full(len(symbol_id), journal_no, np.int32),
            received_us=np.concatenate([r.received_us + np.arange(r.rows) for r in records]),
            row_no=np.concatenate([r.first_row + np.arange(r.rows) for r in records]),
            nonpositive_ok=np.isin(symbol_id, nonpositive) if nonpositive else np.zeros(len(symbol_id), np.bool_),
        )
        ticks.spread = with_spread(ticks, digits)
        if not self._partitions.ensure(connection, ticks.time_us):
            return None
        return Prepared(ticks, {entry.symbol_id: entry.symbol for entry in known.values()})

    def write(self, cur: Cursor, prepared: Prepared) -> Outcome:
        """Write ticks, bars and current in the open transaction."""
        return self._store.write(cur, prepared.ticks, prepared.names)


def store_ticks(cur: Cursor, ticks: StoredTicks, names: dict[int, str]) -> Outcome:
    """Write ticks, bars and current in the open transaction; `names`: symbol by id. Partitions must be there."""
    return TickStore().write(cur, ticks, names)


def with_spread(ticks: StoredTicks, digits: dict[int, int | None]) -> npt.NDArray[np.float64]:
    """Return the spread in points: as sent, else (ask - bid) x 10^digits where the digits are known."""
    spread = ticks.spread
    for symbol_id, places in digits.items():
        if places is not None:
            rows = (ticks.symbol_id == symbol_id) & np.isnan(spread)
            if rows.any():
                points = (ticks.ask[rows] - ticks.bid[rows]) * 10.0**places
                # What a decimal price leaves in binary is far below a millionth of a point.
                spread = spread.copy()
                spread[rows] = np.round(points, 6)
    return spread


@dataclass(slots=True)
class _Part:
    """What became of some rows; it counts only if their savepoint is kept."""

    stored: int = 0
    duplicates: int = 0
    aside: list[tuple[StoredTicks, str, str]] = field(default_factory=list)
    inserted: list[StoredTicks] = field(default_factory=list)
    again: list[StoredTicks] = field(default_factory=list)

    def set_aside(self, ticks: StoredTicks, code: str, message: str) -> None:
        if len(ticks):
            self.aside.append((ticks, code, message))

    def add(self, other: _Part) -> None:
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.aside += other.aside
        self.inserted += other.inserted
        self.again += other.again


class TickStore:
    """Writes ticks in an open transaction; remembers whether the last ones were there already.

    Ticks of archived times go into `late_ticks` by the same rules, without bars and `current`: whether the archive has
    them is seen when they are merged into it (docs/archive.md).
    """

    def __init__(self, table: str = "ticks") -> None:
        self._table = table
        self._expect_known = False
        self._late: TickStore | None = None

    def write(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str]) -> Outcome:
        """Write the ticks that are new, and bars and current from them; set aside what cannot be stored."""
        part = _Part()
        if len(ticks):
            ticks = self._without_cold(cur, ticks, names, part)
        self._write_all(cur, ticks, names, part)
        for rows in part.again:
            add_resent(cur, rows.symbol_id, rows.time_us, rows.journal_no)
        outcome = Outcome(part.stored, part.duplicates, inserted=part.inserted, names=names)
        for rows, code, message in part.aside:
            set_aside(cur, rows, names, code, message)
            outcome.set_aside += len(rows)
            outcome.notes.append(f"{len(rows)} ticks set aside in rejected_ticks: {code}: {message}")
        return outcome

    def _without_cold(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], part: _Part) -> StoredTicks:
        """Set ticks of dropped times aside, write those of archived times where they wait; return the others."""
        dropped, archived = cold(cur, ticks.time_us)
        if dropped.any():
            part.set_aside(ticks.take(dropped), "too_old", "ticks of this time were removed from the database")
        if archived.any():
            # Before the others: who merges them takes its locks in this order too.
            self._late = self._late or TickStore("late_ticks")
            self._late._write_all(cur, ticks.take(archived), names, part)
        hot = ~(dropped | archived)
        return ticks if hot.all() else ticks.take(hot)

    def _write_all(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], part: _Part) -> None:
        if not len(ticks):
            return
        ticks = ticks.take(_global_order(ticks))
        repeated = _same_key_as_before(ticks)
        if repeated.any():
            self._write_or_split(cur, ticks.take(~repeated), names, part)
            self._write_repeats(cur, ticks.take(repeated), names, part)
        else:
            self._write_or_split(cur, ticks, names, part)

    def _write_repeats(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], part: _Part) -> None:
        """Write ticks whose keys occur earlier among these rows, as if they had come in a later flush."""
        while len(ticks):
            ticks = self._without_known(cur, ticks, part)
            repeated = _same_key_as_before(ticks)
            self._write_or_split(cur, ticks.take(~repeated), names, part)
            ticks = ticks.take(repeated)

    def _write_or_split(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], total: _Part) -> None:
        """Write the rows; when the database refuses one of them, find it by halves and set it aside."""
        if not len(ticks):
            return
        cur.execute("SAVEPOINT rows")
        part = _Part()
        try:
            self._write_new(cur, ticks, names, part)
        except psycopg2.Error as error:
            if not is_about_a_row(error):
                raise
            cur.execute("ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows")
            if len(ticks) == 1:
                total.set_aside(ticks, "refused", first_line(error))
                return
            half = len(ticks) // 2
            self._write_or_split(cur, ticks.take(np.arange(half)), names, total)
            self._write_or_split(cur, ticks.take(np.arange(half, len(ticks))), names, total)
            return
        cur.execute("RELEASE SAVEPOINT rows")
        total.add(part)

    def _write_new(self, cur: Cursor, ticks: StoredTicks, names: dict[int, str], part: _Part) -> None:
        offered = len(ticks)
        if self._expect_known:
            ticks = self._without_known(cur, ticks, part)
        for _ in range(MAX_RACES):
            try:
                _copy_ticks(cur, ticks, self._table)
                break
            except psycopg2.errors.UniqueViolation as error:
                if not (error.diag.table_name or "").startswith(self._table):
                    raise
                cur.execute("ROLLBACK TO SAVEPOINT rows")
                ticks = self._without_known(cur, ticks, part)
        else:
            raise psycopg2.OperationalError("the same ticks are being written by others over and over")
        self._expect_known = len(ticks) * 2 < offered
        part.stored += len(ticks)
        if len(ticks) and self._table == "ticks":
            part.inserted.append(ticks)
            merge_bars(cur, bars.aggregate(ticks))
            merge_current(cur, bars.newest(ticks), names)

    def _without_known(self, cur: Cursor, ticks: StoredTicks, part: _Part) -> StoredTicks:
        """Compare with the rows that are there: count duplicates, set conflicts aside, return the new ones."""
        if not len(ticks):
            return ticks
        cur.execute("DROP TABLE IF EXISTS pg_temp.staged")
        cur.execute(_STAGE)
        copy_in(
            cur,
            "staged",
            [
                ("ord", ">i4", np.arange(len(ticks))),
                ("symbol_id", ">i4", ticks.symbol_id),
                ("time", ">i8", timestamps(ticks.time_us)),
                ("seq", ">i8", ticks.seq),
                ("bid", ">f8", ticks.bid),
                ("ask", ">f8", ticks.ask),
                ("last", ">f8", ticks.last),
                ("volume", ">f8", ticks.volume),
                ("flags", ">i4", ticks.flags),
            ],
        )
        low, high = _whole_seconds(ticks)  # they only prune partitions
        matches = copy_out(cur, _MATCHES.format(table=self._table, low=low, high=high), (">i4", "?"))
        known = np.zeros(len(ticks), np.bool_)
        known[matches["v0"]] = True
        equal = np.zeros(len(ticks), np.bool_)
        equal[matches["v0"]] = matches["v1"]
        again = ticks.take(known & equal)
        part.duplicates += len(again)
        if len(again):
            part.again.append(again)
        part.set_aside(ticks.take(known & ~equal), *_CONFLICT)
        return ticks.take(~known)


def _whole_seconds(ticks: StoredTicks) -> tuple[int, int]:
    """Return seconds since 1970 before and after all rows."""
    return int(ticks.time_us.min() // 1_000_000) - 1, int(ticks.time_us.max() // 1_000_000) + 2


def _pattern(ticks: StoredTicks) -> npt.NDArray[np.uint8]:
    """Return which of bid, ask, last and spread are NULL, as bits: rows of one pattern share a COPY."""
    pattern = np.isnan(ticks.bid).astype(np.uint8)
    pattern |= np.isnan(ticks.ask).astype(np.uint8) << 1
    pattern |= np.isnan(ticks.last).astype(np.uint8) << 2
    pattern |= np.isnan(ticks.spread).astype(np.uint8) << 3
    return pattern


def _global_order(ticks: StoredTicks) -> npt.NDArray[np.intp]:
    """Return the rows by (symbol, time, seq), equal keys in order of arrival."""
    low = int(ticks.time_us.min())
    span = int(ticks.time_us.max()) - low + 1
    if span < (1 << 62) // (int(ticks.symbol_id.max()) + 1):
        key = ticks.symbol_id.astype(np.int64) * span + (ticks.time_us - low)
        order = np.argsort(key, kind="stable")
        key = key[order]
        tied = key[1:] == key[:-1]
        seq = ticks.seq[order]
        if not (tied & (seq[1:] < seq[:-1])).any():
            return order
    return np.lexsort((ticks.seq, ticks.time_us, ticks.symbol_id))


def _same_key_as_before(ticks: StoredTicks) -> npt.NDArray[np.bool_]:
    same = np.zeros(len(ticks), np.bool_)
    same[1:] = (
        (ticks.seq[1:] == ticks.seq[:-1])
        & (ticks.time_us[1:] == ticks.time_us[:-1])
        & (ticks.symbol_id[1:] == ticks.symbol_id[:-1])
    )
    return same


def _copy_ticks(cur: Cursor, ticks: StoredTicks, table: str) -> None:
    """COPY the rows, one stream for each pattern of NULLs, patterns ascending (the global lock order)."""
    if not len(ticks):
        return
    pattern = _pattern(ticks)
    present = np.unique(pattern)
    for bits in present:
        rows = ticks if len(present) == 1 else ticks.take(pattern == bits)
        buy, sell = sides(rows.flags, rows.volume)
        columns: list[Column] = [
            ("symbol_id", ">i4", rows.symbol_id),
            ("time", ">i8", timestamps(rows.time_us)),
            ("seq", ">i8", rows.seq),
            *((name, ">f8", getattr(rows, name)) for bit, name in enumerate(_NULLABLE) if not (int(bits) >> bit) & 1),
            ("volume", ">f8", rows.volume),
            ("buy_volume", ">f8", buy),
            ("sell_volume", ">f8", sell),
            ("flags", ">i4", rows.flags),
            ("journal_no", ">i4", rows.journal_no),
            ("received_at", ">i8", timestamps(rows.received_us)),
        ]
        if table == "late_ticks":
            columns.append(("row_no", ">i8", rows.row_no))
        copy_in(cur, table, columns)
