"""Bars made of shorter bars or of ticks in order: combined exactly, on the asked price side, filled. Pure, lane side.

Combining is associative: what was combined can be combined again with what comes before or after it, so a bar of
any number of ticks is made a part at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from app.market.bars import VOLUME_UNIT, Groups, split_volume, valid_prices
from app.market.columns import F8, I4, I8, Mask
from app.market.flags import BUY, LAST, SELL
from app.market.intervals import Buckets

PRICES = ("bid", "ask", "mid", "last")
BILLION = 10**9
REST = BILLION * VOLUME_UNIT
"""Units of 1e-8 in a billion."""

_EXACT_IN_FLOAT = 2**53


def sides_of(price: str) -> tuple[str, ...]:
    """Return the sides that bars of a price are made of, the one that counts if it is there first."""
    return ("bid", "last") if price == "bid" else (price,)


@dataclass(slots=True)
class Sums:
    """n exact volumes: billions int64[n], and what is left in units of 1e-8, rest int64[n] in 0 to 1e17."""

    billions: I8
    rest: I8

    @classmethod
    def of_trades(cls, volume: F8, flags: I4, bits: int) -> Sums:
        """Return each tick's volume where it has all the bits, else 0."""
        whole, parts = split_volume(volume, flags, bits)
        billions = np.floor_divide(whole, BILLION)
        return cls(billions.astype(np.int64), (whole - billions * BILLION).astype(np.int64) * VOLUME_UNIT + parts)

    def by(self, groups: Groups) -> Sums:
        """Return the sum of each run of rows."""
        whole, parts = np.divmod(self.rest, VOLUME_UNIT)
        more, parts = np.divmod(np.add.reduceat(parts, groups.starts), VOLUME_UNIT)
        billions, whole = np.divmod(np.add.reduceat(whole, groups.starts) + more, BILLION)
        return Sums(np.add.reduceat(self.billions, groups.starts) + billions, whole * VOLUME_UNIT + parts)

    def take(self, rows: Mask | slice) -> Sums:
        """Return the given rows."""
        return Sums(self.billions[rows], self.rest[rows])

    def nearest(self) -> F8:
        """Return the float64 that is nearest to each sum, in units."""
        values = self.rest / VOLUME_UNIT  # one rounding of an exact number, so the nearest
        whole, parts = np.divmod(self.rest, VOLUME_UNIT)
        large = (self.billions > 0) | (self.rest > _EXACT_IN_FLOAT)
        in_units = large & (parts == 0) & (self.billions < BILLION)
        values[in_units] = (self.billions * BILLION + whole)[in_units]
        for row in np.flatnonzero(large & ~in_units).tolist():
            values[row] = (int(self.billions[row]) * REST + int(self.rest[row])) / VOLUME_UNIT
        return values


@dataclass(slots=True)
class Side:
    """One price of n bars: float64[n] each, NaN where there was none."""

    open: F8
    high: F8
    low: F8
    close: F8

    def take(self, rows: Mask | slice) -> Side:
        """Return the given rows."""
        return Side(self.open[rows], self.high[rows], self.low[rows], self.close[rows])


@dataclass(slots=True)
class Pieces:
    """n bars, or ticks as bars of their own, of one symbol in their order.

    time_us: int64[n], UTC microseconds, not falling. ticks: int64[n]. sums: volume, buyers' and sellers'.
    sides: as `sides_of` names them.
    """

    time_us: I8
    ticks: I8
    sums: tuple[Sums, Sums, Sums]
    sides: tuple[Side, ...]

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: Mask | slice) -> Pieces:
        """Return the given rows."""
        total, buy, sell = self.sums
        return Pieces(
            self.time_us[rows],
            self.ticks[rows],
            (total.take(rows), buy.take(rows), sell.take(rows)),
            tuple(side.take(rows) for side in self.sides),
        )


@dataclass(slots=True)
class Series:
    """n bars of one price, rising in time.

    time_us: int64[n], start, UTC microseconds. Prices and volumes: float64[n]. ticks: int64[n], all ticks.
    """

    time_us: I8
    open: F8
    high: F8
    low: F8
    close: F8
    volume: F8
    buy_volume: F8
    sell_volume: F8
    ticks: I8

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: slice) -> Series:
        """Return the given rows."""
        return Series(*(getattr(self, field.name)[rows] for field in fields(self)))


def of_ticks(
    price: str, time_us: I8, bid: F8, ask: F8, last: F8, volume: F8, flags: I4, nonpositive_ok: bool
) -> Pieces:
    """Return ticks that are in their order as pieces for bars of a price.

    bid, ask, last: float64[n], NaN where absent. nonpositive_ok: the instrument allows prices <= 0.
    """
    bid_ok, ask_ok, last_ok = valid_prices(bid, ask, last, flags, np.full(len(time_us), nonpositive_ok))
    found = {"bid": (bid, bid_ok), "ask": (ask, ask_ok), "last": (last, last_ok)}
    if price == "mid":
        found["mid"] = ((bid + ask) / 2, bid_ok & ask_ok)

    def side(name: str) -> Side:
        values, valid = found[name]
        prices = np.where(valid, values + 0.0, np.nan)  # -0.0 is a 0.0, as in the maintained bars
        return Side(prices, prices, prices, prices)

    return Pieces(
        time_us=time_us,
        ticks=np.ones(len(time_us), np.int64),
        sums=(
            Sums.of_trades(volume, flags, LAST),
            Sums.of_trades(volume, flags, LAST | BUY),
            Sums.of_trades(volume, flags, LAST | SELL),
        ),
        sides=tuple(side(name) for name in sides_of(price)),
    )


def combine(parts: Sequence[Pieces], buckets: Buckets) -> Pieces:
    """Return the bars of the buckets, made of pieces each of which lies within one, the parts in their order."""
    pieces = parts[0] if len(parts) == 1 else _joined(parts)
    starts = buckets.starts(pieces.time_us)
    groups = Groups(starts)
    if len(groups.starts) == len(pieces):
        return Pieces(starts, pieces.ticks, pieces.sums, pieces.sides)

    def combined(side: Side) -> Side:
        valid = ~np.isnan(side.close)
        first, last = groups.first_and_last(valid)
        return Side(
            open=np.where(first < 0, np.nan, side.open[first]),
            high=groups.reduce(np.maximum, side.high, valid),
            low=groups.reduce(np.minimum, side.low, valid),
            close=np.where(last < 0, np.nan, side.close[last]),
        )

    total, buy, sell = pieces.sums
    return Pieces(
        time_us=starts[groups.starts],
        ticks=np.add.reduceat(pieces.ticks, groups.starts),
        sums=(total.by(groups), buy.by(groups), sell.by(groups)),
        sides=tuple(combined(side) for side in pieces.sides),
    )


def priced(bars: Pieces) -> Series:
    """Return the bars that saw a price, each with those of its first side that has one."""
    chosen = bars.sides[0]
    for side in bars.sides[1:]:
        none = np.isnan(chosen.close)
        chosen = Side(
            np.where(none, side.open, chosen.open),
            np.where(none, side.high, chosen.high),
            np.where(none, side.low, chosen.low),
            np.where(none, side.close, chosen.close),
        )
    there = ~np.isnan(chosen.close)
    chosen = chosen.take(there)
    volume, buy_volume, sell_volume = (sums.take(there).nearest() for sums in bars.sums)
    return Series(
        time_us=bars.time_us[there],
        open=chosen.open,
        high=chosen.high,
        low=chosen.low,
        close=chosen.close,
        volume=volume,
        buy_volume=buy_volume,
        sell_volume=sell_volume,
        ticks=bars.ticks[there],
    )


def in_sequence(parts: Sequence[Series]) -> Series:
    """Return the bars of all parts, which are in their order."""
    if not parts:
        nothing, none = np.zeros(0, np.int64), np.zeros(0)
        return Series(nothing, none, none, none, none, none, none, none, nothing)
    return Series(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Series)))


def filled(bars: Series, starts_us: I8, close_before: float) -> Series:
    """Return a bar for each start: the one that is there, else one that holds the close before it.

    starts_us: int64[n], rising. close_before: the close of the newest bar before `bars`, NaN if there is none; then
    no start may be before the first bar.
    """
    at = bars.time_us.searchsorted(starts_us, "right")
    times, closes = np.append(-1 << 62, bars.time_us), np.append(close_before, bars.close)
    there = times[at] == starts_us

    close = closes[at]

    def or_else(values: F8, others: F8 | float) -> F8:
        return np.where(there, np.append(0.0, values)[at], others)

    return Series(
        time_us=starts_us,
        open=or_else(bars.open, close),
        high=or_else(bars.high, close),
        low=or_else(bars.low, close),
        close=close,
        volume=or_else(bars.volume, 0.0),
        buy_volume=or_else(bars.buy_volume, 0.0),
        sell_volume=or_else(bars.sell_volume, 0.0),
        ticks=np.where(there, np.append(0, bars.ticks)[at], 0),
    )


def _joined(parts: Sequence[Pieces]) -> Pieces:
    def sums(kind: int) -> Sums:
        return Sums(
            np.concatenate([part.sums[kind].billions for part in parts]),
            np.concatenate([part.sums[kind].rest for part in parts]),
        )

    def side(at: int) -> Side:
        return Side(
            *(np.concatenate([getattr(part.sides[at], field.name) for part in parts]) for field in fields(Side))
        )

    return Pieces(
        time_us=np.concatenate([part.time_us for part in parts]),
        ticks=np.concatenate([part.ticks for part in parts]),
        sums=(sums(0), sums(1), sums(2)),
        sides=tuple(side(at) for at in range(len(parts[0].sides))),
    )
