"""The yardstick of the live bench: ticks in by HTTP, quotes out by `websockets.broadcast`; plain asyncio, one process.

What is usually written first, and about as cheap as Python gets: newest quotes in a dict, every update encoded once,
the same frame for all who watch. No journal, no database, no bus, no reader's own numbers, no bound on slow readers;
no compression and no keep-alive pings. One process, because a second one would encode everything again, and would need
a bus. `python -m tests.bench.live_reference PORT FEED_PORT`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import defaultdict
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from tests.bench.live_viewers import ANSWER_WITHIN_S

LISTEN_BACKLOG = 2048


class Board:
    """The newest quotes, and who watches them how."""

    def __init__(self) -> None:
        self._quotes: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._readers: defaultdict[int, set[ServerConnection]] = defaultdict(set)
        self._tickers: dict[int, asyncio.Task[None]] = {}

    def ticks(self, ticks: list[dict[str, Any]]) -> None:
        """Take a batch; those who conflate nothing get it at once."""
        for tick in ticks:
            self._quotes[tick["symbol"]] = quote(tick)
            self._changed.add(tick["symbol"])
        if at_once := self._readers.get(0):
            broadcast(at_once, array(self._quotes[tick["symbol"]] for tick in ticks), text=True)

    async def serve(self, connection: ServerConnection) -> None:
        """Serve a viewer: what it says first is its subscription."""
        conflate_ms = int(json.loads(await asyncio.wait_for(connection.recv(), ANSWER_WITHIN_S))["conflate_ms"])
        await connection.send(array(self._quotes.values()), text=True)
        self._readers[conflate_ms].add(connection)
        if conflate_ms and conflate_ms not in self._tickers:
            self._tickers[conflate_ms] = asyncio.create_task(self._keep_sending(conflate_ms))
        try:
            await connection.wait_closed()
        finally:
            self._readers[conflate_ms].discard(connection)

    async def _keep_sending(self, conflate_ms: int) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s = max(due_s + conflate_ms / 1000, loop.time())
            await asyncio.sleep(due_s - loop.time())
            changed, self._changed = self._changed, set()
            if changed:
                broadcast(self._readers[conflate_ms], array(self._quotes[symbol] for symbol in changed), text=True)


def quote(tick: dict[str, Any]) -> bytes:
    """Return a tick as an update with the fields of tickhub's."""
    update = {
        "type": "quote",
        "symbol": tick["symbol"],
        "price": tick["last"],
        "bid": tick["bid"],
        "ask": tick["ask"],
        "last": tick["last"],
        "spread": 2.0,
        "volume": tick["volume"],
        "timestamp": tick["timestamp"],
        "change": 0.25,
        "change_percent": 0.125,
    }
    return json.dumps(update, separators=(",", ":")).encode()


def array(texts: Any) -> bytes:
    """Return texts as one JSON array."""
    return b"[" + b",".join(texts) + b"]"


async def take_posts(board: Board, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer POSTs of batches on one connection until it ends."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            ticks = json.loads(await reader.readexactly(size))["ticks"]
            board.ticks(ticks)
            body = b'{"status":"success","received":%d}' % len(ticks)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    writer.close()


def healthy(connection: ServerConnection, request: Request) -> Response | None:
    """Answer a GET that is no handshake."""
    return connection.respond(200, "{}") if request.path == "/health" else None


async def main(port: int, feed_port: int) -> None:
    """Serve until SIGTERM."""
    board, over = Board(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    feed = await asyncio.start_server(lambda *both: take_posts(board, *both), "127.0.0.1", feed_port, limit=1 << 20)
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "backlog": LISTEN_BACKLOG}
    async with feed, serve(board.serve, "127.0.0.1", port, process_request=healthy, **options):
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
