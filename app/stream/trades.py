"""Committed trades as updates with cursors, and what a client may give as `since`. Pure.

A cursor is one of two:

    p HEAD . PLACE    positions: all that they have seen was sent. PLACE: which journal the trade is of, each position
    t HEAD . PLACE    the trades later than a time, as of the positions in HEAD, are sent up to the one in PLACE

HEAD: when the newest journal entered, how many there are, their keys. Both are base64 of big-endian numbers.
"""

from __future__ import annotations

import binascii
import math
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.errors import BadParameter
from app.market.columns import I8
from app.market.committed import Trades
from app.market.flags import BUY, SELL
from app.market.positions import Positions, TradeKey
from app.market.rfc3339 import rfc3339
from app.market.time_params import parse_time
from app.market.timestamps import MIN_US
from app.stream.messages import TradeUpdate

_HEAD = struct.Struct(">QH")
_INDEX = struct.Struct(">H")
_KEY_BYTES, _POSITION_BYTES = 6, 7
_LAST_US = (1 << 8 * _POSITION_BYTES) - 1
_NO_JOURNAL = 0xFFFF
_PLACE = struct.Struct(">qiqqi")
MAX_CURSOR_CHARS = 32_768
"""More than the positions of a thousand journals take."""

_SIDES = {BUY: "buy", SELL: "sell"}


@dataclass(frozen=True, slots=True)
class Since:
    """Where a client wants to begin: behind `positions`, or with what is later than `later_us`.

    place: of a replay by time that was broken off there; it is of the positions, and goes on with what is behind them.
    """

    positions: Positions | None = None
    later_us: int | None = None
    place: TradeKey | None = None


def parse_since(text: str) -> Since:
    """Return what a client's `since` means: a cursor, or a time as elsewhere. Raises BadParameter."""
    try:
        if text[:1] not in ("p", "t"):
            return Since(later_us=parse_time(text))
        if len(text) > MAX_CURSOR_CHARS:
            raise ValueError("too long")
        return _parse_cursor(text)
    except BadParameter as error:
        raise BadParameter(f"since: {error}") from error
    except (ValueError, struct.error, binascii.Error) as error:
        raise BadParameter("since: this is neither a time nor the cursor of a trade") from error


def _parse_cursor(text: str) -> Since:
    head_text, _, rest_text = text[1:].partition(".")
    head, rest = _bytes(head_text), _bytes(rest_text)
    top_us, count = _HEAD.unpack_from(head)
    if top_us > _LAST_US:
        raise ValueError("no time")
    keys_end = _HEAD.size + count * _KEY_BYTES
    keys = [_int(head[at : at + _KEY_BYTES]) for at in range(_HEAD.size, keys_end, _KEY_BYTES)]
    if text[0] == "p":
        values = rest[_INDEX.size :]
        if len(head) != keys_end:
            raise ValueError("too short")
        return Since(Positions(top_us, _listed(keys, values)))
    key = TradeKey(*_PLACE.unpack(rest))
    if not (MIN_US <= key.time_us <= _LAST_US and 0 <= key.received_us <= _LAST_US):
        raise ValueError("no time")
    return Since(Positions(top_us, _listed(keys, head[keys_end:])), key.time_us, key)


def _listed(keys: Sequence[int], values: bytes) -> dict[int, int]:
    if len(values) != len(keys) * _POSITION_BYTES:
        raise ValueError("too short")
    return {key: _int(values[i * 7 : i * 7 + 7]) for i, key in enumerate(keys)}


def place_of(cursor: str) -> tuple[Positions, int, int]:
    """Return the positions of a trade's cursor (not of one that was replayed by time), its journal, and its arrival."""
    head_text, _, rest_text = cursor[1:].partition(".")
    (index,) = _INDEX.unpack_from(_bytes(rest_text))
    positions = _parse_cursor(cursor).positions
    assert positions is not None
    head = _bytes(head_text)
    at = _HEAD.size + index * _KEY_BYTES
    journal = _int(head[at : at + _KEY_BYTES])
    return positions, journal, positions.done_us[journal]


def cursor_of(positions: Positions, journal: int | None = None) -> str:
    """Return the cursor of positions, as that of a trade of the journal."""
    keys = list(positions.done_us)
    index = _NO_JOURNAL if journal is None else keys.index(journal)
    return f"p{_head(positions.top_us, keys)}.{_text(_INDEX.pack(index) + _values(positions))}"


def live_updates(trades: Trades, positions: Positions) -> list[TradeUpdate]:
    """Return the updates of trades of one journal, in order of arrival; `positions` go along to the last of them."""
    if not len(trades):
        return []
    journal = int(trades.journal[0])
    positions.done_us.setdefault(journal, 0)
    keys = list(positions.done_us)
    index = keys.index(journal)
    head = f"p{_head(positions.top_us, keys)}."
    values = bytearray(_INDEX.pack(index) + _values(positions))
    at = _INDEX.size + index * _POSITION_BYTES
    cursors = []
    for received_us in trades.received_us.tolist():
        values[at : at + _POSITION_BYTES] = received_us.to_bytes(_POSITION_BYTES, "big")
        cursors.append(head + _text(values))
    positions.done_us[journal] = int(trades.received_us[-1])
    return _updates(trades, cursors)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Rows of a journal that are read: those received in (low_us, high_us]; number: the small one of the journal."""

    number: int
    key: int
    low_us: int
    high_us: int


def replayed_updates(trades: Trades, journals: Sequence[Bounds], until: Positions) -> list[TradeUpdate]:
    """Return the updates of stored trades of the journals, in order of arrival: by (received_us, number).

    until: what will have been seen behind the last of them. The cursor of each has seen of every journal what arrived
    up to then.
    """
    if not len(trades):
        return []
    reading = {journal.key: journal for journal in journals}
    keys = list({**until.done_us, **reading})
    bounds = [reading.get(key) or Bounds(0, key, until.done_us[key], until.done_us[key]) for key in keys]
    low, high = (np.array([getattr(b, name) for b in bounds], np.int64) for name in ("low_us", "high_us"))
    number = np.array([bound.number for bound in bounds], np.int64)
    own = np.array([reading[key].number for key in trades.journal.tolist()], np.int64)
    # Of one microsecond those with a greater number are still to come.
    seen = trades.received_us[:, None] - (number[None, :] > own[:, None])
    head = f"p{_head(until.top_us, keys)}."
    index = {key: _INDEX.pack(i) for i, key in enumerate(keys)}
    values = _rows(np.maximum(low, np.minimum(high, seen)))
    rows = zip(trades.journal.tolist(), values, strict=True)
    return _updates(trades, [head + _text(index[key] + row) for key, row in rows])


def later_updates(trades: Trades, places: Sequence[TradeKey], until: Positions) -> list[TradeUpdate]:
    """Return the updates of stored trades in the order of time, as of the positions `until`."""
    keys = _HEAD.pack(until.top_us, len(until.done_us)) + _keys(until.done_us)
    head = f"t{_text(keys + _values(until))}."
    cursors = [
        head + _text(_PLACE.pack(p.time_us, p.symbol_id, p.seq, p.received_us, p.journal_no)) for p in places
    ]
    return _updates(trades, cursors)


def _updates(trades: Trades, cursors: Sequence[str]) -> list[TradeUpdate]:
    rows = zip(
        trades.symbol.tolist(),
        trades.price.tolist(),
        trades.volume.tolist(),
        trades.flags.tolist(),
        trades.time_us.tolist(),
        cursors,
        strict=True,
    )
    return [
        TradeUpdate(
            symbol=trades.names[symbol],
            price=None if math.isnan(price) else price,
            volume=volume,
            side=_SIDES.get(flags & (BUY | SELL)),  # both: nobody knows
            timestamp=rfc3339(time_us),
            cursor=cursor,
        )
        for symbol, price, volume, flags, time_us, cursor in rows
    ]


def _rows(done: I8) -> list[bytes]:
    rows, columns = done.shape
    packed = np.ascontiguousarray(done, ">i8").view(np.uint8).reshape(rows, columns, 8)[:, :, 1:]
    data = np.ascontiguousarray(packed).tobytes()
    width = columns * _POSITION_BYTES
    return [data[i * width : (i + 1) * width] for i in range(rows)]


def _head(top_us: int, keys: Sequence[int]) -> str:
    return _text(_HEAD.pack(top_us, len(keys)) + _keys(keys))


def _keys(keys: Sequence[int] | dict[int, int]) -> bytes:
    return b"".join(key.to_bytes(_KEY_BYTES, "big") for key in keys)


def _values(positions: Positions) -> bytes:
    return b"".join(us.to_bytes(_POSITION_BYTES, "big") for us in positions.done_us.values())


def _text(data: bytes | bytearray) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    if not text.isascii():
        raise ValueError("not base64")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _int(data: bytes) -> int:
    return int.from_bytes(data, "big")
