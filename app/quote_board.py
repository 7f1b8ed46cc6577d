"""Newest quotes of this worker, in memory. Greenlet side.

For when the database is away, and for what was accepted but is not committed yet. What comes in is put aside at once
and looked at when somebody reads, or when more of it waits than should.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import gevent

from app.market.columns import Ticks, sliced
from app.market.quote_book import QuoteBook
from app.market.quotes import Quote, QuoteRow
from app.market.said_prices import SaidPrice, SaidPrices
from app.market.symbols import SymbolMap

SLICE_ROWS = 4000
"""Ticks that are looked at in one go: about a millisecond, in which nobody else is served. So many wait at most."""

SLICE_LOADED = 200
"""The same for rows of the database."""


class QuoteBoard:
    """What this worker accepted, on top of what the database had when it was last read.

    What the other workers accepted comes by the bus (fan_out.py); of what was lost there each worker knows its own
    part, until the database has it. A tick counts from its acceptance on, so one that the database sets aside in the
    end was seen here.
    """

    def __init__(
        self,
        symbols: Callable[[], SymbolMap],
        stale_after_s: float,
        on_news: Callable[[Mapping[str, int]], None] = lambda news: None,
    ) -> None:
        """Take how to get the symbol map as it is now, and the age at which a quote is stale.

        on_news: called with the symbols of which a row that was loaded says more than all ticks until then: 1 for a
        tick that was not seen here, 0 where only what the price is compared with has become known.
        """
        self._symbols = symbols
        self._stale_after_s = stale_after_s
        self._on_news = on_news
        self._book = QuoteBook()
        self._said = SaidPrices()
        self._read: set[str] = set()
        self._waiting: deque[tuple[Ticks, int]] = deque()
        self._waiting_rows = 0

    def accepted(self, ticks: Ticks, received_us: int) -> None:
        """Take note of ticks that are durable; the first was received at `received_us`, the next one 1 us later."""
        rows = len(ticks.time_us)
        if rows <= SLICE_ROWS:
            self._waiting.append((ticks, received_us))
        else:
            for start in range(0, rows, SLICE_ROWS):
                self._waiting.append((sliced(ticks, start, start + SLICE_ROWS), received_us + start))
        self._waiting_rows += rows
        while self._waiting_rows > SLICE_ROWS:
            self._settle_slice()
            if self._waiting_rows > SLICE_ROWS:
                gevent.sleep(0)

    def settle(self) -> None:
        """Look at all that waits; others are served meanwhile when it is much."""
        left = self._waiting_rows
        while left > 0 and self._waiting:
            left -= self._settle_slice()
            if left > 0:
                gevent.sleep(0)

    def loaded(self, rows: Sequence[QuoteRow], *, of_database: bool = True) -> None:
        """Take note of what the database has, or another worker's board; others are served meanwhile."""
        for start in range(0, len(rows), SLICE_LOADED):
            part = list(islice(rows, start, start + SLICE_LOADED))
            self.settle()  # what came in before is no news
            newer = self._book.load(part, self._symbols())
            news = dict.fromkeys([row.symbol for row in part if row.symbol not in self._read], 0) if of_database else {}
            self._read.update(news)
            news |= dict.fromkeys(newer, 1)
            if news:
                self._on_news(news)
            gevent.sleep(0)

    def forget(self, symbols: Sequence[str]) -> None:
        """Know nothing of these instruments (exact names), of which ticks were deleted, until they are loaded."""
        self.settle()
        for name in symbols:
            self._book.forget(name)
            self._said.forget(name)
            self._read.discard(name)

    def rows(self) -> list[QuoteRow]:
        """Return what it knows, of the instruments that have a tick, for another worker's board."""
        self.settle()
        return self._book.rows(sorted(self._symbols().names))

    def newest_times(self) -> list[tuple[str, str | None, int]]:
        """Return of the instruments that have a tick: symbol, exchange, time of the newest one (UTC microseconds)."""
        self.settle()
        return list(self._book.newest_times())

    def was_read(self, symbol: str) -> bool:
        """Tell whether the database was ever read for this instrument; else its quote is of this worker's ticks."""
        return symbol in self._read

    def said(self, symbol: str) -> SaidPrice | None:
        """Return the newest `last` of the ticks that came in here, of an instrument (exact name)."""
        self.settle()
        return self._said.get(symbol)

    def get(self, symbols: Sequence[str] | None = None) -> list[Quote]:
        """Return the quotes of these instruments (exact names), in that order, or of all that there are, by name.

        An instrument without ticks, or with none that this worker knows of, has a quote of nulls.
        """
        self.settle()
        names = sorted(self._symbols().names) if symbols is None else symbols
        return list(self._book.quotes(names, time.time_ns() // 1000, self._stale_after_s))

    def _settle_slice(self) -> int:
        """Look at some of what waits, without a switch to another greenlet; return its number of rows."""
        batches: list[tuple[Ticks, int]] = []
        rows = 0
        while self._waiting and (not batches or rows + len(self._waiting[0][0]) <= SLICE_ROWS):
            batches.append(self._waiting.popleft())
            rows += len(batches[-1][0])
        self._waiting_rows -= rows
        self._book.add(batches, self._symbols())
        for ticks, _ in batches:
            self._said.add(ticks)
        return rows
