"""Metrics that the elected process collects: of the market from committed ticks, of the host. Greenlet side.

    every metrics_interval_s, at its multiples by the database's clock:
        the lane counts what was committed since the sample before (storage/collecting.py)
        -> records of market_data and system_metrics -> journal, buffer, flush, as any sender's

A sample of the market is kept in the database until it is in a journal, so that neither a killed process nor a change
of who is elected loses or doubles one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import msgspec

from app.datasets.records import LAYOUT, Records
from app.desk import Desk
from app.errors import TickhubError
from app.machine import Machine
from app.pipeline.ingest import Ingest
from app.settings import Settings
from app.storage.collecting import (
    LEAST_WINDOW_US,
    MOST_WINDOW_US,
    MarketRow,
    NoMoreElected,
    Sample,
    collect,
)

IDLE_S = 0.5
"""How often one that is not elected looks whether it is."""

RETRY_S = 1.0
LEAST_INTERVAL_US = 100_000
AFTER_S = 0.02
"""So much behind a moment the sample of it is taken: not a clock's tick too early."""

log = logging.getLogger("tickhub")


class Collecting:
    """What a worker collects while it is elected."""

    def __init__(
        self,
        desk: Desk,
        ingest: Ingest,
        settings: Settings,
        uptime_s: Callable[[], float],
        trouble: Callable[[], str | None],
    ) -> None:
        """Take what it needs. uptime_s: of the server. trouble: why nothing can be accepted now, or None."""
        self._desk, self._ingest, self._uptime_s, self._trouble = desk, ingest, uptime_s, trouble
        self._interval_s = settings.metrics_interval_s
        self._machine = Machine(settings.data_dir)
        self._sent_us: int | None = None
        self._window_us = MOST_WINDOW_US

    def start(self, spawn: Callable[[Callable[[], None]], None]) -> None:
        """Start the greenlet, if anything is to be collected."""
        if self._interval_s:
            spawn(self.run)

    def run(self) -> None:
        """Collect for ever, while elected; to be spawned as a greenlet."""
        while True:
            wait_s = IDLE_S
            try:
                wait_s = self._round()
            except NoMoreElected:
                log.warning("metrics: another process was elected meanwhile")
                wait_s = RETRY_S
            except TickhubError as error:
                log.debug("metrics were not collected: %s", error)
                self._window_us = max(LEAST_WINDOW_US, self._window_us // 2)
                wait_s = RETRY_S
            except Exception:
                log.exception("collecting metrics failed")
                wait_s = RETRY_S
            gevent.sleep(wait_s)

    def _round(self) -> float:
        """Collect what is due and send it; return how long until the next one is (s)."""
        term = self._desk.election.term
        if term is None:
            return IDLE_S
        interval_us = max(LEAST_INTERVAL_US, round(self._interval_s * 1_000_000))
        window_us, sent_us = self._window_us, self._sent_us
        found = self._desk.write(lambda cur: collect(cur, term, interval_us, window_us, sent_us))
        self._window_us = min(MOST_WINDOW_US, 2 * self._window_us)
        if found.sample is not None:
            self._send_market(found.sample)
            self._sent_us = found.sample.moment_us
            if found.active_alerts is None:
                return 0.0  # that was an old one; the one that is due comes now
            self._send_system(found.sample.moment_us, found.active_alerts)
        return (interval_us - found.now_us % interval_us) / 1_000_000 + AFTER_S

    def _send_market(self, sample: Sample) -> None:
        columns: dict[str, list[Any]] = {
            name: [getattr(row, name) for row in sample.rows] for name in MarketRow.__struct_fields__
        }
        self._send("market_data", {**columns, "timestamp": [sample.moment_us] * len(sample.rows)})

    def _send_system(self, moment_us: int, active_alerts: int) -> None:
        percents = self._machine.look()
        values = {
            "host": self._machine.host,
            "timestamp": moment_us,
            "cpu_percent": msgspec.UNSET if percents.cpu is None else percents.cpu,
            "memory_percent": percents.memory,
            "disk_usage_percent": percents.disk,
            "uptime_seconds": round(self._uptime_s(), 3),
            "health_status": "healthy" if self._trouble() is None else "unhealthy",
            "active_alerts": active_alerts,
        }
        self._send("system_metrics", {name: [value] for name, value in values.items()})

    def _send(self, dataset: str, columns: dict[str, list[Any]]) -> None:
        """Have records in the journal, as `ignore`: what comes again is what is there. Raises BufferFull, NotReady."""
        rows = len(columns["timestamp"])
        if rows:
            records = Records("ignore", rows, columns)
            self._ingest.accept(dataset, LAYOUT, rows, records.encode(), collected=True)
