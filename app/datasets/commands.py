"""Bodies of /db_command, made bodies of the datasets that they are for. Pure; may run on a lane.

Whoever sends them has a table (a DataFrame, say) of one symbol: its rows name neither the symbol nor, always, the time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from app.datasets.declare import Dataset, Policy
from app.datasets.registry import DATASETS
from app.errors import BadField, BadJson, MissingField, TooLarge, UnknownCommand

CommandName = Literal["save_realtime_data", "save_options_data", "save_financial_info"]
DataType = Literal["quote", "trade"]

TICKS = "ticks"
QUOTE_FLAGS, TRADE_FLAGS = 6, 24
"""Bid and ask; last and volume."""

TIMES = ("timestamp", "date", "index", "time", "datetime")
"""Where a row's time is looked for when `index_col` names no field of it, in any case: what pandas calls an index."""

_TARGETS: Mapping[str, str] = {
    "save_realtime_data": TICKS,
    "save_options_data": "option_quotes",
    "save_financial_info": "financial_info",
}
_POLICIES: tuple[str, ...] = get_args(Policy)
_DATA_TYPES: tuple[str, ...] = get_args(DataType)
_OPTION_TYPES = {"call": "call", "calls": "call", "c": "call", "put": "put", "puts": "put", "p": "put"}
_PARAMS = ("ticker", "data_type", "index_col", "on_duplicate")
_MAX_DIGITS = 4000
_DAY_CHARS = len("2026-01-13")


@dataclass(slots=True)
class Command:
    """What a command comes to.

    target: ticks, or a dataset's name. body: of /tick/batch, or a JSON array of the dataset's records; a row that is
    refused here is null in it. refused: by index, (code, message). policy: None: the dataset's own.
    """

    target: str
    body: bytes
    policy: Policy | None = None
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)


def read_command(body: bytes, max_rows: int) -> Command:
    """Read the body of a command. Raises BadJson, MissingField, BadField, UnknownCommand, TooLarge."""
    sent = _object(_parse(body), "the body")
    name = _text(sent, "command")
    if name not in _TARGETS:
        raise UnknownCommand(f"Unknown command: {name[:64]}; there are: {', '.join(_TARGETS)}")
    if "params" not in sent:
        raise MissingField("Missing required fields: params")
    params = _object(sent["params"], "params")
    if params.get("data") is None:
        raise MissingField("Missing required fields: data")
    data = params["data"] if isinstance(params["data"], list) else [_object(params["data"], "data, if it is no list,")]
    if len(data) > max_rows:
        raise TooLarge(f"more than {max_rows} records in one request: send smaller batches")
    policy = _choice(params, "on_duplicate", _POLICIES)
    shape = _Shape(
        _TARGETS[name],
        ticker=None if params.get("ticker") is None else _text(params, "ticker"),
        index_col=None if params.get("index_col") is None else _text(params, "index_col"),
        data_type="" if params.get("data_type") is None else _text(params, "data_type"),
    )
    if shape.target == TICKS and shape.data_type not in _DATA_TYPES:
        if not shape.data_type:
            raise MissingField("Missing required fields: data_type")
        raise BadField(f"data_type must be one of {', '.join(_DATA_TYPES)}")
    command = Command(shape.target, b"", policy)  # type: ignore[arg-type]  # one of its values
    rows: list[bytes] = []
    for index, sent_row in enumerate(data):
        made = shape.made(sent_row)
        if isinstance(made, tuple):
            command.refused[index] = made
            rows.append(b"null")
        else:
            rows.append(_ENCODER.encode(made).encode())
    body = b"[" + b",".join(rows) + b"]"
    command.body = b'{"ticks":' + body + b"}" if shape.target == TICKS else body
    return command


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the rows of a command are to become."""

    target: str
    ticker: str | None
    index_col: str | None
    data_type: str

    def made(self, sent: Any) -> dict[str, Any] | tuple[str, str]:
        """Return a tick, or a record of the dataset; or why it can be neither: (code, message)."""
        row = _decoded(sent)
        if row is _BROKEN:
            return "bad_field", "this record has a number or text that cannot be read"
        if not isinstance(row, dict):
            return "bad_field", "a record must be an object"
        row = {name: None if isinstance(cell, float) and math.isnan(cell) else cell for name, cell in row.items()}
        symbol = next((row[name] for name in ("symbol", "ticker") if row.get(name) is not None), self.ticker)
        moment = _time_of(row, self.index_col)
        if self.target != TICKS:
            return _record(DATASETS[self.target], row, symbol, moment, _OPTION_TYPES.get(self.data_type.lower()))
        is_trade = self.data_type == "trade"
        tick = _tick(row, is_trade)
        if missing := _missing(tick, symbol, moment, is_trade):
            return "missing_field", f"Missing required fields: {', '.join(missing)}"
        return tick | {"symbol": symbol, "timestamp": moment}


def _tick(row: Mapping[str, Any], is_trade: bool) -> dict[str, Any]:
    """Return the row as a tick without symbol and time; the spread is for the server to compute."""
    price = row.get("price")
    return {
        "bid": row.get("bid"),
        "ask": row.get("ask"),
        "last": row.get("last") if price is None else price,
        "spread": None,
        "volume": 0 if row.get("volume") is None else row["volume"],
        "flags": TRADE_FLAGS if is_trade else QUOTE_FLAGS,
        "seq": row.get("seq"),
    }


def _missing(tick: Mapping[str, Any], symbol: Any, moment: Any, is_trade: bool) -> list[str]:
    """Return what a saved quote or trade lacks; `ticker` stands for the symbol, as in the request."""
    missing = [name for name, value in (("ticker", symbol), ("timestamp", moment)) if value is None]
    if is_trade and tick["last"] is None:
        missing.append("price")
    elif not is_trade and tick["bid"] is None and tick["ask"] is None and tick["last"] is None:
        missing += ["bid", "ask"]
    return missing


def _record(
    dataset: Dataset, row: Mapping[str, Any], symbol: Any, moment: Any, option_type: str | None
) -> dict[str, Any]:
    """Return the row as a record of the dataset: what it lacks the dataset's own rules tell."""
    record = {name: row[name] for name in dataset.by_name if name in row}
    if symbol is not None:
        record["symbol"] = symbol
    if dataset.time is not None and moment is not None:
        record[dataset.time] = moment
    if "option_type" in dataset.by_name:
        kind = record.get("option_type")
        kind = _OPTION_TYPES.get(kind.lower(), kind) if isinstance(kind, str) else kind
        record["option_type"] = option_type if kind is None else kind
    for column in dataset.columns:
        if column.kind == "date" and column.name in record:
            record[column.name] = _day(record[column.name])
        elif column.kind == "bool" and record.get(column.name) in (0, 1):
            record[column.name] = bool(record[column.name])
    return {name: value for name, value in record.items() if value is not None or not dataset.by_name[name].required}


def _time_of(row: Mapping[str, Any], index_col: str | None) -> Any:
    """Return the row's time as it was sent: of the field that is its index, else of the one that looks like it."""
    if index_col is not None and row.get(index_col) is not None:
        return row[index_col]
    by_name = {name.lower(): value for name, value in row.items() if value is not None}
    return next((by_name[name] for name in TIMES if name in by_name), None)


def _day(value: Any) -> Any:
    """Return a day as YYYY-MM-DD: pandas writes one as midnight, in text or epoch milliseconds. Else the value."""
    if isinstance(value, str) and len(value) > _DAY_CHARS and value[_DAY_CHARS] in "T ":
        return value[:_DAY_CHARS]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value / 1000, UTC).date().isoformat()
        except (OverflowError, OSError, ValueError):
            return value
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadField(f"{name} must be an object")
    return value


def _text(sent: Mapping[str, Any], name: str) -> str:
    if name not in sent:
        raise MissingField(f"Missing required fields: {name}")
    if not isinstance(sent[name], str):
        raise BadField(f"{name} must be text")
    text: str = sent[name]
    return text


def _choice(params: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    value = params.get(name)
    if value is not None and value not in choices:
        raise BadField(f"{name} must be one of {', '.join(choices)}")
    return None if value is None else str(value)


def _parse(body: bytes) -> Any:
    """Return the body with the rows in `data` as they stand in it, to be decoded one by one."""
    try:
        sent = _OBJECT.decode(body)
        params = _OBJECT.decode(sent["params"])
        rows = _LIST.decode(params["data"])
        known = {name: msgspec.json.decode(params[name]) for name in _PARAMS if name in params}
        return {"command": msgspec.json.decode(sent["command"]), "params": known | {"data": list(rows)}}
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:  # as a whole: one row, say, or NaN, which pandas writes
            return _LENIENT.decode(body.decode(json.detect_encoding(body), "replace"))
        except (ValueError, RecursionError) as error:
            raise BadJson(f"the body is not JSON: {error}") from error


def _decoded(row: Any) -> Any:
    if not isinstance(row, msgspec.Raw):
        return row
    try:
        return msgspec.json.decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return _LENIENT.decode(bytes(row).decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return _BROKEN


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


_LENIENT = json.JSONDecoder(parse_int=_integer)
_ENCODER = json.JSONEncoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_BROKEN = object()
