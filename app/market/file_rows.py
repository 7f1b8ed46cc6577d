"""The rows of a tick file as columns, and the lines that are left out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from app.market.columns import F8, I4, I8, Mask


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is left out, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class FileRows:
    """The n readable rows of a block, and its bad lines.

    row: int64[n], ordinal among the file's lines of data, good or bad. line: int64[n], counted from 1 with
    the header (in a Parquet file: the row, from 1). time_us: int64[n], UTC where `utc`, else the wall clock
    written as if it were UTC. bid, ask, last, spread, volume: float64[n], NaN where blank (volume: 0). flags:
    int32[n]. symbol: int32[n], index into names; empty names: the file does not say. seq: int64[n] or None.
    total: lines of data, bad ones included. text: the block itself, beginning at first_line.
    """

    row: I8
    line: I8
    time_us: I8
    utc: Mask
    bid: F8
    ask: F8
    last: F8
    spread: F8
    volume: F8
    flags: I4
    symbol: I4
    seq: I8 | None
    names: list[str]
    bad: list[BadLine]
    total: int
    text: bytes = b""
    first_line: int = 1
    _lines: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row)

    def text_of(self, line: int) -> str:
        """Return what the given line says; empty for a Parquet file."""
        if not self._lines:
            self._lines = self.text.split(b"\n")
        at = line - self.first_line
        return self._lines[at].decode(errors="replace") if at < len(self._lines) else ""


def without(rows: FileRows, reasons: list[tuple[Mask, str]]) -> FileRows:
    """Return the rows that no mask names; the others become bad lines, with the first reason that fits."""
    refused = np.zeros(len(rows), np.bool_)
    bad = list(rows.bad)
    for mask, reason in reasons:
        bad += [BadLine(int(line), reason) for line in rows.line[mask & ~refused]]
        refused |= mask
    if not refused.any():
        return rows
    kept = {name: getattr(rows, name)[~refused] for name in _PER_ROW}
    seq = None if rows.seq is None else rows.seq[~refused]
    return replace(rows, **kept, seq=seq, bad=bad)


_PER_ROW = ("row", "line", "time_us", "utc", "bid", "ask", "last", "spread", "volume", "flags", "symbol")


def joined(parts: list[FileRows]) -> FileRows:
    """Return consecutive parts of a block as one; without its text."""
    if len(parts) == 1:
        return parts[0]
    code = {name: i for i, name in enumerate(dict.fromkeys(name for part in parts for name in part.names))}
    for part in parts:
        if part.names:
            part.symbol = np.array([code[name] for name in part.names], np.int32)[part.symbol]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_ROW
    }
    seqs = [part.seq for part in parts if part.seq is not None]
    return FileRows(
        **columns,
        seq=np.concatenate(seqs) if seqs else None,
        names=list(code),
        bad=[line for part in parts for line in part.bad],
        total=sum(part.total for part in parts),
    )


def no_rows(has_seq: bool, bad: list[BadLine]) -> FileRows:
    """Return rows without any, but for the bad lines."""
    whole, real, small = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int32)
    return FileRows(
        row=whole,
        line=whole,
        time_us=whole,
        utc=whole.astype(np.bool_),
        bid=real,
        ask=real,
        last=real,
        spread=real,
        volume=real,
        flags=small,
        symbol=small,
        seq=whole if has_seq else None,
        names=[],
        bad=bad,
        total=len(bad),
    )
