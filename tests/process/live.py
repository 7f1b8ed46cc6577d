"""A client of /ws, of the `websockets` library, for the tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.process.harness import Server
from tests.process.wire import batch, post, tick

WAIT_S = 30.0
NOON = datetime(2026, 1, 13, 12, tzinfo=UTC)

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""For clients of our own, which do what no library does."""

Said = dict[str, Any]


class Client:
    """Says and hears JSON objects; arrays are taken apart."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self._heard: list[Said] = []

    def say(self, **fields: Any) -> None:
        self.ws.send(json.dumps(fields))

    def subscribe(self, *symbols: str, **fields: Any) -> Said:
        """Subscribe, every update at once unless told otherwise; return the acknowledgement."""
        self.say(action="subscribe", symbols=list(symbols), **{"conflate_ms": 0, **fields})
        return self.next("subscribed")

    def hear(self, timeout_s: float = WAIT_S) -> Said:
        """Return the next object of whatever type. Raises TimeoutError, ConnectionClosed."""
        while not self._heard:
            said = json.loads(self.ws.recv(timeout_s))
            self._heard += said if isinstance(said, list) else [said]
        return self._heard.pop(0)

    def next(self, *kinds: str) -> Said:
        """Return the next object, which must be of one of these types; heartbeats are passed over."""
        while (said := self.hear())["type"] == "heartbeat" and "heartbeat" not in kinds:
            pass
        assert said["type"] in kinds, said
        return said

    def until(self, wanted: Callable[[Said], Any]) -> list[Said]:
        """Return all that comes up to the first object that is wanted, that one included."""
        found = [self.hear()]
        while not wanted(found[-1]):
            found.append(self.hear())
        return found

    def sync(self) -> list[Said]:
        """Return what came before the answer to a ping: all that the server had said by then, but for heartbeats."""
        self.ws.send("ping")
        said = self.until(lambda said: said["type"] == "pong")[:-1]
        return [one for one in said if one["type"] != "heartbeat"]

    def close_code(self) -> int:
        """Read up to the end, and return the code of the server's close, 1006 for none."""
        deadline = time.monotonic() + WAIT_S
        try:
            while time.monotonic() < deadline:
                self.ws.recv(WAIT_S)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006
        raise AssertionError("it was not closed")


@contextmanager
def client(server: Server, path: str = "/ws", *, secure: bool = False, **options: Any) -> Iterator[Client]:
    """A connected client; secure: over TLS; options: of websockets' connect."""
    options = {"max_size": 1 << 24, "open_timeout": WAIT_S, "close_timeout": 1, **options}
    options |= {"ping_interval": None, "proxy": None}
    with connect(f"{'wss' if secure else 'ws'}://127.0.0.1:{server.port}{path}", **options) as ws:
        yield Client(ws)


def send(server: Server, *symbols: str, **fields: Any) -> None:
    """Send a tick of each symbol in one batch, newer than all before."""
    answer = post(server, batch(*[tick(symbol=symbol, **fields) for symbol in symbols]))
    assert answer.status == 200, answer


def trade(number: int, symbol: str, **fields: Any) -> dict[str, Any]:
    """Return a trade; a later number may be an earlier time."""
    moment = NOON + timedelta(seconds=number * 7919 % 10_007)
    return {
        "symbol": symbol, "bid": None, "ask": None, "spread": None, "last": float(number), "volume": 1.0, "flags": 24,
        "timestamp": moment.isoformat(), "seq": number, **fields,
    }  # fmt: skip
