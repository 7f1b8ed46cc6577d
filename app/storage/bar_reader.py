"""Read bars by pages: maintained ones as they are, others made of them or of ticks, gaps filled. Lane side.

A page is many statements: run it in one REPEATABLE READ transaction, or a bar may be made of two states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from app.formats.table import Field, Table
from app.market.bar_series import Pieces, Series, combine, filled, in_sequence, priced
from app.market.intervals import Buckets
from app.storage.bar_sources import EARLIEST_US, LATEST_US, bar_pieces, extent, finished_bars, tick_pieces

BARS: tuple[Field, ...] = (
    Field("timestamp", "time", "where the bar begins, UTC"),
    Field("open", "float", "first price"),
    Field("high", "float", "highest price"),
    Field("low", "float", "lowest price"),
    Field("close", "float", "last price"),
    Field("volume", "float", "volume of the trades, in the instrument's units"),
    Field("buy_volume", "float", "volume of the trades by buyers, in the instrument's units"),
    Field("sell_volume", "float", "volume of the trades by sellers, in the instrument's units"),
    Field("ticks", "int", "number of ticks, quotes and trades; 0: a gap, filled with the close before"),
    Field("complete", "bool", "whether the bar's time is over; late ticks may still change it"),
)

_MAINTAINED = ("1m", "1h", "1d")
_SEGMENT_US = 366 * 86_400_000_000
"""How much of a zone's calendar is looked at together: where it has data, and the longest bars to make it of."""

_CHANGE_US = 2 * 86_400_000_000
"""More than a change of offset adds to a bucket."""


@dataclass(frozen=True, slots=True)
class BarQuery:
    """Which bars: those of a price whose start is in [start_us, end_us), UTC microseconds; None: no bound.

    price: of PRICES. fill: with bars that hold the close before in the gaps, up to now_us where there is a range.
    """

    buckets: Buckets
    price: str
    start_us: int | None
    end_us: int | None
    fill: bool
    now_us: int


@dataclass(slots=True)
class BarPage:
    """Bars (BARS) in the asked order, and whether there are more behind the last one."""

    table: Table
    more: bool


def read_bars(
    cur: Cursor,
    symbol_id: int,
    nonpositive_ok: bool,
    query: BarQuery,
    *,
    after_us: int | None,
    descending: bool,
    max_bars: int,
) -> BarPage:
    """Return at most `max_bars` bars, in the asked direction behind the one that starts at `after_us`."""
    reader = _Reader(cur, symbol_id, nonpositive_ok, query, descending)
    bars = reader.page(after_us, max_bars + 1)
    more = len(bars) > max_bars
    if more:
        bars = bars.take(slice(1, None) if descending else slice(max_bars))
    complete = query.buckets.ends(bars.time_us) <= query.now_us
    prices = [bars.open, bars.high, bars.low, bars.close]
    volumes = [bars.volume, bars.buy_volume, bars.sell_volume]
    table = Table(BARS, [bars.time_us, *prices, *volumes, bars.ticks, complete])
    return BarPage(table.backwards() if descending else table, more)


@dataclass(slots=True)
class _Reader:
    cur: Cursor
    symbol_id: int
    nonpositive_ok: bool
    query: BarQuery
    descending: bool

    def page(self, after_us: int | None, rows: int) -> Series:
        """Return at most `rows` bars behind `after_us`, rising in time."""
        query, buckets = self.query, self.query.buckets
        low_us, high_us = _bound(buckets, query.start_us, EARLIEST_US), _bound(buckets, query.end_us, LATEST_US)
        if after_us is not None:
            after_us = min(max(after_us, EARLIEST_US), LATEST_US)
            if self.descending:
                high_us = min(high_us, buckets.first_from(after_us))
            else:
                low_us = max(low_us, buckets.next(after_us))
        if not query.fill:
            return self._read(low_us, high_us, self.descending, rows)
        # No more than that: where bars are rare, as many of them lie far beyond what a page of filled ones reaches.
        reach_us = rows * (buckets.longest_s * 1_000_000 + _CHANGE_US * buckets.by_calendar)
        filled_page = self._filled_backwards if self.descending else self._filled
        return filled_page(low_us, high_us, after_us, rows, reach_us)

    def _filled(self, low_us: int, high_us: int, after_us: int | None, rows: int, reach_us: int) -> Series:
        """Return the first `rows` bars of [low_us, high_us), gaps filled; they take `reach_us` at most."""
        query, buckets = self.query, self.query.buckets
        begins_us, close_before = None, float("nan")
        if query.start_us is not None or after_us is not None:
            reached_us = buckets.first_from(min(high_us, low_us + reach_us))
            bars = self._read(low_us, reached_us, False, rows)
            if len(bars) and int(bars.time_us[0]) == low_us:
                begins_us = low_us
            elif len(before := self._read(EARLIEST_US, low_us, True, 1)):
                begins_us, close_before = low_us, float(before.close[0])
        if begins_us is None:
            first = self._read(low_us, high_us, False, 1)
            if not len(first):
                return first
            begins_us = int(first.time_us[0])
            reached_us = buckets.first_from(min(high_us, begins_us + reach_us))
            bars = self._read(begins_us, reached_us, False, rows)
        ends_us = int(bars.time_us[-1]) + 1 if len(bars) else begins_us
        if len(bars) < rows:
            if query.start_us is not None or query.end_us is not None:
                ends_us = max(ends_us, min(high_us, query.now_us))
            if ends_us < reached_us < high_us and len(self._read(reached_us, high_us, False, 1)):
                ends_us = reached_us
        return filled(bars, buckets.between(begins_us, min(ends_us, reached_us))[:rows], close_before)

    def _filled_backwards(self, low_us: int, high_us: int, after_us: int | None, rows: int, reach_us: int) -> Series:
        """Return the last `rows` bars of [low_us, high_us), gaps filled; they take `reach_us` at most."""
        query, buckets = self.query, self.query.buckets
        is_range = query.start_us is not None or query.end_us is not None
        at_least_us = high_us
        if after_us is None and is_range:
            at_least_us = min(high_us, query.now_us)
        elif after_us is None:
            newest = self._read(low_us, high_us, True, 1)
            if not len(newest):
                return newest
            at_least_us = int(newest.time_us[0]) + 1
        reached_us = buckets.start(max(low_us, at_least_us - reach_us))
        bars = self._read(reached_us, high_us, True, rows)
        begins_us, close_before = int(bars.time_us[0]) if len(bars) else None, float("nan")
        if len(bars) < rows and begins_us != reached_us and (query.start_us is not None or reached_us > low_us):
            before = self._read(EARLIEST_US, reached_us, True, 1)
            if len(before):
                begins_us, close_before = reached_us, float(before.close[0])
        if begins_us is None:
            return bars
        ends_us = int(bars.time_us[-1]) + 1 if len(bars) else begins_us
        if after_us is not None:
            ends_us = high_us
        elif is_range:
            ends_us = max(ends_us, at_least_us)
        starts = buckets.between(max(begins_us, ends_us - reach_us), ends_us)[-rows:]
        return filled(bars, starts, close_before)

    def _read(self, low_us: int, high_us: int, descending: bool, rows: int) -> Series:
        """Return at most `rows` bars of [low_us, high_us), both starts of buckets, the first in the direction."""
        buckets, price = self.query.buckets, self.query.price
        if buckets.interval in _MAINTAINED and buckets.in_utc:
            if price != "bid" and buckets.longest_s < 86_400:
                low_us, high_us = self._narrowed(low_us, high_us)
            if low_us >= high_us:
                return in_sequence([])
            length_s = buckets.longest_s
            return finished_bars(self.cur, self.symbol_id, length_s, price, low_us, high_us, descending, rows)
        parts: list[Series] = []
        missing = rows
        for pieces in self._combined(low_us, high_us, descending, rows):
            parts.append(priced(pieces))
            missing -= len(parts[-1])
            if missing <= 0:
                break
        bars = in_sequence(parts[::-1] if descending else parts)
        return bars.take(slice(-rows, None) if descending else slice(rows))

    def _narrowed(self, low_us: int, high_us: int) -> tuple[int, int]:
        """Return [low_us, high_us) without the days at either end that have no such price; empty: none has.

        Days are few: among the minutes of years it would take long to find that there is none.
        """
        buckets = self.query.buckets
        days = extent(self.cur, self.symbol_id, self.query.price, low_us, high_us) if low_us < high_us else None
        if days is None:
            return low_us, low_us
        return max(low_us, buckets.start(days[0])), min(high_us, buckets.next(days[1] - 1))

    def _combined(self, low_us: int, high_us: int, descending: bool, rows: int) -> Iterator[Pieces]:
        """Yield the bars of [low_us, high_us), whole, in parts; each rises in time, the parts are in the direction."""
        buckets = self.query.buckets
        while (bounds := self._narrowed(low_us, high_us))[0] < bounds[1]:
            low_us, high_us = start_us, end_us = bounds
            if buckets.in_utc:
                low_us = high_us
            elif descending:
                high_us = start_us = max(low_us, buckets.start(high_us - _SEGMENT_US))
            else:
                low_us = end_us = min(high_us, buckets.start(low_us + _SEGMENT_US))
            open_bar: Pieces | None = None
            for pieces in self._pieces(start_us, end_us, descending, rows):
                opened = [] if open_bar is None else [open_bar]
                bars = combine([pieces, *opened] if descending else [*opened, pieces], buckets)
                # The one at the edge may go on in the next part.
                whole, edge = (slice(1, None), slice(1)) if descending else (slice(-1), slice(-1, None))
                open_bar = bars.take(edge)
                if len(bars) > 1:
                    yield bars.take(whole)
            if open_bar is not None:
                yield open_bar

    def _pieces(self, low_us: int, high_us: int, descending: bool, rows: int) -> Iterator[Pieces]:
        buckets, price = self.query.buckets, self.query.price
        source_s = buckets.source_s(low_us, high_us)
        if source_s is None:
            minutes = (rows + 1) * buckets.longest_s // 60 + 2
            return tick_pieces(
                self.cur, self.symbol_id, self.nonpositive_ok, price, buckets, low_us, high_us, descending, minutes
            )
        wanted = (rows + 1) * (buckets.longest_s // source_s)
        return bar_pieces(self.cur, self.symbol_id, source_s, price, low_us, high_us, descending, wanted)


def _bound(buckets: Buckets, us: int | None, if_none: int) -> int:
    return buckets.first_from(min(max(if_none if us is None else us, EARLIEST_US), LATEST_US))
