"""Bodies of records to typed rows, one by one: a bad row is named by its index, the others go on. Pure, any lane.

JSON (an array, or one object), NDJSON and CSV. Rows that msgspec takes are done; of the others it is found out field
by field what is wrong.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import msgspec

from app.datasets.declare import Column, Dataset
from app.errors import BadJson, TooLarge
from app.market.decode import Rejected

SentAs = Literal["json", "ndjson", "csv"]

_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_WORDS = {
    "symbol": "text",
    "name": "text",
    "time": "a time (text or epoch milliseconds)",
    "date": "a date (YYYY-MM-DD)",
    "float": "a number",
    "int": "an integer",
    "bool": "true or false",
    "text": "text",
    "json": "an object",
}
_MAX_DIGITS = 4000
"""Python refuses to read longer integers, which would cost their whole body."""

_BROKEN = object()


@dataclass(slots=True)
class Decoded:
    """Well-formed rows with their index in the request, and the refused ones."""

    rows: list[Any] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    total: int = 0

    def take(self, row: Any) -> None:
        """Take the next row, which is well-formed."""
        self.rows.append(row)
        self.index.append(self.total)
        self.total += 1

    def refuse(self, code: str, message: str) -> None:
        """Refuse the next row."""
        self.rejected.append(Rejected(self.total, code, message))
        self.total += 1


def decode_records(dataset: Dataset, body: bytes, sent_as: SentAs, max_rows: int) -> Decoded:
    """Decode the records of a body.

    Raises BadJson for a body that is not of that format as a whole, TooLarge for more than `max_rows` records.
    """
    return (_decode_csv if sent_as == "csv" else _decode_json)(dataset, body, sent_as, max_rows)


def _decode_json(dataset: Dataset, body: bytes, sent_as: SentAs, max_rows: int) -> Decoded:
    decoded = Decoded()
    decoder = _decoder(dataset.record)
    for raw in _lines(body, max_rows) if sent_as == "ndjson" else _items(body, max_rows):
        if isinstance(raw, bytes | msgspec.Raw):
            try:
                row = decoder.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                _take_leniently(dataset, _parse_row(bytes(raw)), decoded, strict=True)
            else:
                decoded.take(row)
        else:
            _take_leniently(dataset, raw, decoded, strict=True)
    return decoded


def _lines(body: bytes, max_rows: int) -> Iterator[Any]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    _bound(len(lines), max_rows)
    return iter(lines)


def _items(body: bytes, max_rows: int) -> Iterator[Any]:
    items: list[Any]
    if not body.lstrip().startswith((b"[", b"{")):
        raise BadJson("the body must be a JSON array of records, one record, NDJSON, or with its Content-Type CSV")
    try:
        items = (
            list(_RAWS.decode(body))
            if body.lstrip().startswith(b"[")
            else [bytes(msgspec.json.decode(body, type=msgspec.Raw))]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            value = _loads(body)
        except (ValueError, RecursionError):
            if body.lstrip().startswith(b"{") and b"\n" in body.strip():
                return _lines(body, max_rows)  # NDJSON that does not say so
            raise BadJson(f"the body is not JSON: {error}") from error
        items = value if isinstance(value, list) else [value]
    _bound(len(items), max_rows)
    return iter(items)


def _decode_csv(dataset: Dataset, body: bytes, sent_as: SentAs, max_rows: int) -> Decoded:
    """Decode CSV with a header line of field names in any case, between commas, semicolons or tabs, as spreadsheets do.

    A cell with nothing in it is a field that was not sent.
    """
    decoded = Decoded()
    text = body.decode("utf-8-sig", "replace")
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if not set(names) & set(dataset.by_name):
            raise BadJson(f"the first line of CSV names the fields: {', '.join(dataset.by_name)}")
        if len(set(names)) < len(names):
            raise BadJson("the first line of CSV names a field twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                decoded.refuse("bad_field", f"line {reader.line_num}: {len(cells)} cells for {len(names)} fields")
            else:
                sent = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
                _take_leniently(dataset, sent, decoded, strict=False)
            _bound(decoded.total, max_rows)
    except csv.Error as error:
        raise BadJson(f"the body is no CSV: line {reader.line_num}: {error}") from error
    return decoded


def _take_leniently(dataset: Dataset, value: Any, decoded: Decoded, *, strict: bool) -> None:
    """Check a row field by field; take it, or refuse it with what is wrong. strict: values have JSON's types."""
    if value is _BROKEN:
        decoded.refuse("bad_field", "this record has a number or text that cannot be read")
        return
    if not isinstance(value, dict):
        decoded.refuse("bad_field", "a record must be an object")
        return
    missing = [column.name for column in dataset.columns if column.required and column.name not in value]
    if missing:
        decoded.refuse("missing_field", f"Missing required fields: {', '.join(missing)}")
        return
    given: dict[str, Any] = {}
    for column in dataset.columns:
        if column.name not in value:
            continue
        convert = _converter(dataset.record, column.attribute)
        cell = value[column.name]
        try:
            if column.kind == "json" and isinstance(cell, str):  # as CSV and Parquet have them
                cell = json.loads(cell)
            if column.kind == "int" and strict and isinstance(cell, float) and cell.is_integer():
                cell = int(cell)
            given[column.attribute] = convert(cell, strict)
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
            decoded.refuse("bad_field", _why(column, cell, error))
            return
    try:
        row = dataset.record(**given)
    except ValueError as error:  # of __post_init__
        decoded.refuse("bad_field", str(error))
        return
    decoded.take(row)


def _why(column: Column, cell: Any, error: Exception) -> str:
    if isinstance(cell, float) and not math.isfinite(cell):
        return f"{column.name} must be a finite number"
    if column.choices:
        return f"{column.name} must be one of {', '.join(column.choices)}"
    said = str(error).replace("`", "")
    if ("null" not in said and any(sign in said for sign in (">=", "<=", "length"))) or "out of range" in said:
        bound = said.removeprefix("Expected ").replace("float ", "").replace("int ", "").replace("str of ", "")
        return (
            f"{column.name} is out of range"
            if "out of range" in said
            else f"{column.name} must {'have' if 'length' in bound else 'be'} {bound}"
        )
    nullable = "" if column.required else " or null"
    return f"{column.name} must be {_WORDS[column.kind]}{nullable}"


@cache
def _decoder(record: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(record)


@cache
def _converter(record: type[msgspec.Struct], name: str) -> Callable[[Any, bool], Any]:
    kind = next(info.type for info in msgspec.structs.fields(record) if info.name == name)

    def convert(value: Any, strict: bool) -> Any:
        found = msgspec.convert(value, kind, strict=strict)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError("not finite")
        return found

    return convert


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


_LENIENT = json.JSONDecoder(parse_int=_integer)


def _loads(data: bytes) -> Any:
    """Parse as leniently as can be: NaN, huge numbers and bytes that are no text spoil their row, not the body."""
    return _LENIENT.decode(data.decode(json.detect_encoding(data), "replace"))


def _parse_row(raw: bytes) -> Any:
    try:
        return _loads(raw)
    except (ValueError, RecursionError):
        return _BROKEN


def _bound(count: int, max_rows: int) -> None:
    if count > max_rows:
        raise TooLarge(f"more than {max_rows} records in one request: send smaller batches")
