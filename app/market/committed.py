"""What a flush committed: the trades among the rows that were really stored, and where they belong. Pure, any side.

    Committed = journal, position before, position after | touched: symbol, first and last time | trades

Positions are those of `positions.py`. The bytes, little-endian: head, names, touched ranges, then the trades' columns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from app.errors import TickhubError
from app.market.columns import F8, I4, I8, Mask, StoredTicks
from app.market.flags import is_trade
from app.market.positions import KEY_DIGITS
from app.market.timestamps import MAX_US, MIN_US

LAYOUT = 1
"""Version of the bytes that `encode` writes: workers of two releases may run side by side during a restart."""

_HEAD = struct.Struct("<BqqqIII")
_TOUCHED = struct.Struct("<Iqq")
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("received_us", "<i8"),
    ("time_us", "<i8"),
    ("price", "<f8"),
    ("volume", "<f8"),
    ("symbol", "<i4"),
    ("flags", "<i4"),
)


@dataclass(slots=True)
class Trades:
    """n trades in the order in which they arrived: by (received_us, journal).

    names: symbols; symbol: int32[n], index into names. time_us, received_us: int64[n], UTC microseconds. price:
    float64[n], NaN where none was sent. volume: float64[n]. flags: int32[n]. journal: int64[n], `journal_key`.
    """

    names: list[str]
    symbol: I4
    time_us: I8
    price: F8
    volume: F8
    flags: I4
    journal: I8
    received_us: I8

    def __len__(self) -> int:
        return len(self.received_us)

    def take(self, rows: npt.NDArray[np.intp] | Mask | slice) -> Trades:
        """Return the given rows, in that order."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "names"}
        return Trades(self.names, **columns)


@dataclass(slots=True)
class Touched:
    """A symbol of which rows were stored, and the times of the first and the last of them (UTC microseconds)."""

    symbol: str
    low_us: int
    high_us: int


@dataclass(slots=True)
class Committed:
    """One committed flush of a journal. before_us, after_us: its position before and after; 0: nothing before.

    Every row that it stored was received in (before_us, after_us].
    """

    journal: int
    before_us: int
    after_us: int
    trades: Trades
    touched: list[Touched] = field(default_factory=list)

    def pieces(self, max_trades: int) -> Iterator[Committed]:
        """Yield messages of at most so many trades that say the same, each following the one before."""
        before_us, touched = self.before_us, self.touched
        for at in range(0, max(1, len(self.trades)), max_trades):
            part = self.trades.take(slice(at, at + max_trades))
            is_last = at + max_trades >= len(self.trades)
            after_us = self.after_us if is_last else int(part.received_us[-1])
            yield Committed(self.journal, before_us, after_us, part, touched)
            before_us, touched = after_us, []

    def encode(self) -> bytes:
        """Return the bytes that `decode` reads."""
        trades = self.trades
        used = sorted({*(one.symbol for one in self.touched), *(trades.names[i] for i in np.unique(trades.symbol))})
        number = {name: i for i, name in enumerate(used)}
        names = "\0".join(used).encode()
        head = _HEAD.pack(
            LAYOUT, self.journal, self.before_us, self.after_us, len(names), len(self.touched), len(trades)
        )
        parts = [head, names, *(_TOUCHED.pack(number[t.symbol], t.low_us, t.high_us) for t in self.touched)]
        renumbered = np.array([number.get(name, -1) for name in trades.names], np.int32)
        for name, dtype in _COLUMNS:
            values = renumbered[trades.symbol] if name == "symbol" else getattr(trades, name)
            parts.append(np.ascontiguousarray(values, dtype).tobytes())
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Committed:
        """Read what `encode` wrote; columns are read-only views. Raises TickhubError for anything else."""
        try:
            return cls._decode(data)
        except (struct.error, ValueError, IndexError) as error:
            raise TickhubError(f"no committed flush: {error}") from error

    @classmethod
    def _decode(cls, data: bytes | memoryview) -> Committed:
        layout, journal, before_us, after_us, names_bytes, ranges, rows = _HEAD.unpack_from(data)
        if layout != LAYOUT:
            raise ValueError(f"layout {layout}")
        at = _HEAD.size + names_bytes
        names = bytes(data[_HEAD.size : at]).decode().split("\0") if names_bytes else []
        touched = []
        for _ in range(ranges):
            number, low_us, high_us = _TOUCHED.unpack_from(data, at)
            touched.append(Touched(names[number], low_us, high_us))
            at += _TOUCHED.size
        columns = {}
        for name, dtype in _COLUMNS:
            columns[name] = np.frombuffer(data, dtype, rows, at)
            at += columns[name].nbytes
        if at != len(data):
            raise ValueError("the columns do not fit")
        found = cls(journal, before_us, after_us, Trades(names, journal=np.full(rows, journal), **columns), touched)
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError for what no flush says: positions go into every cursor that is made later."""
        trades = self.trades
        if not (0 <= self.journal < 1 << 4 * KEY_DIGITS and 0 <= self.before_us < self.after_us <= MAX_US):
            raise ValueError("no positions")
        if any(not MIN_US <= one.low_us <= one.high_us <= MAX_US for one in self.touched):
            raise ValueError("no times")
        if not len(trades):
            return
        if not 0 <= trades.symbol.min() <= trades.symbol.max() < len(trades.names):
            raise ValueError("a trade of no symbol")
        if not MIN_US <= trades.time_us.min() <= trades.time_us.max() <= MAX_US:
            raise ValueError("a trade of no time")
        arrived_us = np.concatenate(([self.before_us], trades.received_us, [self.after_us + 1]))
        if (np.diff(arrived_us) <= 0).any():
            raise ValueError("trades that are not in order")


def committed_rows(
    journal: int, before_us: int, after_us: int, inserted: Sequence[StoredTicks], names: dict[int, str]
) -> Committed:
    """Return what a flush committed. inserted: rows that were stored, each part by (symbol, time); names by id."""
    ranges: dict[int, tuple[int, int]] = {}
    parts = []
    for ticks in inserted:
        ends = np.append(np.flatnonzero(np.diff(ticks.symbol_id)), len(ticks) - 1)
        begins = np.append(0, ends[:-1] + 1)
        low, high = ticks.time_us[begins].tolist(), ticks.time_us[ends].tolist()
        for number, low_us, high_us in zip(ticks.symbol_id[ends].tolist(), low, high, strict=True):
            known = ranges.get(number, (low_us, high_us))
            ranges[number] = min(known[0], low_us), max(known[1], high_us)
        parts.append((ticks, np.flatnonzero(is_trade(ticks.flags))))
    touched = [Touched(names[number], *ends_us) for number, ends_us in ranges.items()]
    return Committed(journal, before_us, after_us, _trades(journal, parts, names), touched)


def _trades(journal: int, parts: Sequence[tuple[StoredTicks, npt.NDArray[np.intp]]], names: dict[int, str]) -> Trades:
    kept = [(ticks, rows) for ticks, rows in parts if len(rows)]

    def column(name: str, dtype: type) -> npt.NDArray[np.generic]:
        return np.concatenate([np.zeros(0, dtype), *(getattr(ticks, name)[rows] for ticks, rows in kept)])

    received_us = column("received_us", np.int64)
    order = np.argsort(received_us)
    ids, symbol = np.unique(column("symbol_id", np.int32), return_inverse=True)
    return Trades(
        names=[names[int(number)] for number in ids],
        symbol=symbol.astype(np.int32)[order],
        time_us=column("time_us", np.int64)[order],  # type: ignore[arg-type]  # of the dtype that was asked for
        price=column("last", np.float64)[order],  # type: ignore[arg-type]
        volume=column("volume", np.float64)[order],  # type: ignore[arg-type]
        flags=column("flags", np.int32)[order],  # type: ignore[arg-type]
        journal=np.full(len(order), journal, np.int64),
        received_us=received_us[order],  # type: ignore[arg-type]
    )
