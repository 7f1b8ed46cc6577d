"""The history that the reads bench asks for: five days of ticks, and a year of bars before them, all seeded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta

import numpy as np

from app.market.bars import KEY, SIDES
from app.market.columns import StoredTicks
from app.storage.copy_rows import Column, timestamps
from tests.bench.rows import DIGITS, MARKET, market_at

DAYS = tuple(date(2026, 1, day) for day in (7, 8, 9, 12, 13))
"""Five trading days, a weekend among them, in two weekly partitions; the load of `rows` comes the day after."""

YEAR_BEGINS, YEAR_ENDS = date(2025, 1, 7), DAYS[0]
SESSION_MINUTE, SESSION_MINUTES = 14 * 60 + 30, 390
"""The bars before the ticks: every weekday from 14:30 UTC, as long as New York trades."""

DAY_MS, MINUTE_US, DAY_US = 86_400_000, 60_000_000, 86_400_000_000
NIGHT, SESSION = 1.0, 4.0
"""How many ticks a minute of the session has, relative to the others."""


def start_us(day: date) -> int:
    """Return a day's midnight, UTC microseconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def ticks_by_day(ticks: int, symbol_ids: dict[str, int]) -> Iterator[StoredTicks]:
    """Yield the days' ticks, each day in order of time, `ticks` in all; the spread still to be computed."""
    for number, day in enumerate(DAYS):
        rows = ticks // len(DAYS) + (number < ticks % len(DAYS))
        rng = np.random.default_rng([7, number])
        market = market_at(start_us(day) // 1000 + _times_of_day_ms(rows, rng), rng)
        ids = np.array([symbol_ids[name] for name, *_ in MARKET], np.int32)
        time_us = market.time_ms * 1000
        yield StoredTicks(
            symbol_id=ids[market.symbol],
            time_us=time_us,
            seq=market.seq,
            bid=market.bid,
            ask=market.ask,
            last=market.last,
            spread=np.full(rows, np.nan),
            volume=market.volume,
            flags=market.flags,
            journal_no=np.ones(rows, np.int32),
            received_us=time_us + np.arange(rows),
            row_no=np.arange(rows),
            nonpositive_ok=np.zeros(rows, np.bool_),
        )


def _times_of_day_ms(rows: int, rng: np.random.Generator) -> np.ndarray:
    weights = np.full(24 * 60, NIGHT)
    weights[SESSION_MINUTE : SESSION_MINUTE + SESSION_MINUTES] = SESSION
    minutes = rng.choice(len(weights), rows, p=weights / weights.sum())
    return np.sort(minutes * 60_000 + rng.integers(0, 60_000, rows))


@dataclass(slots=True)
class _Bars:
    """Bars of all symbols, [symbol, time]: prices of bid in points, volume in whole units."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    ticks: np.ndarray
    volume: np.ndarray

    def part(self, start: int, stop: int) -> _Bars:
        return _Bars(**{f.name: getattr(self, f.name)[:, start:stop] for f in fields(self)})

    def longer(self, first: np.ndarray) -> _Bars:
        """Return longer bars; first: the place of each one's first bar."""
        last = np.append(first[1:], self.open.shape[1]) - 1
        return _Bars(
            open=self.open[:, first],
            high=np.maximum.reduceat(self.high, first, axis=1),
            low=np.minimum.reduceat(self.low, first, axis=1),
            close=self.close[:, last],
            ticks=np.add.reduceat(self.ticks, first, axis=1),
            volume=np.add.reduceat(self.volume, first, axis=1),
        )


def bars_before(symbol_ids: dict[str, int], minutes_share: float = 1.0) -> Iterator[list[Column]]:
    """Yield the bars of the year before the ticks, a day of all symbols at a time, as columns of the table `bars`.

    Minutes, hours and days, in order of time as they would have come in. minutes_share: the last part of the
    year, which has minutes and hours; the rest has days only.
    """
    days = [YEAR_BEGINS + timedelta(days=n) for n in range((YEAR_ENDS - YEAR_BEGINS).days)]
    days = [day for day in days if day.weekday() < 5]
    year = _year(len(days))
    ids = np.array([symbol_ids[name] for name, *_ in MARKET])
    for number, day in enumerate(days):
        minutes = year.part(number * SESSION_MINUTES, (number + 1) * SESSION_MINUTES)
        time_us = start_us(day) + (SESSION_MINUTE + np.arange(SESSION_MINUTES)) * MINUTE_US
        resolutions_s = (86400, 3600, 60) if number >= len(days) * (1 - minutes_share) else (86400,)
        parts = []
        for resolution_s in resolutions_s:
            step_us = resolution_s * 1_000_000
            begins = time_us // step_us * step_us
            first = np.flatnonzero(np.append(True, begins[1:] != begins[:-1]))
            parts.append(_columns(minutes.longer(first), begins[first], ids, resolution_s))
        yield _in_time_order(parts)


def _year(days: int) -> _Bars:
    shape = (len(MARKET), days * SESSION_MINUTES)
    rng = np.random.default_rng(8)
    middle = np.array([[round(price * 10**digits)] for _, price, digits, _ in MARKET])
    close = np.maximum(middle + np.cumsum(rng.integers(-4, 5, shape), axis=1), middle // 2)
    opened = np.hstack([close[:, :1], close[:, :-1]]) + rng.integers(-1, 2, shape)
    return _Bars(
        open=opened,
        high=np.maximum(opened, close) + rng.integers(0, 4, shape),
        low=np.minimum(opened, close) - rng.integers(0, 4, shape),
        close=close,
        ticks=rng.integers(20, 200, shape),
        volume=rng.integers(0, 20_000, shape),
    )


def _columns(bars: _Bars, time_us: np.ndarray, ids: np.ndarray, resolution_s: int) -> list[Column]:
    symbols, times = bars.open.shape
    n = symbols * times
    start = np.repeat(time_us, symbols)
    points = np.tile(10.0**DIGITS, times)

    def flat(values: np.ndarray) -> np.ndarray:
        return values.T.ravel()

    opened, closed = np.zeros(n, KEY), np.zeros(n, KEY)
    opened["time"], closed["time"] = start, start + resolution_s * 1_000_000 - 1000
    volume = flat(bars.volume)
    columns: list[Column] = [
        ("symbol_id", ">i4", np.tile(ids, times)),
        ("resolution", ">i4", np.full(n, resolution_s)),
        ("time", ">i8", timestamps(start)),
        ("ticks", ">i8", flat(bars.ticks)),
        ("volume", "V12", _numeric(volume)),
        ("buy_volume", "V12", _numeric(volume // 2)),
        ("sell_volume", "V12", _numeric(volume - volume // 2)),
        ("spread_min", ">f8", 1 / points),
        ("spread_max", ">f8", 3 / points),
    ]
    for side, above_bid in zip(SIDES, (0, 2, 1, 2), strict=True):
        for name in ("open", "high", "low", "close"):
            columns.append((f"{side}_{name}", ">f8", (flat(getattr(bars, name)) + above_bid) / points))
        columns += [(f"{side}_open_key", "V20", opened.view("V20")), (f"{side}_close_key", "V20", closed.view("V20"))]
    return columns


def _in_time_order(parts: list[list[Column]]) -> list[Column]:
    order = np.argsort(np.concatenate([part[2][2] for part in parts]), kind="stable")
    return [
        (name, code, np.concatenate([part[index][2] for part in parts])[order])
        for index, (name, code, _) in enumerate(parts[0])
    ]


def _numeric(values: np.ndarray) -> np.ndarray:
    """Return whole numbers below 10^8 as PostgreSQL's numeric on the wire: two digits to the base of 10,000."""
    wire = np.empty(len(values), [(name, ">i2") for name in ("digits", "weight", "sign", "scale", "high", "low")])
    wire["digits"], wire["weight"], wire["sign"], wire["scale"] = 2, 1, 0, 0
    wire["high"], wire["low"] = values // 10_000, values % 10_000
    return wire.view("V12")
