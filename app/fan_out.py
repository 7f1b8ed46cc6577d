"""How what one worker learns reaches all of them: boards of quotes and hubs, by the bus. Greenlet side.

A worker's own ticks go to its board first (web/ingest.py), then here: to its hub, and on the bus. Another worker's come
in here: to the board, then to the hub. The keys that order quotes travel with the ticks, so a board that is told of one
twice, late, or by the database as well, stays as it is.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from app.errors import TickhubError
from app.market.columns import LAYOUT, Ticks, sliced
from app.market.quotes import QuoteRow
from app.quote_board import QuoteBoard
from app.settings import Settings
from app.stream.bus import QUOTES, QUOTES_WANTED, TICKS, Bus, Count
from app.stream.frames import BadFrame, Sender, sender_of

CHUNK_ROWS = 1000
"""Ticks of one message: as many as go into a datagram."""

CHUNK_QUOTES = 200
"""Quotes of one message, about as many."""

_LATEST_US = 253_402_300_799_999_999
"""The end of the year 9999, the last moment that has a text."""

_HEAD = struct.Struct("<qH6x")
"""When the first tick was received (UTC microseconds; the next one 1 us later), and the layout of the rest."""

log = logging.getLogger("tickhub")

Changed = Callable[[Mapping[str, int]], None]
"""Told which symbols have something new, and by how many ticks."""


class _Quotes(msgspec.Struct, array_like=True):
    rows: list[QuoteRow]
    read: list[bool]
    """Whether the board has them from the database, so that their sessions are known."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Quotes)


class FanOut:
    """What joins a worker's board and hub with those of the others."""

    def __init__(self, bus: Bus, board: QuoteBoard, changed: Changed) -> None:
        self._bus = bus
        self._board = board
        self._changed = changed
        bus.on(TICKS, self._ticks_came)
        bus.on(QUOTES_WANTED, self._quotes_wanted)
        bus.on(QUOTES, self._quotes_came)

    def accepted(self, ticks: Ticks, received_us: int, payload: bytes) -> None:
        """Tell of ticks that are durable, known to this worker's board. payload: what `ticks.encode()` returned."""
        if self._bus.reaches_somebody:
            for message in encode_ticks(ticks, received_us, payload):
                self._bus.send(TICKS, message)
        self._changed(counts(ticks))

    def repaired(self, news: Mapping[str, int]) -> None:
        """Tell of quotes of which the database knew more than this worker: what was lost on the way, above all."""
        self._changed(news)

    def start(self) -> None:
        """Join the bus, and ask this host's other workers for their quotes: the database may be away."""
        self._bus.start()
        self._bus.send(QUOTES_WANTED, self._bus.me.head(), here=True)

    def _ticks_came(self, message: bytes) -> None:
        ticks, received_us = decode_ticks(message)
        self._board.accepted(ticks, received_us)
        self._changed(counts(ticks))

    def _quotes_wanted(self, message: bytes) -> None:
        asker: Sender = sender_of(message)
        rows = self._board.rows()
        for start in range(0, len(rows), CHUNK_QUOTES):
            part = rows[start : start + CHUNK_QUOTES]
            read = [self._board.was_read(row.symbol) for row in part]
            self._bus.send(QUOTES, _encoder.encode(_Quotes(part, read)), asker)

    def _quotes_came(self, message: bytes) -> None:
        try:
            quotes = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadFrame(f"no quotes: {error}") from error
        read = [row for row, known in zip(quotes.rows, quotes.read, strict=False) if known]
        self._board.loaded(read)
        others = [row for row, known in zip(quotes.rows, quotes.read, strict=False) if not known]
        self._board.loaded(others, of_database=False)


def make_bus(settings: Settings, directory: Path, slot: int, count: Count) -> Bus:
    """Return the bus that the settings ask for, not started. directory: of the sockets of this host's workers."""
    if not settings.redis_url:
        return Bus(directory, slot, count)
    try:
        from app.redis_link import RedisLink  # the driver costs a worker 9 MB
        from app.stream.redis_bus import CONNECTIONS, RedisBus

        link = RedisLink(settings.redis_url, CONNECTIONS)
        return Bus(directory, slot, count, lambda *who: RedisBus(link, *who))
    except Exception as error:  # noqa: BLE001 - a worker that fails at boot ends the server
        log.error("redis_url cannot be used (%s): other hosts' ticks come from the database", type(error).__name__)
        return Bus(directory, slot, count)


def counts(ticks: Ticks) -> dict[str, int]:
    """Return how many ticks there are of each symbol."""
    found = np.bincount(ticks.symbol, minlength=len(ticks.names)).tolist()
    return {name: count for name, count in zip(ticks.names, found, strict=False) if count}


def encode_ticks(ticks: Ticks, received_us: int, payload: bytes) -> list[bytes]:
    """Return the ticks as messages of at most CHUNK_ROWS; each says when its first one was received."""
    if len(ticks) <= CHUNK_ROWS:
        return [_HEAD.pack(received_us, LAYOUT) + payload]
    return [
        _HEAD.pack(received_us + start, LAYOUT) + sliced(ticks, start, start + CHUNK_ROWS).encode()
        for start in range(0, len(ticks), CHUNK_ROWS)
    ]


def decode_ticks(message: bytes) -> tuple[Ticks, int]:
    """Return what `encode_ticks` wrote: ticks, and when the first was received. Raises BadFrame."""
    try:
        received_us, layout = _HEAD.unpack_from(message)
        ticks = Ticks.decode(memoryview(message)[_HEAD.size :], layout)
        if len(ticks) and not 0 <= ticks.symbol.min() <= ticks.symbol.max() < len(ticks.names):
            raise BadFrame("a tick of no symbol")
        if len(ticks) and not 0 <= ticks.time_us.min() <= ticks.time_us.max() <= _LATEST_US:
            raise BadFrame("a tick of no time")
    except (struct.error, ValueError, TickhubError) as error:
        raise BadFrame(f"no ticks: {error}") from error
    return ticks, received_us
