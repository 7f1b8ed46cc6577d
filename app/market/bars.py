"""Bars and newest values of a set of ticks.

A bar's open and close carry the order keys of the ticks that made them, so that the bars of two sets of
ticks can be merged, in whatever order the sets came, into the bars of their union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.market.columns import F8, I4, I8, Mask, StoredTicks
from app.market.flags import BUY, LAST, SELL, is_trade, sides

RESOLUTIONS_S = (60, 3600, 86400)
SIDES = ("bid", "ask", "mid", "last")
VOLUME_UNIT = 10**8
"""A volume of 1 in the exact sums."""

KEY = np.dtype([("time", ">i8"), ("order_no", ">i8"), ("journal_no", ">i4")])
"""An order key: 20 bytes that compare like the ticks' order (times from 1970 on)."""

_DERIVED = 1 << 60  # above every seq that a sender may give, so ticks without one come after those with
_NO_ROW = -1

Rows = npt.NDArray[np.intp]
Keys = npt.NDArray[np.void]


@dataclass(slots=True)
class SideRows:
    """One side of n bars: prices float64[n], NaN where there is none; keys KEY[n], zeros where none."""

    open: F8
    high: F8
    low: F8
    close: F8
    open_key: Keys
    close_key: Keys


@dataclass(slots=True)
class BarRows:
    """n bars in the order of (symbol_id, resolution_s, time_us).

    time_us: int64[n], start, UTC microseconds. ticks: int64[n]. volume, buy_volume, sell_volume: n exact sums
    in units of 1e-8, of trades. sides: by name in SIDES; last of trades only. spread_min, spread_max:
    float64[n], ask - bid (price), NaN where no tick had both.
    """

    symbol_id: I4
    resolution_s: I4
    time_us: I8
    ticks: I8
    volume: list[int]
    buy_volume: list[int]
    sell_volume: list[int]
    sides: dict[str, SideRows]
    spread_min: F8
    spread_max: F8

    def __len__(self) -> int:
        return len(self.time_us)


@dataclass(slots=True)
class CurrentRows:
    """The newest values of n symbols, in the order of symbol_id.

    bid, ask, last: float64[n], each the newest there is (last: of a trade), NaN where there is none;
    their keys KEY[n], zeros where there is none.
    The rest is of the newest tick: spread float64[n] in points, NaN where absent; key: KEY[n].
    """

    symbol_id: I4
    bid: F8
    ask: F8
    last: F8
    bid_key: Keys
    ask_key: Keys
    last_key: Keys
    spread: F8
    volume: F8
    buy_volume: F8
    sell_volume: F8
    flags: I4
    time_us: I8
    key: Keys

    def __len__(self) -> int:
        return len(self.symbol_id)


def order_keys(ticks: StoredTicks, rows: Rows | None = None) -> Keys:
    """Return the order keys of the ticks, KEY[n]; or those of `rows` (indices; -1: zeros)."""
    picked = slice(None) if rows is None else rows
    keys = np.empty(len(ticks) if rows is None else len(rows), KEY)
    seq = ticks.seq[picked]
    keys["time"] = ticks.time_us[picked]
    keys["order_no"] = np.where(seq >= 0, seq, _DERIVED + ticks.received_us[picked])
    keys["journal_no"] = np.where(seq >= 0, 0, ticks.journal_no[picked])
    if rows is not None:
        keys[rows < 0] = 0
    return keys


def in_order(ticks: StoredTicks) -> StoredTicks:
    """Return the ticks by symbol and order key: the same object when they already are, else a sorted copy."""
    order_no = np.where(ticks.seq >= 0, ticks.seq, _DERIVED + ticks.received_us)
    order: Rows | None = None
    symbol_id, time_us, number = ticks.symbol_id, ticks.time_us, order_no
    same = symbol_id[1:] == symbol_id[:-1]
    if ((symbol_id[1:] < symbol_id[:-1]) | (same & (time_us[1:] < time_us[:-1]))).any():
        order = np.argsort(time_us, kind="stable")  # quick: what arrives together is nearly in order
        order = order[np.argsort(symbol_id[order], kind="stable")]
        symbol_id, time_us, number = symbol_id[order], time_us[order], order_no[order]
        same = symbol_id[1:] == symbol_id[:-1]
    tied = same & (time_us[1:] == time_us[:-1])
    # Equal numbers are ticks of two journals, which only the whole key can tell.
    if (tied & (number[1:] <= number[:-1])).any():
        journal_no = np.where(ticks.seq >= 0, 0, ticks.journal_no)
        order = np.lexsort((journal_no, order_no, ticks.time_us, ticks.symbol_id))
    return ticks if order is None else ticks.take(order)


def aggregate(ticks: StoredTicks, resolutions_s: Sequence[int] = RESOLUTIONS_S) -> BarRows:
    """Return the bars of the ticks (in any order, no two of one identity) at each resolution.

    resolutions_s: seconds, rising, each a multiple of the one before: longer bars are made of shorter ones.
    """
    ticks = in_order(ticks)
    step_us = resolutions_s[0] * 1_000_000
    start_us = ticks.time_us // step_us * step_us
    groups = Groups(ticks.symbol_id, start_us)
    levels = [_from_ticks(ticks, groups, resolutions_s[0], start_us)]
    for resolution_s in resolutions_s[1:]:
        levels.append(_longer(levels[-1], resolution_s))
    return _rows(ticks, levels)


def newest(ticks: StoredTicks) -> CurrentRows:
    """Return the newest values of each symbol among the ticks (in any order)."""
    ticks = in_order(ticks)
    groups = Groups(ticks.symbol_id)
    bid_ok, ask_ok, last_ok = valid_prices(ticks.bid, ticks.ask, ticks.last, ticks.flags, ticks.nonpositive_ok)
    newest_of = {
        "bid": groups.first_and_last(bid_ok)[1],
        "ask": groups.first_and_last(ask_ok)[1],
        "last": groups.first_and_last(last_ok)[1],
    }
    at = groups.ends - 1
    buy, sell = sides(ticks.flags[at], ticks.volume[at])
    return CurrentRows(
        symbol_id=ticks.symbol_id[at],
        bid=_pick(ticks.bid, newest_of["bid"]),
        ask=_pick(ticks.ask, newest_of["ask"]),
        last=_pick(ticks.last, newest_of["last"]),
        bid_key=order_keys(ticks, newest_of["bid"]),
        ask_key=order_keys(ticks, newest_of["ask"]),
        last_key=order_keys(ticks, newest_of["last"]),
        spread=ticks.spread[at],
        volume=ticks.volume[at],
        buy_volume=buy,
        sell_volume=sell,
        flags=ticks.flags[at],
        time_us=ticks.time_us[at],
        key=order_keys(ticks, at),
    )


class Groups:
    """Runs of rows that are equal in every one of the given columns.

    starts, ends: the index of each run's first row, and of the row after its last.
    """

    def __init__(self, *columns: npt.NDArray[np.integer]) -> None:
        n = len(columns[0])
        changes = np.zeros(n, np.bool_)
        changes[:1] = True
        for column in columns:
            changes[1:] |= column[1:] != column[:-1]
        self.starts: Rows = np.flatnonzero(changes)
        self.ends: Rows = np.append(self.starts[1:], n) if n else self.starts

    def first_and_last(self, valid: Mask) -> tuple[Rows, Rows]:
        """Return each run's first and last valid row, -1 where it has none."""
        rows = np.flatnonzero(valid)
        if len(rows) == len(valid):
            return self.starts, self.ends - 1
        low, high = np.searchsorted(rows, self.starts), np.searchsorted(rows, self.ends)
        found = low < high
        first, last = np.full(len(low), _NO_ROW), np.full(len(low), _NO_ROW)
        first[found], last[found] = rows[low[found]], rows[high[found] - 1]
        return first, last

    def reduce(self, ufunc: np.ufunc, values: F8, valid: Mask) -> F8:
        """Return each run's reduction over its valid rows, NaN where it has none."""
        out = np.full(len(self.starts), np.nan)
        rows = np.flatnonzero(valid)
        if len(rows):
            low, high = np.searchsorted(rows, self.starts), np.searchsorted(rows, self.ends)
            found = low < high
            out[found] = ufunc.reduceat(values[rows] if len(rows) < len(valid) else values, low[found])
        return out

    def sum_exactly(self, values: Sequence[int]) -> list[int]:
        """Return each run's sum of Python integers."""
        return [sum(values[a:b]) for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


@dataclass(slots=True)
class _Side:
    """One side of some bars; open and close are still rows of the ticks (-1: none)."""

    values: F8
    open_row: Rows
    close_row: Rows
    high: F8
    low: F8


@dataclass(slots=True)
class _Level:
    """The bars of one resolution, by symbol and time."""

    resolution_s: int
    symbol_id: I4
    time_us: I8
    ticks: I8
    volumes: tuple[list[int], list[int], list[int]]
    sides: dict[str, _Side]
    spread_min: F8
    spread_max: F8


def valid_prices(bid: F8, ask: F8, last: F8, flags: I4, nonpositive_ok: Mask) -> tuple[Mask, Mask, Mask]:
    """Return where bid, ask and last count: present, above zero unless the instrument allows less.

    A last counts only where it is a trade's.
    """

    def counts(prices: F8) -> Mask:
        positive = prices > 0
        if nonpositive_ok.any():
            positive |= nonpositive_ok & ~np.isnan(prices)
        return np.asarray(positive)

    return counts(bid), counts(ask), counts(last) & is_trade(flags)


def split_volume(volume: F8, flags: I4, bits: int) -> tuple[F8, I8]:
    """Return the volume of the ticks that have all the bits, 0 of the others: whole units, and units of 1e-8."""
    counted = np.where((flags & bits) == bits, volume, 0.0)
    whole = np.floor(counted)
    return whole, np.rint((counted - whole) * VOLUME_UNIT).astype(np.int64)


def _from_ticks(ticks: StoredTicks, groups: Groups, resolution_s: int, start_us: I8) -> _Level:
    bid_ok, ask_ok, last_ok = valid_prices(ticks.bid, ticks.ask, ticks.last, ticks.flags, ticks.nonpositive_ok)
    both = bid_ok & ask_ok

    def side(values: F8, valid: Mask) -> _Side:
        values = values + 0.0  # makes -0.0 a 0.0: which of the two was highest would depend on the order
        first, last = groups.first_and_last(valid)
        high, low = groups.reduce(np.maximum, values, valid), groups.reduce(np.minimum, values, valid)
        return _Side(values, first, last, high, low)

    spread = ticks.ask - ticks.bid
    return _Level(
        resolution_s=resolution_s,
        symbol_id=ticks.symbol_id[groups.starts],
        time_us=start_us[groups.starts],
        ticks=groups.ends - groups.starts,
        volumes=_volumes(ticks, groups),
        sides={
            "bid": side(ticks.bid, bid_ok),
            "ask": side(ticks.ask, ask_ok),
            "mid": side((ticks.bid + ticks.ask) / 2, both),
            "last": side(ticks.last, last_ok),
        },
        spread_min=groups.reduce(np.minimum, spread, both),
        spread_max=groups.reduce(np.maximum, spread, both),
    )


def _volumes(ticks: StoredTicks, groups: Groups) -> tuple[list[int], list[int], list[int]]:
    """Return each run's exact volume: of all trades, of buyers, of sellers."""

    def total(bits: int) -> list[int]:
        if not ((ticks.flags & bits) == bits).any():
            return [0] * len(groups.starts)
        whole, parts = split_volume(ticks.volume, ticks.flags, bits)
        # Beyond what 64 bits can sum, Python's integers do it: slow, exact, and never seen in a market.
        fits = float(whole.max()) * len(whole) < 2**62
        units = whole.astype(np.int64) if fits else np.array([int(v) for v in whole.tolist()], object)
        pairs = zip(np.add.reduceat(units, groups.starts), np.add.reduceat(parts, groups.starts), strict=True)
        return [int(unit) * VOLUME_UNIT + int(part) for unit, part in pairs]

    return total(LAST), total(LAST | BUY), total(LAST | SELL)


def _longer(level: _Level, resolution_s: int) -> _Level:
    """Return the bars of a longer resolution, made of shorter ones."""
    step_us = resolution_s * 1_000_000
    start_us = level.time_us // step_us * step_us
    groups = Groups(level.symbol_id, start_us)

    def extreme(ufunc: np.ufunc, values: F8) -> F8:
        return groups.reduce(ufunc, values, ~np.isnan(values))

    def side(part: _Side) -> _Side:
        first, last = groups.first_and_last(part.open_row >= 0)
        open_row = np.where(first < 0, _NO_ROW, part.open_row[first])
        close_row = np.where(last < 0, _NO_ROW, part.close_row[last])
        return _Side(
            part.values, open_row, close_row, extreme(np.maximum, part.high), extreme(np.minimum, part.low)
        )

    volume, buy, sell = (groups.sum_exactly(values) for values in level.volumes)
    return _Level(
        resolution_s=resolution_s,
        symbol_id=level.symbol_id[groups.starts],
        time_us=start_us[groups.starts],
        ticks=np.add.reduceat(level.ticks, groups.starts) if len(level.ticks) else level.ticks,
        volumes=(volume, buy, sell),
        sides={name: side(part) for name, part in level.sides.items()},
        spread_min=extreme(np.minimum, level.spread_min),
        spread_max=extreme(np.maximum, level.spread_max),
    )


def _rows(ticks: StoredTicks, levels: list[_Level]) -> BarRows:
    """Join the levels, sort by key, and turn rows of the ticks into prices and order keys."""
    symbol_id = np.concatenate([level.symbol_id for level in levels])
    resolution_s = np.repeat(
        np.array([level.resolution_s for level in levels], np.int32), [*map(_bars, levels)]
    )
    time_us = np.concatenate([level.time_us for level in levels])
    order = np.lexsort((time_us, resolution_s, symbol_id))

    def side(name: str) -> SideRows:
        parts = [level.sides[name] for level in levels]
        open_row = np.concatenate([part.open_row for part in parts])[order]
        close_row = np.concatenate([part.close_row for part in parts])[order]
        return SideRows(
            open=_pick(parts[0].values, open_row),
            high=np.concatenate([part.high for part in parts])[order],
            low=np.concatenate([part.low for part in parts])[order],
            close=_pick(parts[0].values, close_row),
            open_key=order_keys(ticks, open_row),
            close_key=order_keys(ticks, close_row),
        )

    volume, buy, sell = (
        [values[row] for row in order.tolist()]
        for values in ([v for level in levels for v in level.volumes[kind]] for kind in range(3))
    )
    return BarRows(
        symbol_id=symbol_id[order],
        resolution_s=resolution_s[order],
        time_us=time_us[order],
        ticks=np.concatenate([level.ticks for level in levels])[order],
        volume=volume,
        buy_volume=buy,
        sell_volume=sell,
        sides={name: side(name) for name in SIDES},
        spread_min=np.concatenate([level.spread_min for level in levels])[order],
        spread_max=np.concatenate([level.spread_max for level in levels])[order],
    )


def _bars(level: _Level) -> int:
    return len(level.time_us)


def _pick(values: F8, rows: Rows) -> F8:
    """Return the values at the rows, NaN for row -1."""
    if not len(values):
        return np.full(len(rows), np.nan)
    return np.where(rows < 0, np.nan, values[rows])
