"""The newest prices of many instruments, from ticks in any order and from rows of the database. Pure.

It is a set that only grows: of all points (prices with their order keys) that it was shown, it keeps for each
instrument the newest of each price, and of those that can be its price the last one before the session, the last one
before the session's own close (what comes after hours is not compared with) and the very first one. So the order in
which ticks and rows come makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import chain

import numpy as np

from app.market.bars import CurrentRows, Keys, in_order, newest, order_keys, valid_prices
from app.market.columns import F8, I4, I8, Mask, StoredTicks, Ticks
from app.market.quote_points import EARLY, LATE, Points, Rows
from app.market.quotes import Point, Quote, QuoteRow, make_quote, quotes_of, stale_after
from app.market.sessions import Market, Sessions
from app.market.symbols import SymbolMap

PRICES = ("bid", "ask", "last")
SIDES = ("bid", "last")
"""What an instrument's price can be."""

MAX_SEEN = 1000
"""Derived identities remembered of one instrument and microsecond: beyond, a resend of one may look like a new tick."""

_COLUMNS = tuple(f.name for f in fields(Ticks) if f.name not in ("names", "symbol"))

class QuoteBook:
    """Newest prices by instrument. A tick of an identity that it has seen at the newest time changes nothing."""

    def __init__(self) -> None:
        self._symbols: SymbolMap | None = None
        self._sessions = Sessions()
        self._at: dict[str, int] = {}
        self._markets: list[Market] = []
        self._cut_us: I8 = np.zeros(0, np.int64)
        self._close_us: I8 = np.zeros(0, np.int64)
        self._end_us: I8 = np.zeros(0, np.int64)
        self._nonpositive_ok: Mask = np.zeros(0, np.bool_)
        self._points_of_one: F8 = np.zeros(0)
        self._tick = Points(EARLY)
        self._newest = {price: Points(EARLY) for price in PRICES}
        self._before = {side: Points(EARLY) for side in SIDES}
        self._closing = {side: Points(EARLY) for side in SIDES}
        """The last price before the session's own close; kept only where the newest tick is after that."""
        self._first = {side: Points(LATE) for side in SIDES}
        self._spread: F8 = np.zeros(0)
        self._volume: F8 = np.zeros(0)
        self._buy_volume: F8 = np.zeros(0)
        self._sell_volume: F8 = np.zeros(0)
        self._flags: I4 = np.zeros(0, np.int32)
        self._seen: dict[int, dict[int, set[int]]] = {}
        """Derived identities by instrument and time, of the times that a newest price has."""

    def add(self, batches: Sequence[tuple[Ticks, int]], symbols: SymbolMap) -> None:
        """Show it ticks. Each batch comes with the time at which its first row was received (UTC microseconds)."""
        if not batches:
            return
        ticks = self._without_seen(in_order(self._joined(batches, symbols)))
        if not len(ticks):
            return
        ends: Rows = np.flatnonzero(np.append(ticks.symbol_id[1:] != ticks.symbol_id[:-1], True))
        ids, last_us = ticks.symbol_id[ends], ticks.time_us[ends]
        later = last_us >= self._end_us[ids]
        for at, time_us in zip(ids[later].tolist(), last_us[later].tolist(), strict=True):
            self._begin_session(at, time_us)
        late = ticks.time_us < self._cut_us[ticks.symbol_id]
        if late.any():
            self._merge_prices(self._before, newest(ticks.take(late)))
        self._merge_closings(ticks, ids, last_us)
        self._merge_firsts(ticks)
        found = newest(ticks)
        self._merge_prices(self._newest, found)
        self._merge_ticks(found)
        self._remember_seen(ticks, ids)

    def load(self, rows: Iterable[QuoteRow], symbols: SymbolMap) -> list[str]:
        """Show it what the database has; of two points with one key the database's counts.

        Return the symbols of which this was news.
        """
        rows = list(rows)
        self._know(symbols, [row.symbol for row in rows])
        return [row.symbol for row in rows if self._load(self._at[row.symbol], row)]

    def forget(self, name: str) -> None:
        """Know nothing of an instrument any more, until it is loaded or has a tick."""
        at = self._at.get(name)
        if at is None:
            return
        for points in (*self._dated(), *self._first.values()):
            points.clear(at)
        for edges in (self._cut_us, self._close_us, self._end_us):
            edges[at] = EARLY
        for values in (self._spread, self._volume, self._buy_volume, self._sell_volume):
            values[at] = np.nan
        self._flags[at] = 0
        self._seen.pop(at, None)

    def rows(self, names: Sequence[str]) -> list[QuoteRow]:
        """Return what it knows of the instruments that have a tick, as another book can load it."""
        known = [(name, self._at.get(name, -1)) for name in names]
        return [self._row(name, at) for name, at in known if at >= 0 and self._tick.has(at)]

    def quotes(self, names: Sequence[str], now_us: int, stale_after_s: float) -> Iterator[Quote]:
        """Yield the instruments' quotes at this time (UTC microseconds); of a name without ticks, one of nulls."""
        if not self._at:
            yield from quotes_of(map(QuoteRow, names), now_us, stale_after_s)
            return
        known = np.array([self._at.get(name, -1) for name in names], np.int64)
        columns = [
            points.price[known].tolist()
            for points in (*self._newest.values(), *self._before.values(), *self._first.values())
        ]
        columns += [
            values[known].tolist() for values in (self._spread, self._volume, self._buy_volume, self._sell_volume)
        ]
        rest = (known.tolist(), self._flags[known].tolist(), self._tick.time_us[known].tolist())
        limits: dict[str | None, float] = {}
        for name, at, flags, time_us, *prices in zip(names, *rest, *columns, strict=True):
            if at < 0 or time_us == EARLY:
                yield from quotes_of([QuoteRow(name)], now_us, stale_after_s)
                continue
            bid, ask, last, *references, spread, volume, buy, sell = (None if x != x else x for x in prices)
            before_bid, before_last, first_bid, first_last = references
            before, first = (before_bid, first_bid) if last is None else (before_last, first_last)
            reference = first if before is None else before
            exchange = self._markets[at][0]
            if (limit_s := limits.get(exchange)) is None:
                limit_s = limits[exchange] = stale_after(stale_after_s, exchange, now_us)
            yield make_quote(
                name, bid, ask, last, spread, volume, buy, sell, flags, time_us, reference, now_us, limit_s
            )

    def newest_times(self) -> Iterator[tuple[str, str | None, int]]:
        """Yield of the instruments that have a tick: symbol, exchange, time of the newest one (UTC microseconds)."""
        for (name, at), time_us in zip(self._at.items(), self._tick.time_us.tolist(), strict=False):
            if time_us != EARLY:
                yield name, self._markets[at][0], time_us

    def _know(self, symbols: SymbolMap, names: Sequence[str]) -> list[int]:
        """Return where the names are; make room for new ones, take over what a new symbol map says of all."""
        try:
            found = list(map(self._at.__getitem__, names))
            new = False
        except KeyError:
            found = [self._at.setdefault(name, len(self._at)) for name in names]
            new = True
            self._grow(len(self._at))
        if new or symbols is not self._symbols:
            self._symbols = symbols
            known = [
                symbols.instruments[index] if index >= 0 else None for index in map(symbols.index, self._at)
            ]
            self._nonpositive_ok = np.array([one is not None and one.nonpositive_ok for one in known], np.bool_)
            self._points_of_one = np.array(
                [np.nan if one is None or one.digits is None else 10.0**one.digits for one in known]
            )
        return found

    def _grow(self, size: int) -> None:
        for points in (*self._dated(), *self._first.values()):
            points.grow(size)
        more = size - len(self._flags)
        self._markets += [(None, None)] * more
        self._cut_us = np.append(self._cut_us, np.full(more, EARLY))
        self._close_us = np.append(self._close_us, np.full(more, EARLY))
        self._end_us = np.append(self._end_us, np.full(more, EARLY))
        self._flags = np.append(self._flags, np.zeros(more, np.int32))
        for name in ("_spread", "_volume", "_buy_volume", "_sell_volume"):
            setattr(self, name, np.append(getattr(self, name), np.full(more, np.nan)))

    def _joined(self, batches: Sequence[tuple[Ticks, int]], symbols: SymbolMap) -> StoredTicks:
        """Return the batches as one, as they will be stored but for the journal's number, which is not known."""
        lengths = np.array([len(ticks.time_us) for ticks, _ in batches])
        columns = {name: np.concatenate([getattr(ticks, name) for ticks, _ in batches]) for name in _COLUMNS}
        names = list(chain.from_iterable(ticks.names for ticks, _ in batches))
        ids = np.array(self._know(symbols, names), np.int32)
        first_name = np.cumsum([0, *(len(ticks.names) for ticks, _ in batches[:-1])])
        symbol_id = ids[np.concatenate([ticks.symbol for ticks, _ in batches]) + np.repeat(first_name, lengths)]
        rows = len(symbol_id)
        first_row = np.cumsum(lengths) - lengths
        received_us = np.repeat(np.array([us for _, us in batches]) - first_row, lengths) + np.arange(rows)
        spread = columns["spread"]
        absent = np.isnan(spread)
        if absent.any():
            points = (columns["ask"] - columns["bid"]) * self._points_of_one[symbol_id]
            columns["spread"] = np.where(absent, np.round(points, 6), spread)  # as with_spread does in storage
        return StoredTicks(
            symbol_id=symbol_id,
            journal_no=np.zeros(rows, np.int32),
            received_us=received_us,
            row_no=np.zeros(rows, np.int64),
            nonpositive_ok=self._nonpositive_ok[symbol_id],
            **columns,
        )

    def _without_seen(self, ticks: StoredTicks) -> StoredTicks:
        """Leave out repeated identities, of ticks in order: a resend is stored as nothing, and must be nothing here."""
        derived = ticks.seq < 0
        same = (ticks.symbol_id[1:] == ticks.symbol_id[:-1]) & (ticks.time_us[1:] == ticks.time_us[:-1])
        gone = np.zeros(len(ticks), np.bool_)
        if same.any():
            order = np.lexsort((ticks.seq, ticks.time_us, ticks.symbol_id))
            again = np.append(False, same) & np.append(False, np.diff(ticks.seq[order]) == 0)
            gone[order] = again  # in this order too, the same times are at the same places
        if self._seen and derived.any():
            for row in np.flatnonzero(derived & ~gone & self._at_known_times(ticks)).tolist():
                times = self._seen.get(int(ticks.symbol_id[row]), {})
                gone[row] = int(ticks.seq[row]) in times.get(int(ticks.time_us[row]), ())
        return ticks.take(~gone) if gone.any() else ticks

    def _remember_seen(self, ticks: StoredTicks, ids: I4) -> None:
        derived = ticks.seq < 0
        if self._seen:
            for at in ids.tolist():
                times = self._seen.get(at)
                if times:
                    kept = {int(points.time_us[at]) for points in self._dated()}
                    self._seen[at] = {time_us: seen for time_us, seen in times.items() if time_us in kept}
        if derived.any():
            for row in np.flatnonzero(derived & self._at_known_times(ticks)).tolist():
                times = self._seen.setdefault(int(ticks.symbol_id[row]), {})
                seen = times.setdefault(int(ticks.time_us[row]), set())
                if len(seen) < MAX_SEEN:
                    seen.add(int(ticks.seq[row]))

    def _at_known_times(self, ticks: StoredTicks) -> Mask:
        """Return which ticks have the time of a newest price, where a resend would win by being received later."""
        known = np.zeros(len(ticks), np.bool_)
        for points in self._dated():
            known |= points.time_us[ticks.symbol_id] == ticks.time_us
        return known

    def _dated(self) -> tuple[Points, ...]:
        return (self._tick, *self._newest.values(), *self._before.values(), *self._closing.values())

    def _begin_session(self, at: int, time_us: int) -> None:
        """Move the instrument on to the session of this time: what was newest, or the last before the close if that
        came after hours, is now the price before it.
        """
        span = self._sessions.of(time_us, self._markets[at])
        self._cut_us[at], self._close_us[at], self._end_us[at] = span.cut_us, span.close_us, span.end_us
        for side in SIDES:
            before, closing = self._before[side], self._closing[side]
            known = (self._newest[side].point(at), closing.point(at), before.point(at))
            for points, until_us in ((before, span.cut_us), (closing, span.close_us)):
                points.clear(at)
                fitting = [point for point in known if point is not None and point.key.time_us < until_us]
                if fitting:
                    points.take_one(at, max(fitting, key=lambda point: point.key))

    def _merge_closings(self, ticks: StoredTicks, ids: I4, last_us: I8) -> None:
        """Keep the last price before the close of those whose newest tick is after it; before the newest are merged.

        last_us: the newest of the ticks of each instrument.
        """
        newest_us, close_us = self._tick.time_us[ids], self._close_us[ids]
        after = np.maximum(last_us, newest_us) >= close_us
        if not after.any():
            return
        for at in ids[after & (newest_us < close_us)].tolist():
            self._close_session(at)
        chosen = np.zeros(len(self._flags), np.bool_)
        chosen[ids[after]] = True
        within = chosen[ticks.symbol_id] & (ticks.time_us < self._close_us[ticks.symbol_id])
        if within.any():
            self._merge_prices(self._closing, newest(ticks.take(within)))

    def _close_session(self, at: int) -> None:
        for side in SIDES:
            self._closing[side].put_from(at, self._newest[side])

    def _merge_prices(self, into: dict[str, Points], found: CurrentRows) -> None:
        for price, points in into.items():
            values = getattr(found, price)
            time_us, order_no = _split(getattr(found, f"{price}_key"))
            there = ~np.isnan(values) & points.newer(found.symbol_id, time_us, order_no)
            points.put(found.symbol_id[there], time_us[there], order_no[there], values[there])

    def _merge_firsts(self, ticks: StoredTicks) -> None:
        """Keep the first price of each instrument, the session's open while there is none before; ticks in order."""
        early = {side: self._first[side].time_us[ticks.symbol_id] >= ticks.time_us for side in SIDES}
        if not any(mask.any() for mask in early.values()):
            return
        bid_ok, _, last_ok = valid_prices(ticks.bid, ticks.ask, ticks.last, ticks.flags, ticks.nonpositive_ok)
        for side, prices, valid in (("bid", ticks.bid, bid_ok), ("last", ticks.last, last_ok)):
            rows = np.flatnonzero(early[side] & valid)
            ids, first = np.unique(ticks.symbol_id[rows], return_index=True)
            rows = rows[first]
            time_us, order_no = _split(order_keys(ticks, rows))
            older = ~self._first[side].newer(ids, time_us, order_no, or_equal=True)
            self._first[side].put(ids[older], time_us[older], order_no[older], prices[rows][older])

    def _merge_ticks(self, found: CurrentRows) -> None:
        time_us, order_no = _split(found.key)
        newer = self._tick.newer(found.symbol_id, time_us, order_no)
        at = found.symbol_id[newer]
        self._tick.put(at, time_us[newer], order_no[newer])
        self._flags[at] = found.flags[newer]
        self._spread[at], self._volume[at] = found.spread[newer], found.volume[newer]
        self._buy_volume[at], self._sell_volume[at] = found.buy_volume[newer], found.sell_volume[newer]

    def _load(self, at: int, row: QuoteRow) -> bool:
        news = False
        if row.market != self._markets[at]:
            self._markets[at] = row.market
            self._end_us[at] = EARLY
        time_us = max(int(self._tick.time_us[at]), row.key.time_us if row.key else EARLY)
        if time_us != EARLY and time_us >= self._end_us[at]:
            cut_us = int(self._cut_us[at])
            self._begin_session(at, time_us)
            news = self._tick.has(at) and cut_us != int(self._cut_us[at])
        if row.key is None:
            return news
        if self._tick.time_us[at] < self._close_us[at] <= row.key.time_us:
            self._close_session(at)
        for price in PRICES:
            point: Point | None = getattr(row, price)
            if point is not None and point.key >= self._newest[price].key(at):
                news |= self._newest[price].take_one(at, point)
        if row.key >= (key := self._tick.key(at)):
            news |= row.key > key
            self._tick.time_us[at], self._tick.order_no[at] = row.key.time_us, row.key.order_no
            self._flags[at] = row.flags or 0
            self._spread[at], self._volume[at] = _or_nan(row.spread), _or_nan(row.volume)
            self._buy_volume[at], self._sell_volume[at] = _or_nan(row.buy_volume), _or_nan(row.sell_volume)
        for side, point in (("bid", row.bid), ("last", row.last), (row.side, row.before), (row.side, row.closing)):
            before, closing = self._before[side], self._closing[side]
            if point is not None and point.key.time_us < self._cut_us[at] and point.key >= before.key(at):
                news |= before.take_one(at, point)
            if point is not None and point.key.time_us < self._close_us[at] and point.key >= closing.key(at):
                closing.take_one(at, point)
        first = self._first[row.side]
        if row.open is not None and row.open.key <= first.key(at):
            news |= first.take_one(at, row.open)
        return news

    def _row(self, name: str, at: int) -> QuoteRow:
        row = QuoteRow(
            name,
            exchange=self._markets[at][0],
            timezone=self._markets[at][1],
            bid=self._newest["bid"].point(at),
            ask=self._newest["ask"].point(at),
            last=self._newest["last"].point(at),
            key=self._tick.key(at),
            spread=_or_none(self._spread[at]),
            volume=_or_none(self._volume[at]),
            buy_volume=_or_none(self._buy_volume[at]),
            sell_volume=_or_none(self._sell_volume[at]),
            flags=int(self._flags[at]),
        )
        row.before, row.open = self._before[row.side].point(at), self._first[row.side].point(at)
        if self._tick.time_us[at] >= self._close_us[at]:
            row.closing = self._closing[row.side].point(at)
        return row


def _split(keys: Keys) -> tuple[I8, I8]:
    """Return time_us and order_no of order keys: two int64[n]."""
    return keys["time"].astype(np.int64), keys["order_no"].astype(np.int64)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if value != value else float(value)
