"""Another tickhub that is asked where this one's quotes are stale. Greenlet side.

It is asked for the quotes of a request, and the answer is waited for, so all of it is bounded: the time, the size, how
often a symbol is asked for, and how soon one that did not answer is asked again.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote, urlsplit

import gevent
import msgspec
from gevent.lock import Semaphore

from app.market.decode import Row
from app.market.symbols import SymbolMap
from app.settings import Settings

HOP_HEADER = "X-Tickhub-Read-Through"
"""Says that another tickhub asks: then nobody else is asked, so that two who ask each other come to an end."""

AGAIN_S = 1.0
"""A symbol is asked for so often at most, however many want its quote."""

AWAY_S = 5.0
"""How long one that did not answer is left alone."""

MOST_URL_CHARS = 3000
MOST_BYTES = 4 << 20
MOST_REMEMBERED = 100_000

log = logging.getLogger("tickhub")


class _Quote(msgspec.Struct):
    symbol: str
    timestamp: str | None
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    spread: float | None = None
    volume: float | None = None
    flags: int | None = None


class _Answer(msgspec.Struct):
    quotes: list[_Quote]


_decoder = msgspec.json.Decoder(_Answer)


class Upstream:
    """Reads quotes of another tickhub; one request at a time, the others wait for it and ask for what is left."""

    def __init__(self, url: str, api_key: str, timeout_s: float) -> None:
        """Take its address and a key that may read ("": none), and the longest wait of a request for it."""
        parts = urlsplit(url)
        # Once: to read all certificates that this machine believes in takes the event loop some 20 ms.
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (80 if self._tls is None else 443)
        self._path = parts.path.rstrip("/")
        self._headers = {HOP_HEADER: "1", "Accept": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
        self._timeout_s = timeout_s
        self._one_at_a_time = Semaphore()
        self._asked_at: dict[str, float] = {}
        self._away_until = float("-inf")
        self._gave: dict[str, str] = {}

    def newer(self, known: Mapping[str, str | None], symbols: SymbolMap) -> list[Row]:
        """Return, as ticks to be stored, the quotes that are newer than what is known.

        known: canonical name -> RFC 3339 time of our newest tick, None if there is none. What cannot be had is left
        out, and logged when that begins: a quote is answered as stale then, never as an error.
        """
        wanted = self._due(known)
        if not wanted:
            return []
        rows: list[Row] = []
        asked = False
        try:
            with gevent.Timeout(self._timeout_s, TimeoutError("no answer in time")), self._one_at_a_time:
                wanted = self._due(wanted)  # others may have asked for them meanwhile
                self._note(wanted)
                for names in _portions(wanted):
                    asked = True
                    rows += self._newer_of(self._ask(names), known, symbols)
        except (OSError, HTTPException, msgspec.MsgspecError, UnicodeError, ValueError) as error:
            self._failed(error)
        else:
            if asked:
                self._answered()
        return rows

    def gave(self, symbol: str, timestamp: str | None) -> bool:
        """Tell whether the tick of this time, the symbol's newest, came from upstream, by this worker."""
        return timestamp is not None and self._gave.get(symbol) == timestamp

    def _due(self, names: Mapping[str, str | None] | Sequence[str]) -> list[str]:
        now = time.monotonic()
        if now < self._away_until:
            return []
        return [name for name in names if now - self._asked_at.get(name, float("-inf")) >= AGAIN_S]

    def _note(self, names: Sequence[str]) -> None:
        if len(self._asked_at) > MOST_REMEMBERED:
            self._asked_at.clear()
        self._asked_at.update(dict.fromkeys(names, time.monotonic()))

    def _ask(self, names: str) -> list[_Quote]:
        """Return the quotes of the names, which are as they stand in the URL. Raises for anything but an answer."""
        with closing(self._connection()) as client:
            client.request("GET", f"{self._path}/api/quotes?symbols={names}", headers=self._headers)
            answer = client.getresponse()
            body = answer.read(MOST_BYTES + 1)
            if answer.status != 200 or len(body) > MOST_BYTES:
                raise ValueError(f"it answered with status {answer.status}, {len(body)} bytes")
            return _decoder.decode(body).quotes

    def _connection(self) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)

    def _newer_of(self, quotes: Sequence[_Quote], known: Mapping[str, str | None], symbols: SymbolMap) -> list[Row]:
        rows = []
        for found in quotes:
            index = symbols.index(found.symbol)
            name = symbols.names[index] if index >= 0 else ""
            if name not in known or found.timestamp is None or found.timestamp <= (known[name] or ""):
                continue  # both are RFC 3339 of one form, which sorts as the times do
            if len(self._gave) > MOST_REMEMBERED:
                self._gave.clear()
            self._gave[name] = found.timestamp
            volume, flags = found.volume or 0.0, found.flags or 0
            rows.append(Row(name, found.bid, found.ask, found.spread, volume, flags, found.timestamp, last=found.last))
        return rows

    def _failed(self, error: Exception) -> None:
        if self._away_until == float("-inf"):
            why = "no answer in time" if isinstance(error, TimeoutError | socket.timeout) else str(error)
            log.warning("upstream %s:%d cannot be read (%s): quotes stay as they are", self._host, self._port, why)
        self._away_until = time.monotonic() + AWAY_S

    def _answered(self) -> None:
        if self._away_until != float("-inf"):
            log.info("upstream %s:%d answers again", self._host, self._port)
        self._away_until = float("-inf")


def make_upstream(settings: Settings) -> Upstream | None:
    """Return the one that the settings name, None where they name none."""
    if not settings.upstream_url:
        return None
    return Upstream(settings.upstream_url, settings.upstream_api_key, settings.upstream_timeout_s)


def _portions(names: Sequence[str]) -> Iterator[str]:
    """Yield the names as one parameter's value, as many at a time as go into a URL."""
    text = ""
    for name in (quote(name, safe="") for name in names):
        if text and len(text) + len(name) >= MOST_URL_CHARS:
            yield text
            text = ""
        text = f"{text},{name}" if text else name
    if text:
        yield text
