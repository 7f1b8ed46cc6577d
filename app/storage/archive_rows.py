"""Ticks whole, as they are stored, and as columns of a Parquet file. Lane side, pure.

What follows from other columns is not in the file: buy and sell volume, and a `seq` that was derived (docs/archive.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.market.columns import F8, I4, I8, Mask
from app.market.flags import sides
from app.market.identity import seq_of
from app.storage.copy_rows import POSTGRES_EPOCH_US, copy_out

RAW = np.iinfo(np.int64).min
"""The ordinal of a tick whose `seq` cannot be derived again, and is kept."""

MOST_OCCURRENCES = 16
"""Equal ticks without `seq` that are told apart by an ordinal; more of them keep theirs."""

SELECT = """symbol_id, time, seq, coalesce(bid, 'NaN'), coalesce(ask, 'NaN'), coalesce(last, 'NaN'),
    coalesce(spread, 'NaN'), volume, buy_volume, sell_volume, flags, journal_no, received_at"""
_FORMATS = (">i4", ">i8", ">i8", *[">f8"] * 7, ">i4", ">i4", ">i8")


@dataclass(slots=True)
class WholeTicks:
    """n stored ticks, every column; NaN stands for NULL. Times in UTC microseconds."""

    symbol_id: I4
    time_us: I8
    seq: I8
    bid: F8
    ask: F8
    last: F8
    spread: F8
    volume: F8
    buy_volume: F8
    sell_volume: F8
    flags: I4
    journal_no: I4
    received_us: I8

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: npt.NDArray[np.intp] | Mask | slice) -> WholeTicks:
        """Return the given rows, in that order."""
        return WholeTicks(*(getattr(self, field.name)[rows] for field in fields(self)))

    def key(self, row: int) -> tuple[int, int, int]:
        """Return (symbol_id, time_us, seq) of a row."""
        return int(self.symbol_id[row]), int(self.time_us[row]), int(self.seq[row])


def joined(parts: Sequence[WholeTicks]) -> WholeTicks:
    """Return the rows of all parts, one part after the other; there is one at least."""
    return WholeTicks(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(WholeTicks)))


def read_whole(cur: Cursor, query: bytes) -> WholeTicks:
    """Run a query of the columns SELECT and return its rows."""
    return _whole(copy_out(cur, query.decode(), _FORMATS))


def read_late(cur: Cursor, query: bytes) -> tuple[WholeTicks, I8]:
    """Run a query of the columns SELECT and row_no; return its rows, and their numbers in their journals."""
    found = copy_out(cur, query.decode(), (*_FORMATS, ">i8"))
    return _whole(found), found[f"v{len(_FORMATS)}"].astype(np.int64)


def _whole(found: npt.NDArray[Any]) -> WholeTicks:
    columns = [found[f"v{at}"].astype(code[1:]) for at, code in enumerate(_FORMATS)]
    for at in (1, 12):
        columns[at] += POSTGRES_EPOCH_US
    return WholeTicks(*columns)


def first_difference(one: WholeTicks, other: WholeTicks) -> int | None:
    """Return the number of the first row that is not the same in every bit; None: all are. Both have as many rows."""
    differs = np.zeros(len(one), np.bool_)
    for field in fields(WholeTicks):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if mine.dtype.kind == "f":
            absent = np.isnan(mine) & np.isnan(theirs)
            differs |= (mine.view(np.int64) != theirs.view(np.int64)) & ~absent
        else:
            differs |= mine != theirs
    return int(np.argmax(differs)) if differs.any() else None


def ordinals(ticks: WholeTicks, names: Mapping[int, str]) -> I8:
    """Return `seq` where it is >= 0, else -1 - n for the n-th of equal ticks, RAW where it cannot be derived so."""
    found = ticks.seq.copy()
    left = np.flatnonzero(ticks.seq < 0)
    found[left] = RAW
    for occurrence in range(MOST_OCCURRENCES):
        if not len(left):
            break
        same = _derived(ticks.take(left), names, np.full(len(left), occurrence, np.int64)) == ticks.seq[left]
        found[left[same]] = -1 - occurrence
        left = left[~same]
    return found


def schema() -> Any:
    """Return the pyarrow.Schema of the files."""
    import pyarrow as pa

    time, text = pa.timestamp("us", "UTC"), pa.dictionary(pa.int32(), pa.string())
    numbers = [pa.field(name, pa.float64()) for name in ("bid", "ask", "last", "spread")]
    return pa.schema(
        [
            pa.field("symbol_id", pa.int32(), nullable=False),
            pa.field("symbol", text, nullable=False),
            pa.field("time", time, nullable=False),
            pa.field("ordinal", pa.int64(), nullable=False),
            pa.field("raw_seq", pa.int64()),
            *numbers,
            pa.field("volume", pa.float64(), nullable=False),
            pa.field("flags", pa.int32(), nullable=False),
            pa.field("journal_no", pa.int32(), nullable=False),
            pa.field("received_at", time, nullable=False),
        ]
    )


def to_arrow(ticks: WholeTicks, names: Mapping[int, str]) -> Any:
    """Return the ticks as a pyarrow.Table of the files' schema."""
    import pyarrow as pa

    form = schema()
    ids, of = np.unique(ticks.symbol_id, return_inverse=True)
    ordinal = ordinals(ticks, names)
    symbols = pa.array([names.get(int(number), "") for number in ids], pa.string())
    columns = {
        "symbol_id": ticks.symbol_id,
        "time": ticks.time_us,
        "ordinal": ordinal,
        "volume": ticks.volume,
        "flags": ticks.flags,
        "journal_no": ticks.journal_no,
        "received_at": ticks.received_us,
    }
    arrays = {name: pa.array(values, form.field(name).type) for name, values in columns.items()}
    arrays["symbol"] = pa.DictionaryArray.from_arrays(pa.array(of.astype(np.int32)), symbols)
    arrays["raw_seq"] = pa.array(ticks.seq, mask=ordinal != RAW)
    for name in ("bid", "ask", "last", "spread"):
        values = getattr(ticks, name)
        arrays[name] = pa.array(values, mask=np.isnan(values))
    return pa.table([arrays[name] for name in form.names], schema=form)


def from_columns(columns: Mapping[str, npt.NDArray[Any]], names: Mapping[int, str]) -> WholeTicks:
    """Return the ticks of a file's columns: NaN and 0 where absent, times as UTC microseconds."""
    volume, flags = columns["volume"], columns["flags"].astype(np.int32)
    bought, sold = sides(flags, volume)
    ticks = WholeTicks(
        symbol_id=columns["symbol_id"].astype(np.int32),
        time_us=columns["time"],
        seq=columns["ordinal"].copy(),
        bid=columns["bid"],
        ask=columns["ask"],
        last=columns["last"],
        spread=columns["spread"],
        volume=volume,
        buy_volume=bought,
        sell_volume=sold,
        flags=flags,
        journal_no=columns["journal_no"].astype(np.int32),
        received_us=columns["received_at"],
    )
    raw = ticks.seq == RAW
    ticks.seq[raw] = columns["raw_seq"][raw]
    derived = np.flatnonzero((columns["ordinal"] < 0) & ~raw)
    if len(derived):
        ticks.seq[derived] = _derived(ticks.take(derived), names, -1 - columns["ordinal"][derived])
    return ticks


def _derived(ticks: WholeTicks, names: Mapping[int, str], occurrence: I8) -> I8:
    ids, of = np.unique(ticks.symbol_id, return_inverse=True)
    return seq_of(
        [names.get(int(number), "") for number in ids],
        of.astype(np.int32),
        ticks.time_us,
        ticks.bid,
        ticks.ask,
        ticks.last,
        ticks.volume,
        ticks.flags,
        occurrence,
    )
