"""GET /api/metrics/current: the newest figures of the market, of strategies, of execution, and of the machine.

`/ws/metrics` sends the same object ten times a second. All of it is in memory: prices are those of this worker's quote
board, the rest the newest records of the metrics (`newest_metrics.py`). Greenlet side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, current_app
from msgspec import UNSET, Meta, Struct, UnsetType

from app.machine import Machine, Percents
from app.market.quotes import Quote
from app.market.rfc3339 import rfc3339
from app.metrics_history import GROUPS
from app.newest_metrics import NewestMetrics
from app.reads import PAGE
from app.runtime import Runtime
from app.storage.newest_metrics import Newest, read_newest
from app.web.answers import Timestamp
from app.web.api import Endpoint, endpoint
from app.web.errors import answer
from app.web.server import runtime
from app.web.stats import Stats, figures_of

blueprint = Blueprint("current_metrics", __name__)

_FIGURES = "tickhub.current_figures"

SYSTEM_EVERY_S = 1.0
"""What the machine does is read so often; over less, the share of its processors says nothing."""

WAIT_S = 0.5
"""How long a request waits for records to be read when what is known is older than it should be."""

MISSED_SAMPLES = 3
LEAST_OLD_S, MOST_OLD_S = 15.0, 60.0
"""A record of a machine is old after so many intervals, but for these bounds: nobody collects, or it cannot be stored.
This worker's own look at its machine takes its place."""


class MarketFigures(Struct):
    """An instrument's newest prices, and what was traded in its newest sample."""

    timestamp: Annotated[Timestamp, Meta(description="of the prices")]
    last_price: Annotated[float | None, Meta(description="the price of its quote")]
    bid: float | None
    ask: float | None
    volume: Annotated[float | None, Meta(description="traded in the newest sample of market_data; null: there is none")]
    trades: Annotated[int | None, Meta(description="trades in the newest sample of market_data; null: there is none")]
    spread_bps: Annotated[float | None, Meta(description="ask - bid, in 1/10,000 of their middle")]
    stale: bool


class StrategyFigures(Struct):
    """The newest record of a strategy."""

    timestamp: Timestamp
    pnl: float | None
    daily_pnl: float | None
    positions: int | None
    signals: int | None
    win_rate: float | None


class ExecutionFigures(Struct):
    """The newest record of executions; nothing at all before the first."""

    timestamp: Timestamp | UnsetType = UNSET
    orders_submitted: int | UnsetType | None = UNSET
    orders_filled: int | UnsetType | None = UNSET
    orders_cancelled: int | UnsetType | None = UNSET
    orders_rejected: int | UnsetType | None = UNSET
    fill_rate: float | UnsetType | None = UNSET
    avg_latency_ms: float | UnsetType | None = UNSET
    avg_slippage_bps: float | UnsetType | None = UNSET


class SystemFigures(Struct):
    """The newest record of any host; while there is none of late, what this worker sees of its own."""

    host: str
    timestamp: Timestamp
    cpu_percent: Annotated[float | None, Meta(description="null: not known yet")]
    memory_percent: float | None
    disk_usage_percent: Annotated[float | None, Meta(description="of the disk that holds the data directory")]
    uptime_seconds: Annotated[float | None, Meta(description="since the server's start, s")]
    health_status: Annotated[str | None, Meta(description="healthy, unhealthy, or what a sender says")]
    active_alerts: Annotated[int | None, Meta(description="alerts that hold; null: not known")]


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
    """The newest figures of each group."""

    timestamp: Timestamp
    market_data: Annotated[dict[str, MarketFigures], Meta(description="by symbol, of those that have a quote")]
    strategy: Annotated[dict[str, StrategyFigures], Meta(description="by name")]
    execution: ExecutionFigures
    system: SystemFigures
    ingest: IngestFigures


class CurrentFigures:
    """What one worker knows of the present."""

    def __init__(self, run: Runtime) -> None:
        """Take the runtime; nothing is read."""
        self._run = run
        self._machine = Machine(run.settings.data_dir)
        self._percents: Percents | None = None
        self._looked_s = float("-inf")
        self.newest = NewestMetrics(GROUPS.values(), partial(run.reads.run, PAGE, read_newest, tuple(GROUPS.values())))
        interval_s = run.settings.metrics_interval_s
        self._old_us = int(1_000_000 * min(MOST_OLD_S, max(LEAST_OLD_S, MISSED_SAMPLES * interval_s)))

    def now(self) -> CurrentMetrics:
        """Return the figures as they are in memory; never waits."""
        run, known = self._run, self.newest.of
        stats = figures_of(run)
        now_us = time.time_ns() // 1000
        execution = known(GROUPS["execution"]).get("")
        return CurrentMetrics(
            timestamp=rfc3339(now_us),
            market_data=_market(run.quotes.get(), known(GROUPS["market_data"])),
            strategy={name: StrategyFigures(**_shown(one)) for name, one in known(GROUPS["strategy"]).items()},
            execution=ExecutionFigures() if execution is None else ExecutionFigures(**_shown(execution)),
            system=self._system(known(GROUPS["system"]), stats, now_us),
            ingest=IngestFigures(**{name: getattr(stats, name) for name in IngestFigures.__struct_fields__}),
        )

    def _system(self, known: Mapping[str, Newest], stats: Stats, now_us: int) -> SystemFigures:
        newest = max(known.items(), key=lambda item: item[1].time_us, default=None)
        if newest is not None and now_us - newest[1].time_us < self._old_us:
            return SystemFigures(newest[0], **_shown(newest[1]))
        now_s = time.monotonic()
        if self._percents is None or now_s - self._looked_s >= SYSTEM_EVERY_S:
            self._percents, self._looked_s = self._machine.look(), now_s
        return SystemFigures(
            self._machine.host,
            rfc3339(now_us),
            self._percents.cpu,
            self._percents.memory,
            self._percents.disk,
            stats.uptime_seconds,
            "healthy" if stats.database_status == "connected" else "unhealthy",
            None,
        )


def current_figures() -> CurrentFigures:
    """Return this application's view of the present."""
    found: CurrentFigures | None = current_app.extensions.get(_FIGURES)
    if found is None:
        found = current_app.extensions[_FIGURES] = CurrentFigures(runtime())
    return found


@endpoint(
    blueprint,
    Endpoint("GET", "/api/metrics/current", "The newest metrics of each group", "stats", answer=CurrentMetrics),
)
def current() -> Response:
    """Return what `/ws/metrics` sends."""
    figures = current_figures()
    figures.newest.wait(WAIT_S)
    return answer(figures.now())


def _market(quotes: list[Quote], known: Mapping[str, Newest]) -> dict[str, MarketFigures]:
    """Return the figures of the symbols that have a quote, or a record."""
    found = {}
    for quote in quotes:
        newest = known.get(quote.symbol)
        if quote.timestamp is None:
            if newest is not None:
                found[quote.symbol] = MarketFigures(**_shown(newest), stale=True)
            continue
        bid, ask, spread_bps = quote.bid, quote.ask, None
        if bid is not None and ask is not None and bid + ask > 0:
            spread_bps = round(20_000 * (ask - bid) / (ask + bid), 4)
        volume, trades = (None, None) if newest is None else (newest.values["volume"], newest.values["trades"])
        found[quote.symbol] = MarketFigures(
            quote.timestamp, quote.price, bid, ask, volume, trades, spread_bps, quote.stale
        )
    return found


def _shown(newest: Newest) -> dict[str, Any]:
    return {"timestamp": rfc3339(newest.time_us), **newest.values}
