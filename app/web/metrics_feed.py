"""What `/ws/metrics` sends: one object ten times a second, made once for all who watch. Greenlet side."""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any

import gevent
import msgspec
import psutil

from app.market.quotes import Quote
from app.market.rfc3339 import rfc3339
from app.runtime import Runtime
from app.stream.hub import MAX_STALL_S
from app.stream.subscriber import SLOW_CLOSE_S, TOO_SLOW, Subscriber
from app.web.stats import figures_of

EVERY_S = 0.1
MOST_SHARE = 0.05
"""Share of a core that making the objects may take: with thousands of symbols they come less often."""

SYSTEM_EVERY_S = 1.0
"""What the machine does is read so often; over less, the share of its processors says nothing."""

log = logging.getLogger("tickhub")


class MetricsFeed:
    """The readers of a worker's figures; works only while there are any."""

    def __init__(self, run: Runtime) -> None:
        self._run = run
        self._readers: set[Subscriber] = set()
        self._running = False
        self._system: dict[str, Any] = {}
        self._system_at_s = float("-inf")

    def add(self, reader: Subscriber) -> None:
        """Send to a reader from now on."""
        self._readers.add(reader)
        if not self._running:
            self._running = True
            gevent.spawn(self._send)

    def remove(self, reader: Subscriber) -> None:
        """Send no more; also to one that is not there."""
        self._readers.discard(reader)

    def _send(self) -> None:
        due_s = time.monotonic()
        try:
            while self._readers:
                began_s = time.monotonic()
                text = msgspec.json.encode(self._figures())
                made_s = time.monotonic() - began_s
                for count, reader in enumerate(list(self._readers), 1):
                    stalled_since = reader.socket.stalled_since
                    if stalled_since is None:  # else this one is left out for it: the next one is newer
                        reader.socket.send_texts([text])
                    elif began_s - stalled_since > MAX_STALL_S:
                        reader.socket.close(TOO_SLOW, "nothing was read for long", SLOW_CLOSE_S)
                    if count % 16 == 0:
                        gevent.sleep(0)
                due_s = max(due_s + EVERY_S, began_s + made_s / MOST_SHARE, time.monotonic())
                gevent.sleep(max(0.0, due_s - time.monotonic()))
        except Exception:
            log.exception("live figures cannot be sent")
            for reader in self._readers:
                reader.socket.close(1011, "the figures cannot be made")
            self._readers.clear()
        finally:
            self._running = False

    def _figures(self) -> dict[str, Any]:
        stats = figures_of(self._run)
        ingest = {
            "ticks_per_second": stats.ticks_per_second,
            "ticks_received": stats.ticks_received,
            "ticks_processed": stats.ticks_processed,
            "buffer_size": stats.buffer_size,
            "duplicates": stats.duplicates,
            "rejected": stats.rejected,
            "errors": stats.errors,
            "last_flush": stats.last_flush,
            "database_status": stats.database_status,
        }
        quotes = self._run.quotes.get()
        return {
            "timestamp": rfc3339(time.time_ns() // 1000),
            "market_data": {quote.symbol: _market(quote) for quote in quotes if quote.timestamp is not None},
            "strategy": {},
            "execution": {},
            "system": {
                **self._machine(),
                "uptime_seconds": stats.uptime_seconds,
                "health_status": "healthy" if stats.database_status == "connected" else "unhealthy",
                "active_alerts": len(stats.warnings),
            },
            "ingest": ingest,
        }

    def _machine(self) -> dict[str, Any]:
        now = time.monotonic()
        if now - self._system_at_s >= SYSTEM_EVERY_S:
            self._system_at_s = now
            disk = shutil.disk_usage(self._run.settings.data_dir)
            self._system = {
                "cpu_percent": psutil.cpu_percent(),
                "memory_percent": psutil.virtual_memory().percent,
                "disk_usage_percent": round(100 * disk.used / disk.total, 1),
            }
        return self._system


def _market(quote: Quote) -> dict[str, Any]:
    bid, ask, spread_bps = quote.bid, quote.ask, None
    if bid is not None and ask is not None and bid + ask > 0:
        spread_bps = round(20_000 * (ask - bid) / (ask + bid), 4)
    return {
        "timestamp": quote.timestamp,
        "last_price": quote.price,
        "bid": bid,
        "ask": ask,
        "volume": quote.volume,
        "spread_bps": spread_bps,
        "stale": quote.stale,
    }
