"""Ticks as other datasets are sent, in the spelling of /tick/batch. Pure; may run on a lane."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any

import msgspec

from app.datasets.decode import SentAs
from app.errors import BadJson, TooLarge

_WHOLE = ("flags", "seq", "fold", "time_msc")
_NUMBERS = ("bid", "ask", "spread", "volume", "last")
_NULLABLE = ("bid", "ask", "spread")


def batch_body(body: bytes, sent_as: SentAs, max_rows: int) -> bytes:
    """Return the body of /tick/batch with these ticks; what cannot be a tick stays in its place, to be refused there.

    Raises BadJson for CSV that is none, TooLarge for more than `max_rows` lines.
    """
    if sent_as == "csv":
        return msgspec.json.encode({"ticks": _of_csv(body, max_rows)})
    if sent_as == "ndjson":
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) > max_rows:
            raise TooLarge(f"more than {max_rows} ticks in one request: send smaller batches")
        body = b"[" + b",".join(line if _is_json(line) else b"null" for line in lines) + b"]"
    elif body.lstrip().startswith(b"{"):
        body = b"[" + body + b"]"
    return b'{"ticks":' + body + b"}"


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _of_csv(body: bytes, max_rows: int) -> list[Any]:
    reader = csv.reader(io.StringIO(body.decode("utf-8-sig", "replace"), newline=""), strict=True)
    ticks: list[Any] = []
    try:
        names = next(reader, [])
        if "symbol" not in names:
            raise BadJson("the first line of CSV names the fields: symbol, bid, ask, spread, volume, flags, timestamp")
        for cells in reader:
            if cells:
                ticks.append(_tick(dict(zip(names, cells, strict=True))) if len(cells) == len(names) else None)
            if len(ticks) > max_rows:
                raise TooLarge(f"more than {max_rows} ticks in one request: send smaller batches")
    except csv.Error as error:
        raise BadJson(f"the body is no CSV: line {reader.line_num}: {error}") from error
    return ticks


def _tick(cells: dict[str, str]) -> dict[str, Any]:
    tick: dict[str, Any] = {name: None for name in _NULLABLE if name in cells}
    for name, text in cells.items():
        if not text:
            continue
        tick[name] = text
        if name in _WHOLE or name == "timestamp":
            tick[name] = _number(int, text)
        elif name in _NUMBERS:
            tick[name] = _number(float, text)
    return tick


def _number(kind: Callable[[str], Any], text: str) -> Any:
    """Return the number, or the text where it is none: nan is none in JSON either."""
    try:
        number = kind(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
