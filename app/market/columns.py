"""Ticks as columns: the one shape in which ticks travel from the request to the database."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from app.errors import TickhubError

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

LAYOUT = 1
"""Version of the bytes that `encode` writes. A new layout gets a new number; old ones stay readable."""

_HEAD = struct.Struct("<I2x")
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("time_us", "<i8"),
    ("seq", "<i8"),
    ("bid", "<f8"),
    ("ask", "<f8"),
    ("last", "<f8"),
    ("spread", "<f8"),
    ("volume", "<f8"),
    ("flags", "<i4"),
    ("symbol", "<i4"),
)


@dataclass(slots=True)
class Ticks:
    """n accepted ticks of one request, in the order in which they were sent.

    names: the canonical symbol names of this batch; symbol: int32[n], index into names.
    time_us: int64[n], UTC microseconds since 1970. seq: int64[n], the sender's if >= 0, else derived.
    bid, ask, last, spread: float64[n], NaN where absent (NULL). volume: float64[n] >= 0. flags: int32[n].
    """

    names: list[str]
    symbol: I4
    time_us: I8
    seq: I8
    bid: F8
    ask: F8
    last: F8
    spread: F8
    volume: F8
    flags: I4

    def __len__(self) -> int:
        return len(self.time_us)

    def encode(self) -> bytes:
        """Return the batch in layout 1: head, names, then each column little-endian."""
        names = "\0".join(self.names).encode()
        parts = [_HEAD.pack(len(self)), struct.pack("<I", len(names)), names]
        parts += [np.ascontiguousarray(getattr(self, name), dtype).tobytes() for name, dtype in _COLUMNS]
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes | memoryview, layout: int = LAYOUT) -> Ticks:
        """Read what `encode` wrote; the columns are read-only views of the payload.

        Raises TickhubError for a layout this version does not know.
        """
        if layout != LAYOUT:
            raise TickhubError(f"ticks in layout {layout}: written by a newer tickhub")
        (rows,) = _HEAD.unpack_from(payload, 0)
        (names_bytes,) = struct.unpack_from("<I", payload, _HEAD.size)
        at = _HEAD.size + 4 + names_bytes
        names = bytes(payload[_HEAD.size + 4 : at]).decode().split("\0") if names_bytes else []
        columns = {}
        for name, dtype in _COLUMNS:
            columns[name] = np.frombuffer(payload, dtype, rows, at)
            at += columns[name].nbytes
        return cls(names=names, **columns)


def sliced(ticks: Ticks, start: int, end: int) -> Ticks:
    """Return rows `start` to before `end` of a batch, as views."""
    columns = {name: getattr(ticks, name)[start:end] for name, _ in _COLUMNS}
    return Ticks(names=ticks.names, **columns)


@dataclass(slots=True)
class StoredTicks:
    """n ticks as they are (to be) stored: symbols are ids, and each row knows where it came from.

    symbol_id: int32[n] (instruments.symbol_id). journal_no: int32[n] and received_us: int64[n] (UTC
    microseconds) are the row's cursor; row_no: int64[n], its row number in its journal.
    nonpositive_ok: bool[n], the instrument allows prices <= 0. The rest as in Ticks.
    """

    symbol_id: I4
    time_us: I8
    seq: I8
    bid: F8
    ask: F8
    last: F8
    spread: F8
    volume: F8
    flags: I4
    journal_no: I4
    received_us: I8
    row_no: I8
    nonpositive_ok: Mask

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: npt.NDArray[np.intp] | Mask) -> StoredTicks:
        """Return the given rows (indices or mask), in that order, as a copy."""
        return StoredTicks(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})
