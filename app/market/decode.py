"""JSON bodies to columns, row by row where a row is bad. Pure; may run on a lane.

The fast path decodes whole slices of a body with msgspec into typed rows. A slice that does not decode that way is
gone through row by row: a bad row is refused with its reason, the others are taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import msgspec

from app.errors import BadJson, TooLarge

SLICE_BYTES = 128 * 1024
"""How much is decoded at once: about a thousand ticks, a third of a millisecond. Between slices other threads run."""

REQUIRED = ("symbol", "bid", "ask", "spread", "volume", "flags", "timestamp")
NULLABLE = ("bid", "ask", "spread")

Unset = msgspec.UNSET
UnsetType = msgspec.UnsetType


class Row(msgspec.Struct, gc=False):
    """A tick as it is sent."""

    symbol: str
    bid: float | None
    ask: float | None
    spread: float | None
    volume: float
    flags: int
    timestamp: int | float | str | UnsetType | None = Unset
    time_msc: int | float | UnsetType | None = Unset
    last: float | None = None
    seq: int | None = None
    fold: int | bool | None = None


class Rejected(msgspec.Struct, frozen=True):
    """A refused row: its index in the request, a stable code, a message for people."""

    index: int
    code: str
    message: str


@dataclass(slots=True)
class Rows:
    """Well-formed rows with their index in the request, and the refused ones."""

    rows: list[Row] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    total: int = 0


_SLICE = msgspec.json.Decoder(list[Row])
_RAW_SLICE = msgspec.json.Decoder(list[msgspec.Raw])
_ROW = msgspec.json.Decoder(Row)
# JSON's white space: \s would take more, and a body would mean something else sliced than whole.
_OPENING = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"ticks"[ \t\r\n]*:[ \t\r\n]*\[')
_CLOSING = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*\Z")
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_MAX_DIGITS = 4000
"""Python refuses to read longer integers, which would cost their whole body; no field holds a tenth of that."""


def decode_batch(body: bytes, max_rows: int) -> Rows:
    """Decode `{"ticks": [...]}`. Raises BadJson for a body that is not that, TooLarge for more than `max_rows`."""
    rows = Rows()
    for part in _slices(body):
        try:
            decoded = _SLICE.decode(part)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not _one_by_one(part, rows, max_rows):
                return _whole(body, max_rows)
        else:
            rows.index += range(rows.total, rows.total + len(decoded))
            rows.rows += decoded
            rows.total += len(decoded)
        _bound(rows.total, max_rows)
    return rows


def decode_tick(body: bytes) -> Rows:
    """Decode one tick. Raises BadJson."""
    rows = Rows()
    _take(_parse(body), rows)
    return rows


def _bound(count: int, max_rows: int) -> None:
    if count > max_rows:
        raise TooLarge(f"more than {max_rows} ticks in one request: send smaller batches")


def _slices(body: bytes) -> Iterator[bytes]:
    """Cut the list of ticks into JSON lists of about SLICE_BYTES; a small or unusual body comes whole.

    A cut is made between `}` and `{`, which could also stand in a string or a nested list; then a piece is no
    JSON, and the caller decodes the body whole. Pieces that all decode are the body.
    """
    opening, closing = _OPENING.match(body), _CLOSING.search(body, max(0, len(body) - 256))
    if opening is None or closing is None or closing.start() < opening.end():
        # Not the usual spelling: other keys beside "ticks", perhaps, or no JSON at all.
        yield _list_of(body)
        return
    start, end = opening.end(), closing.start()
    while end - start > SLICE_BYTES:
        cut = _BETWEEN.search(body, start + SLICE_BYTES, end)
        if cut is None:
            break
        yield b"[" + body[start : cut.start() + 1] + b"]"
        start = cut.end() - 1
    yield b"[" + body[start:end] + b"]"


class _Envelope(msgspec.Struct):
    ticks: msgspec.Raw


def _list_of(body: bytes) -> bytes:
    try:
        return bytes(msgspec.json.decode(body, type=_Envelope).ticks)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return json.dumps(_ticks_of(_parse(body))).encode()


def _one_by_one(part: bytes, rows: Rows, max_rows: int) -> bool:
    """Take a slice row by row; return False when it is no JSON list even leniently. Raises TooLarge."""
    try:
        raws = _RAW_SLICE.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            values = _loads(part)
        except (ValueError, RecursionError):
            return False
        if not isinstance(values, list):
            return False
        _bound(rows.total + len(values), max_rows)
        for value in values:
            _take(value, rows)
        return True
    _bound(rows.total + len(raws), max_rows)
    for raw in raws:
        try:
            row = _ROW.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _take(_parse_row(bytes(raw)), rows)
        else:
            rows.rows.append(row)
            rows.index.append(rows.total)
            rows.total += 1
    return True


def _whole(body: bytes, max_rows: int) -> Rows:
    values = _ticks_of(_parse(body))
    _bound(len(values), max_rows)
    rows = Rows()
    for value in values:
        _take(value, rows)
    return rows


def _ticks_of(value: Any) -> list[Any]:
    if not isinstance(value, dict) or "ticks" not in value:
        raise BadJson('the body must be {"ticks": [...]}')
    if not isinstance(value["ticks"], list):
        raise BadJson('"ticks" must be a list')
    return value["ticks"]


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


_LENIENT = json.JSONDecoder(parse_int=_integer)


def _loads(data: bytes) -> Any:
    """Parse as leniently as can be: NaN, huge numbers and bytes that are no text spoil their row, not the body.

    Raises ValueError or RecursionError.
    """
    return _LENIENT.decode(data.decode(json.detect_encoding(data), "replace"))


def _parse(body: bytes) -> Any:
    try:
        return _loads(body)
    except RecursionError as error:
        raise BadJson("the body is not JSON: nested too deeply") from error
    except ValueError as error:
        raise BadJson(f"the body is not JSON: {error}") from error


_BROKEN = object()


def _parse_row(raw: bytes) -> Any:
    try:
        return _loads(raw)
    except (ValueError, RecursionError):
        return _BROKEN


def _take(value: Any, rows: Rows) -> None:
    """Check a decoded row field by field; append it or its refusal."""
    index = rows.total
    rows.total += 1
    if value is _BROKEN:
        rows.rejected.append(Rejected(index, "bad_field", "this tick has a number or text that cannot be read"))
        return
    if not isinstance(value, dict):
        rows.rejected.append(Rejected(index, "bad_field", "a tick must be an object"))
        return
    missing = [
        name
        for name in REQUIRED
        if name not in value and not (name == "timestamp" and value.get("time_msc") is not None)
    ]
    if missing:
        message = f"Missing required fields: {', '.join(missing)}"
        rows.rejected.append(Rejected(index, "missing_field", message))
        return
    problem = _problem(value)
    if problem is not None:
        rows.rejected.append(Rejected(index, "bad_field", problem))
        return
    names = Row.__struct_fields__
    row = Row(**{name: value[name] for name in names if name in value})
    row.flags = int(row.flags)
    rows.rows.append(row)
    rows.index.append(index)


def _problem(value: dict[str, Any]) -> str | None:
    """Return what is wrong with a row's types, or None."""
    if not isinstance(value["symbol"], str):
        return "symbol must be a string"
    for name in ("bid", "ask", "spread", "volume", "last"):
        number = value.get(name)
        if number is None and name != "volume":
            continue
        if not _is_number(number):
            return f"{name} must be a number" + (" or null" if name != "volume" else "")
        if not _is_finite(number):
            return f"{name} must be a finite number"
    for name in ("flags", "seq", "fold"):
        number = value.get(name)
        if (number is None and name != "flags") or (isinstance(number, bool) and name == "fold"):
            continue
        if not _is_number(number) or not _is_finite(number) or number != int(number):
            return f"{name} must be an integer"
        value[name] = int(number)
    if value.get("time_msc") is not None and not _is_number(value["time_msc"]):
        return "time_msc must be a number (milliseconds)"
    timestamp = value.get("timestamp")
    if value.get("time_msc") is None and not (_is_number(timestamp) or isinstance(timestamp, str)):
        return "timestamp must be a string or a number (milliseconds)"
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False
