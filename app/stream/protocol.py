"""What a client says on `/ws`: bytes to an action. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from app.errors import BadField, BadJson, MissingField, UnknownCommand
from app.market.intervals import INTERVALS
from app.stream.channels import CHANNELS, Channel

DEFAULT_CONFLATE_MS = 100
MAX_CONFLATE_MS = 60_000
MAX_SYMBOLS = 10_000
"""Symbols that one message may name, and that one connection may name in all; `*` is not counted."""

EVERY = "*"


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Add these symbols (as sent; None: all) to the channels.

    conflate_ms and batch are of the connection: None leaves them as they are. since: a time or a cursor, as sent.
    """

    symbols: tuple[str, ...] | None
    channels: tuple[Channel, ...]
    interval: str = "1m"
    conflate_ms: int | None = None
    batch: bool | None = None
    since: str | int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Take these symbols (as sent; None: all) off the channels; interval: only these bars, None: those of any."""

    symbols: tuple[str, ...] | None
    channels: tuple[Channel, ...]
    interval: str | None = None


@dataclass(frozen=True, slots=True)
class Auth:
    """Show an API key."""

    key: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask whether the server is there."""


Action = Subscribe | Unsubscribe | Auth | Ping


def read_action(message: bytes | str) -> Action:
    """Return what a message asks for. Raises BadJson, MissingField, BadField, UnknownCommand."""
    if message in (b"ping", "ping"):
        return Ping()
    try:
        said = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadJson(f"the message is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise BadJson('the message is no JSON object: send {"action":"subscribe","symbol":"AAPL"}')
    if "action" not in said:
        raise MissingField(f"action is missing: give one of {', '.join(_READERS)}")
    action = said["action"]
    reader = _READERS.get(action) if isinstance(action, str) else None
    if reader is None:
        raise UnknownCommand(f"{_shown(action)} is no action: give one of {', '.join(_READERS)}")
    return reader(said)


def _subscribe(said: Mapping[str, Any]) -> Subscribe:
    return Subscribe(
        _symbols(said),
        _channels(said) or ("quotes",),
        _interval(said) or "1m",
        _conflate_ms(said.get("conflate_ms")),
        _batch(said.get("batch")),
        _since(said.get("since")),
    )


def _unsubscribe(said: Mapping[str, Any]) -> Unsubscribe:
    return Unsubscribe(_symbols(said), _channels(said) or get_args(Channel), _interval(said))


def _auth(said: Mapping[str, Any]) -> Auth:
    if "key" not in said:
        raise MissingField("key is missing")
    if not isinstance(said["key"], str):
        raise BadField("key must be a string")
    return Auth(said["key"])


_READERS: dict[str, Callable[[Mapping[str, Any]], Action]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "auth": _auth,
    "ping": lambda said: Ping(),
}


def _symbols(said: Mapping[str, Any]) -> tuple[str, ...] | None:
    named = [said[field] for field in ("symbol", "symbols") if said.get(field) is not None]
    if not named and _channels(said) == ("alerts",):
        return None  # some are about no symbol
    if not named:
        raise MissingField('symbol is missing: give "symbol", or "symbols" as a list or "*"')
    found: dict[str, None] = {}
    for value in named:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadField("symbols must be a name, a list of names, or *")
        found.update(dict.fromkeys(name.strip() for name in names))
    if EVERY in found:
        return None
    if len(found) > MAX_SYMBOLS:
        raise BadField(f"symbols: at most {MAX_SYMBOLS}, or *")
    return tuple(found)


def _channels(said: Mapping[str, Any]) -> tuple[Channel, ...] | None:
    value = said.get("channels")
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise BadField(f"channels must be a list of {', '.join(CHANNELS)}")
    for name in names:
        if name not in CHANNELS:
            raise BadField(f"channels: {_shown(name)} is none: give some of {', '.join(CHANNELS)}")
    return tuple(dict.fromkeys(names))


def _interval(said: Mapping[str, Any]) -> str | None:
    value = said.get("interval")
    if value is not None and value not in INTERVALS:
        raise BadField(f"interval: {_shown(value)} is none: give one of {' '.join(INTERVALS)}")
    return value


def _conflate_ms(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_CONFLATE_MS:
        raise BadField(f"conflate_ms must be a number from 0 to {MAX_CONFLATE_MS}")
    return int(value)


def _batch(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise BadField("batch must be true or false")
    return value


def _since(value: Any) -> str | int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise BadField("since must be a time or a cursor")
    return value


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
