"""What the server says on `/ws`: JSON texts, each made once for all who get it, and WebSocket frames of them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.market.quotes import Quote

_TEXT = 0x81
"""FIN and the text opcode (RFC 6455, 5.2); what a server sends is not masked."""

_encoder = msgspec.json.Encoder()


class TradeUpdate(msgspec.Struct, tag_field="type", tag="trade", frozen=True):
    """A trade that is in the database. side: who crossed the spread; timestamp RFC 3339; cursor: for `since`."""

    symbol: str
    price: float | None
    volume: float
    side: str | None
    timestamp: str
    cursor: str


class BarUpdate(msgspec.Struct, tag_field="type", tag="bar", frozen=True):
    """A bar as it is now; complete: its time is over."""

    symbol: str
    interval: str
    timestamp: str
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float
    ticks: int
    complete: bool


class AlertUpdate(msgspec.Struct, tag_field="type", tag="alert", frozen=True):
    """Something that somebody wanted to be told. symbol: empty where it is about none, for readers of all symbols.

    value: what the rule (rule_id) looked at, in its unit.
    """

    symbol: str
    timestamp: str
    alert_type: str
    message: str
    severity: str | None = None
    alert_id: int | None = None
    rule_id: int | None = None
    value: float | None = None


class RejectedSymbol(msgspec.Struct, frozen=True):
    """A symbol that cannot be subscribed to, and why."""

    symbol: str
    code: str
    message: str


Update = TradeUpdate | BarUpdate | AlertUpdate


class _QuoteText(msgspec.Struct, tag_field="type", tag="quote"):
    symbol: str
    price: float | None
    bid: float | None
    ask: float | None
    last: float | None
    spread: float | None
    volume: float | None
    timestamp: str | None
    change: float | None
    change_percent: float | None


def quote_text(quote: Quote) -> bytes:
    """Return a quote's JSON without its end: `quote_tail` is what each reader has for itself."""
    return _encoder.encode(
        _QuoteText(
            quote.symbol,
            quote.price,
            quote.bid,
            quote.ask,
            quote.last,
            quote.spread,
            quote.volume,
            quote.timestamp,
            quote.change,
            quote.change_percent,
        )
    )[:-1]


def quote_tail(n: int, skipped: int, *, snapshot: bool) -> bytes:
    """Return the end of a quote's JSON."""
    if snapshot:
        return b',"n":%d,"snapshot":true}' % n
    if skipped:
        return b',"n":%d,"skipped":%d}' % (n, skipped)
    return b',"n":%d}' % n


def quote_pattern(text: bytes, skipped: int) -> bytes:
    """Return a quote's JSON with a gap for `n`, to be filled in with the operator %. text: of `quote_text`."""
    return text.replace(b"%", b"%%") + (b',"n":%%d,"skipped":%d}' % skipped if skipped else b',"n":%d}')


def update_text(update: Update) -> bytes:
    """Return an update's JSON."""
    return _encoder.encode(update)


def acknowledgement(
    kind: str, symbols: Sequence[str], channels: Sequence[str], rejected: Sequence[RejectedSymbol]
) -> bytes:
    """Return `subscribed` or `unsubscribed`: what the connection watches now."""
    return _said(kind, symbols=symbols, channels=channels, rejected=rejected)


def error(code: str, message: str) -> bytes:
    """Return an error."""
    return _said("error", code=code, message=message)


def heartbeat(timestamp: str) -> bytes:
    """Return a heartbeat; timestamp RFC 3339."""
    return _said("heartbeat", timestamp=timestamp)


PONG = b'{"type":"pong"}'
AUTHENTICATED = b'{"type":"authenticated"}'
REPLAY_COMPLETE = b'{"type":"replay_complete"}'


def frame(text: bytes) -> bytes:
    """Return a text frame."""
    return frame_head(len(text)) + text


def frame_head(size: int) -> bytes:
    """Return the head of an unmasked text frame of `size` bytes."""
    if size < 126:
        return bytes((_TEXT, size))
    if size < 65536:
        return struct.pack("!BBH", _TEXT, 126, size)
    return struct.pack("!BBQ", _TEXT, 127, size)


def array(texts: Iterable[bytes]) -> bytes:
    """Return texts as one JSON array."""
    return b"[" + b",".join(texts) + b"]"


def _said(kind: str, **fields: Any) -> bytes:
    said = {"type": kind, **fields}
    try:
        return _encoder.encode(said)
    except UnicodeEncodeError:  # half of a surrogate pair, which a client can send, in what is echoed
        return _encoder.encode(_sound(msgspec.to_builtins(said)))


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _sound(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sound(item) for item in value]
    return value
