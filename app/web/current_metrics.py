"""GET /api/metrics/current: what the market, this machine and the receiving of ticks are like now. Greenlet side.

`/ws/metrics` sends the same object ten times a second.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Literal

import psutil
from flask import Blueprint, Response, current_app
from msgspec import Meta, Struct

from app.market.quotes import Quote
from app.market.rfc3339 import rfc3339
from app.runtime import Runtime
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.errors import answer
from app.web.server import runtime
from app.web.stats import figures_of

blueprint = Blueprint("current_metrics", __name__)

_MACHINE = "tickhub.machine"

SYSTEM_EVERY_S = 1.0
"""What the machine does is read so often; over less, the share of its processors says nothing."""


class MarketFigures(Struct):
    """An instrument's newest prices."""

    timestamp: Timestamp
    last_price: Annotated[float | None, Meta(description="the price of its quote")]
    bid: float | None
    ask: float | None
    volume: Annotated[float | None, Meta(description="of the newest tick")]
    trades: Annotated[int | None, Meta(description="null: not counted yet")]
    spread_bps: Annotated[float | None, Meta(description="ask - bid, in 1/10,000 of their middle")]
    stale: bool


class SystemFigures(Struct):
    """The machine that the server runs on."""

    cpu_percent: Annotated[float | None, Meta(description="of the last second; null in the first")]
    memory_percent: float
    disk_usage_percent: Annotated[float, Meta(description="of the disk that holds the data directory")]
    uptime_seconds: Annotated[int, Meta(description="since the server's start, s")]
    health_status: Literal["healthy", "unhealthy"]
    active_alerts: Annotated[int, Meta(description="warnings of /stats")]


class IngestFigures(Struct):
    """How receiving goes: the figures of /stats of these names."""

    ticks_per_second: float
    ticks_received: int
    ticks_processed: int
    buffer_size: int
    duplicates: int
    rejected: int
    errors: int
    last_flush: Timestamp | None
    database_status: Literal["connected", "disconnected"]


class CurrentMetrics(Struct):
    """The newest figures of each group; those of strategies and of execution are empty until somebody sends any."""

    timestamp: Timestamp
    market_data: Annotated[dict[str, MarketFigures], Meta(description="by symbol, of those that have a quote")]
    strategy: dict[str, dict[str, float | None]]
    execution: dict[str, float | None]
    system: SystemFigures
    ingest: IngestFigures


class Machine:
    """What this machine does, read at most once a second."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._read_s = float("-inf")
        self._busy_s = self._all_s = 0.0
        self._percents: tuple[float | None, float, float] = (None, 0.0, 0.0)

    def percents(self) -> tuple[float | None, float, float]:
        """Return the shares in use, in percent: processors since the last look (None: there was none), memory, disk."""
        now_s = time.monotonic()
        if now_s - self._read_s >= SYSTEM_EVERY_S:
            self._read_s = now_s
            disk = shutil.disk_usage(self._data_dir)
            memory = psutil.virtual_memory().percent
            self._percents = (self._processors(), memory, round(100 * disk.used / disk.total, 1))
        return self._percents

    def _processors(self) -> float | None:
        # psutil's own cpu_percent() remembers the last look by thread, which each greenlet is for it.
        times = psutil.cpu_times()
        all_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # in user and nice too
        busy_s = all_s - times.idle - getattr(times, "iowait", 0.0)
        was_busy_s, was_all_s = self._busy_s, self._all_s
        self._busy_s, self._all_s = busy_s, all_s
        if not was_all_s or all_s <= was_all_s:
            return None
        return round(min(100.0, max(0.0, 100 * (busy_s - was_busy_s) / (all_s - was_all_s))), 1)


def current_metrics(run: Runtime, machine: Machine) -> CurrentMetrics:
    """Return the figures as they are now; quotes are of this worker's memory, at most a second behind the database."""
    stats = figures_of(run)
    cpu_percent, memory_percent, disk_usage_percent = machine.percents()
    return CurrentMetrics(
        timestamp=rfc3339(time.time_ns() // 1000),
        market_data={one.symbol: _market(one, one.timestamp) for one in run.quotes.get() if one.timestamp is not None},
        strategy={},
        execution={},
        system=SystemFigures(
            cpu_percent,
            memory_percent,
            disk_usage_percent,
            stats.uptime_seconds,
            "healthy" if stats.database_status == "connected" else "unhealthy",
            len(stats.warnings),
        ),
        ingest=IngestFigures(
            stats.ticks_per_second,
            stats.ticks_received,
            stats.ticks_processed,
            stats.buffer_size,
            stats.duplicates,
            stats.rejected,
            stats.errors,
            stats.last_flush,
            stats.database_status,
        ),
    )


def machine() -> Machine:
    """Return this application's view of its machine."""
    found: Machine | None = current_app.extensions.get(_MACHINE)
    if found is None:
        found = current_app.extensions[_MACHINE] = Machine(runtime().settings.data_dir)
    return found


@endpoint(
    blueprint,
    Endpoint("GET", "/api/metrics/current", "Figures of market, machine and ingest", "stats", answer=CurrentMetrics),
)
def current() -> Response:
    """Return what `/ws/metrics` sends."""
    return answer(current_metrics(runtime(), machine()))


def _market(quote: Quote, timestamp: str) -> MarketFigures:
    bid, ask, spread_bps = quote.bid, quote.ask, None
    if bid is not None and ask is not None and bid + ask > 0:
        spread_bps = round(20_000 * (ask - bid) / (ask + bid), 4)
    return MarketFigures(timestamp, quote.price, bid, ask, quote.volume, None, spread_bps, quote.stale)
