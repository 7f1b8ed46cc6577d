"""Types of request bodies, for the OpenAPI document: the types that decode them, with words."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.market.accept import MAX_FLAGS, MAX_PRICE, MAX_SEQ, MAX_VOLUME
from app.market.decode import Row

_PRICE = {"minimum": -MAX_PRICE, "maximum": MAX_PRICE}


def _meta(description: str, **more: Any) -> Meta:
    return Meta(description=description, extra_json_schema=more)


_FIELDS = {
    "symbol": _meta("the symbol's name or any of its aliases, in any case", examples=["AAPL"]),
    "bid": _meta("price; null: the feed has none", **_PRICE),
    "ask": _meta("price; null: the feed has none", **_PRICE),
    "spread": _meta("points, (ask - bid) x 10^digits; null: computed where the digits are known", **_PRICE),
    "volume": _meta("of the trade, when `flags` has LAST", minimum=0, maximum=MAX_VOLUME),
    "flags": _meta(
        "what changed, as MetaTrader 5 has it: BID 2, ASK 4, LAST 8, VOLUME 16, BUY 32, SELL 64",
        minimum=0,
        maximum=MAX_FLAGS,
    ),
    "timestamp": _meta(
        "RFC 3339 with an offset, or epoch milliseconds (UTC); a text without an offset is on the broker's clock "
        "(tick_timezone)",
        examples=["2026-01-13T17:54:43.250Z"],
    ),
    "time_msc": _meta("epoch milliseconds on the broker's clock; counts before `timestamp`"),
    "last": _meta("price of the last trade", **_PRICE),
    "seq": _meta(
        "number of this tick among its symbol's ticks of the same timestamp, from 0: ticks that are equal in all else "
        "are then all kept",
        minimum=0,
        maximum=MAX_SEQ - 1,
    ),
    "fold": _meta("1: the second of the two hours of one name, when clocks are set back"),
}


_TIMED = {
    "anyOf": [
        {"required": ["timestamp"], "properties": {"timestamp": {"type": ["string", "number"]}}},
        {"required": ["time_msc"], "properties": {"time_msc": {"type": "number"}}},
    ]
}


def _with(kind: Any, meta: Meta) -> Any:
    return Annotated[kind, meta]


def _sent_tick() -> Any:
    fields: list[Any] = []
    for field in msgspec.structs.fields(Row):
        kind = _with(field.type, _FIELDS[field.name])
        fields.append((field.name, kind) if field.required else (field.name, kind, field.default))
    words = "A tick as it is sent; unknown keys are ignored."
    return _with(msgspec.defstruct("SentTick", fields, namespace={"__doc__": words}), Meta(extra_json_schema=_TIMED))


SentTick: Any = _sent_tick()
SentBatch = msgspec.defstruct(
    "SentBatch", [("ticks", list[SentTick])], namespace={"__doc__": "Ticks, in the order in which they came about."}
)
