"""From the rows of a tick file to ticks that can be stored: UTC, `seq`, and what is refused. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.market import flags as flag
from app.market.accept import MAX_PRICE, MAX_VOLUME
from app.market.clock import BrokerClock
from app.market.columns import I4, Mask, StoredTicks
from app.market.file_rows import FileRows, without
from app.market.tick_order import REMEMBERED, Ordinals, WallTimes

DAY_US = 86_400_000_000


class FileTicks:
    """The ticks of one file; its blocks are given in order, from the first one on.

    A row that can be read takes its place in the count of its microsecond even when it is refused for its
    price or volume: so `seq` does not depend on settings, and is what a bridge sends that leaves such
    judgement to the server.
    """

    def __init__(self, clock: BrokerClock, oldest_us: int, newest_us: int) -> None:
        self._clock = clock
        self._oldest_us, self._newest_us = oldest_us, newest_us
        self._clocks: dict[int, WallTimes] = {}
        self._ordinals: dict[int, Ordinals] = {}

    def build(
        self, rows: FileRows, symbol_id: I4, nonpositive_ok: Mask, journal_no: int, received_us: int
    ) -> tuple[StoredTicks, FileRows]:
        """Return the ticks, and the rows with those that were refused among the bad lines.

        symbol_id: int32[k], nonpositive_ok: bool[k], for each of the rows' names (k = 1 when the file has
        none). received_us: when row 0 of the file counts as received; each row is a microsecond later than
        the one before. Raises OutOfOrder.
        """
        far = (rows.time_us < self._oldest_us - 2 * DAY_US) | (rows.time_us > self._newest_us + 2 * DAY_US)
        rows = without(rows, [(far, "the time is out of range")])
        rows = self._with_order(rows, symbol_id)
        assert rows.seq is not None
        allowed = nonpositive_ok[rows.symbol]
        too_large = {
            name: np.abs(getattr(rows, name)) > MAX_PRICE for name in ("bid", "ask", "last", "spread")
        }
        rows = without(
            rows,
            [
                *((mask, f"{name} is out of range") for name, mask in too_large.items()),
                (rows.time_us < self._oldest_us, "the time is before the oldest allowed"),
                (rows.time_us > self._newest_us, "the time is in the future"),
                (rows.volume < 0, "volume is negative"),
                (rows.volume > MAX_VOLUME, "volume is out of range"),
                (((rows.flags & flag.BID) != 0) & (rows.bid <= 0) & ~allowed, "bid is not above zero"),
                (((rows.flags & flag.ASK) != 0) & (rows.ask <= 0) & ~allowed, "ask is not above zero"),
            ],
        )
        assert rows.seq is not None
        ticks = StoredTicks(
            symbol_id=symbol_id[rows.symbol],
            time_us=rows.time_us,
            seq=rows.seq,
            bid=rows.bid,
            ask=rows.ask,
            last=rows.last,
            spread=rows.spread,
            volume=rows.volume,
            flags=rows.flags,
            journal_no=np.full(len(rows), journal_no, np.int32),
            received_us=received_us + rows.row,
            row_no=rows.row,
            nonpositive_ok=nonpositive_ok[rows.symbol],
        )
        return ticks, rows

    def _with_order(self, rows: FileRows, symbol_id: I4) -> FileRows:
        """Return the rows with UTC times and `seq`."""
        time_us = rows.time_us.copy()
        seq = np.zeros(len(rows), np.int64)
        for code in np.unique(rows.symbol):
            of_symbol = rows.symbol == code
            number = int(symbol_id[code])
            wall = of_symbol & ~rows.utc
            times = self._clocks.setdefault(number, WallTimes(self._clock))
            time_us[wall] = times.to_utc_us(rows.time_us[wall])
            if rows.seq is None:
                ordinals = self._ordinals.setdefault(number, Ordinals())
                seq[of_symbol] = ordinals.number(time_us[of_symbol], REMEMBERED // len(self._ordinals))
        return replace(rows, time_us=time_us, seq=seq if rows.seq is None else rows.seq)
