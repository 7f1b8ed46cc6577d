"""The ticks that the benches send: a seeded market, as columns, as request bodies and as binary COPY."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np

OPEN_MS = 1_768_401_000_000
"""2026-01-14 14:30 UTC, a Wednesday: the longest run (20 minutes of market time) stays in one week."""
TICKS_PER_SECOND = 1_700
PG_EPOCH_US = 946_684_800_000_000

# symbol, price, digits, share of the ticks relative to the others
MARKET: tuple[tuple[str, float, int, float], ...] = (
    ("TSLA", 440.0, 2, 2.0),
    ("NVDA", 186.0, 2, 2.0),
    ("AAPL", 260.0, 2, 1.5),
    ("MSFT", 459.0, 2, 1.2),
    ("ORCL", 193.0, 2, 0.8),
    ("PLTR", 178.0, 2, 1.2),
    ("AMD", 223.0, 2, 1.2),
    ("AVGO", 340.0, 2, 0.8),
    ("META", 615.0, 2, 1.0),
    ("AMZN", 236.0, 2, 1.2),
    ("CSCO", 75.0, 2, 0.4),
    ("GOOG", 336.0, 2, 1.0),
    ("INTC", 48.0, 2, 0.6),
    ("VIX", 16.8, 2, 0.3),
    ("NAS100", 25_465.0, 1, 2.0),
    ("NatGas", 3.12, 3, 0.6),
    ("SpotCrude", 61.9, 2, 0.8),
)
SYMBOLS = [name for name, *_ in MARKET]
DIGITS = np.array([digits for _, _, digits, _ in MARKET])
FLAGS, FLAG_SHARES = (6, 24, 56), (0.85, 0.05, 0.10)


@dataclass(slots=True)
class Market:
    """n ticks in market time, columns of length n; (symbol, time_ms, seq) is unique.

    symbol: index into SYMBOLS. time_ms: UTC epoch milliseconds. seq: ordinal within symbol and millisecond.
    """

    symbol: np.ndarray
    time_ms: np.ndarray
    seq: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    last: np.ndarray
    volume: np.ndarray
    flags: np.ndarray

    def __len__(self) -> int:
        return len(self.time_ms)

    def part(self, start: int, stop: int) -> Market:
        return Market(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})


def market(ticks: int, seed: int = 1) -> Market:
    """Return the first `ticks` ticks of the seeded market: the same for the same arguments, everywhere."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1000.0 / TICKS_PER_SECOND, ticks)
    return market_at(OPEN_MS + np.cumsum(gaps).astype(np.int64), rng)


def market_at(time_ms: np.ndarray, rng: np.random.Generator) -> Market:
    """Return a market with ticks at these times (rising, UTC epoch milliseconds)."""
    ticks = len(time_ms)
    shares = np.array([share for *_, share in MARKET])
    symbol = rng.choice(len(MARKET), ticks, p=shares / shares.sum())
    flags = rng.choice(FLAGS, ticks, p=FLAG_SHARES).astype(np.int32)
    trade = (flags & 8) != 0
    bid, ask, last = np.empty(ticks), np.empty(ticks), np.empty(ticks)
    for index, (_, price, digits, _) in enumerate(MARKET):
        rows = np.flatnonzero(symbol == index)
        point = 10.0**-digits
        walk = np.maximum(price + np.cumsum(rng.integers(-1, 2, len(rows))) * point, price / 2)
        bid[rows] = np.round(walk, digits)
        ask[rows] = np.round(bid[rows] + rng.integers(1, 4, len(rows)) * point, digits)
        # A quote repeats the last trade's price and volume, as MetaTrader 5 does.
        newest = np.maximum.accumulate(np.where(trade[rows], np.arange(len(rows)), 0))
        last[rows] = ask[rows][newest]
    volume = np.where(trade, rng.integers(1, 500, ticks), 0).astype(np.float64)
    return Market(symbol, time_ms, _ordinals(symbol, time_ms), bid, ask, last, volume, flags)


def _ordinals(symbol: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    key = time_ms * len(MARKET) + symbol
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    places = np.arange(len(key))
    first = np.ones(len(key), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    seq = np.empty(len(key), dtype=np.int64)
    seq[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return seq


class _Tick(msgspec.Struct, gc=False):
    symbol: str
    time_msc: int
    seq: int
    bid: float
    ask: float
    last: float
    volume: float
    flags: int
    spread: None = None


def body(ticks: Market) -> bytes:
    """Return the ticks as the JSON body of POST /tick/batch, with the fields that the bridge sends."""
    names = [SYMBOLS[index] for index in ticks.symbol.tolist()]
    columns = [ticks.time_ms, ticks.seq, ticks.bid, ticks.ask, ticks.last, ticks.volume, ticks.flags]
    rows = map(_Tick, names, *(column.tolist() for column in columns))
    return msgspec.json.encode({"ticks": list(rows)})


def copy_chunks(ticks: Market, symbol_ids: dict[str, int], spread: bool, chunk: int) -> Iterator[bytes]:
    """Yield the ticks as binary COPY streams of `chunk` rows for the columns of `copy_columns(spread)`.

    They hold the values that tickhub itself stores: sides by the flags, spread in points where it knows them.
    """
    shape: list[Any] = [("columns", ">i2")]
    for name, kind in copy_columns(spread):
        shape += [(f"{name}_bytes", ">i4"), (name, kind)]
    ids = np.array([symbol_ids[name] for name in SYMBOLS])
    trade = (ticks.flags & 8) != 0
    values = {
        "symbol_id": ids[ticks.symbol],
        "time": ticks.time_ms * 1000 - PG_EPOCH_US,
        "buy_volume": np.where(trade & ((ticks.flags & 32) != 0), ticks.volume, 0.0),
        "sell_volume": np.where(trade & ((ticks.flags & 64) != 0), ticks.volume, 0.0),
        "spread": np.round((ticks.ask - ticks.bid) * 10.0 ** DIGITS[ticks.symbol], 6),
        "journal_no": np.ones(len(ticks), dtype=np.int32),
        "received_at": ticks.time_ms[0] * 1000 - PG_EPOCH_US + np.arange(len(ticks)),
    }
    rows = np.empty(len(ticks), dtype=np.dtype(shape))
    rows["columns"] = len(copy_columns(spread))
    for name, kind in copy_columns(spread):
        rows[f"{name}_bytes"] = np.dtype(kind).itemsize
        rows[name] = values[name] if name in values else getattr(ticks, name)
    head, tail = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)
    for start in range(0, len(rows), chunk):
        yield head + rows[start : start + chunk].tobytes() + tail


def copy_columns(spread: bool) -> list[tuple[str, str]]:
    """Return the columns that `copy_chunks` writes, with their types on the wire."""
    columns = [("symbol_id", ">i4"), ("time", ">i8"), ("seq", ">i8")]
    columns += [(name, ">f8") for name in ("bid", "ask", "last", "volume", "buy_volume", "sell_volume")]
    columns += [("spread", ">f8")] if spread else []
    return [*columns, ("flags", ">i4"), ("journal_no", ">i4"), ("received_at", ">i8")]
