"""Where rows of a request come from: ticks, and bars. Lane side."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg2.extensions import cursor as Cursor

from app.formats.table import Field, Table
from app.page_token import foreign_token
from app.row_stream import Page
from app.storage.bar_reader import BARS, BarQuery, read_bars
from app.storage.instruments import Known
from app.storage.range_version import range_version
from app.storage.tick_reader import TICKS, TickKey, read_ticks

_PLACE = struct.Struct(">q")
BARS_END_US = 7_258_118_400_000_000
"""2200-01-01: ticks lie between 1970 and then, so bars do."""

TICK_RECORDS: tuple[Field, ...] = (Field("symbol", "text", "the symbol's name"), *TICKS)

MOST_SHIFT_US = 2 * 86_400_000_000
"""More than a change of offset adds to a bar."""


@dataclass(frozen=True, slots=True)
class TickSource:
    """Ticks of [start_us, end_us)."""

    start_us: int | None
    end_us: int | None
    fields: tuple[Field, ...] = TICKS
    list_name: str = "ticks"
    extra: Mapping[str, str] = field(default_factory=dict)
    kind: tuple[str, ...] = ("ticks",)

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return [start_us, end_us)."""
        return self.start_us, self.end_us

    @property
    def touched(self) -> tuple[int | None, int | None]:
        """Return the range itself."""
        return self.range

    def head(self, instrument: Known) -> Mapping[str, str]:
        """Return the symbol."""
        return {"symbol": instrument.symbol, **self.extra}

    def version(self, cur: Cursor, instrument: Known) -> str:
        """Return the version of the ticks in the range."""
        return range_version(cur, instrument.symbol_id, *self.touched)

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next ticks. Raises BadParameter for a place that is none."""
        try:
            key = None if after is None else TickKey.decode(after)
        except ValueError as error:
            raise foreign_token() from error
        found = read_ticks(
            cur,
            instrument.symbol_id,
            self.start_us,
            self.end_us,
            after=key,
            descending=descending,
            max_rows=max_rows,
        )
        return Page(found.table, None if found.last_key is None else found.last_key.encode(), found.more)

    def lasting(self, table: Table) -> bool:
        """Ticks are what they are."""
        return True


@dataclass(frozen=True, slots=True)
class TickRecordSource(TickSource):
    """Ticks of [start_us, end_us) in the shape of datasets: each has its symbol."""

    fields: tuple[Field, ...] = TICK_RECORDS
    list_name: str = "records"
    kind: tuple[str, ...] = ("tick records",)

    def head(self, instrument: Known) -> Mapping[str, str]:
        """Return the dataset's name."""
        return {"dataset": "ticks"}

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next ticks. Raises BadParameter for a place that is none."""
        # Not super(): a class with slots is made twice, and it knows the first one only.
        found = TickSource.read(self, cur, instrument, after=after, descending=descending, max_rows=max_rows)
        symbols: list[str | None] = [instrument.symbol] * len(found.table)
        return Page(Table(self.fields, [symbols, *found.table.columns]), found.place, found.more)


@dataclass(frozen=True, slots=True)
class BarSource:
    """Bars of a query."""

    query: BarQuery
    extra: Mapping[str, str]
    kind: tuple[str, ...]
    fields: tuple[Field, ...] = BARS
    list_name: str = "bars"

    @property
    def range(self) -> tuple[int | None, int | None]:
        """Return [start, end) of the bars' starts."""
        return self.query.start_us, self.query.end_us

    @property
    def touched(self) -> tuple[int | None, int | None]:
        """Return the times of all ticks that the bars are made of, and of those that gaps are filled from."""
        query = self.query
        start_us = None if query.fill else query.start_us
        if query.end_us is None:
            return start_us, None
        # A bar is whole, also when `end` lies within it.
        buckets = query.buckets
        return start_us, buckets.next(buckets.start(query.end_us - 1))

    @property
    def closed(self) -> bool:
        """Tell whether no bar of the range runs any more."""
        end_us, now_us, buckets = self.query.end_us, self.query.now_us, self.query.buckets
        if end_us is None or end_us > now_us:
            return False
        # Where a zone's days begin takes 10 ms a year to find out, and this is asked on the greenlet side.
        if end_us + buckets.longest_s * 1_000_000 + MOST_SHIFT_US <= now_us:
            return True
        return (self.touched[1] or 0) <= now_us

    def head(self, instrument: Known) -> Mapping[str, str]:
        """Return the symbol, and which bars they are."""
        return {"symbol": instrument.symbol, **self.extra}

    def version(self, cur: Cursor, instrument: Known) -> str:
        """Return the version of the ticks that the bars are made of."""
        return range_version(cur, instrument.symbol_id, *self.touched)

    def read(self, cur: Cursor, instrument: Known, *, after: bytes | None, descending: bool, max_rows: int) -> Page:
        """Return the next bars. Raises BadParameter for a place that is none."""
        try:
            after_us = None if after is None else int(_PLACE.unpack(after)[0])
            if after_us is not None and not -BARS_END_US < after_us < BARS_END_US:
                raise ValueError("no time of a bar")
        except (struct.error, ValueError) as error:
            raise foreign_token() from error
        found = read_bars(
            cur,
            instrument.symbol_id,
            instrument.nonpositive_ok,
            self.query,
            after_us=after_us,
            descending=descending,
            max_bars=max_rows,
        )
        starts = found.table.columns[0]
        place = _PLACE.pack(int(starts[-1] or 0)) if len(starts) else None
        return Page(found.table, place, found.more)

    def lasting(self, table: Table) -> bool:
        """Tell whether the clock alone changes nothing: no bar runs, and no gap is filled up to now."""
        complete = table.columns[-1]
        return self.closed or (not self.query.fill and all(bool(done) for done in complete))
