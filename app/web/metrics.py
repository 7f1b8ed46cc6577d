"""The figures as Prometheus metrics: prefix tickhub_, base units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_COUNTERS = (
    ("ticks_received", "tickhub_ticks_received", "Accepted ticks, duplicates included."),
    ("ticks_processed", "tickhub_ticks_processed", "Ticks stored, known already, or set aside."),
    ("stored", "tickhub_ticks_stored", "Ticks written to the database."),
    ("duplicates", "tickhub_ticks_duplicate", "Ticks that were stored already."),
    ("set_aside", "tickhub_ticks_set_aside", "Ticks in rejected_ticks."),
    ("rejected", "tickhub_rows_rejected", "Rows refused in requests."),
    ("errors", "tickhub_errors", "Refused rows and failed flushes."),
)
_GAUGES = (
    ("buffer_size", "tickhub_buffer_ticks", "Accepted ticks that are not yet processed."),
    ("journal_bytes", "tickhub_journal_bytes", "Size of all journals on disk."),
    ("workers", "tickhub_workers", "Living workers."),
    ("active_connections", "tickhub_connections", "Open HTTP connections."),
    ("uptime_seconds", "tickhub_uptime_seconds", "Time since the server's start."),
)


class _Figures(Collector):
    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Return the figures as metrics."""
        for key, name, text in _COUNTERS:
            yield CounterMetricFamily(name, text, value=self._figures[key])
        for key, name, text in _GAUGES:
            yield GaugeMetricFamily(name, text, value=self._figures[key])
        up = 1 if self._figures["database_status"] == "connected" else 0
        yield GaugeMetricFamily("tickhub_database_up", "Whether the database answers.", value=up)


def render(figures: Mapping[str, Any], multiprocess_dir: Path) -> bytes:
    """Return the figures of /stats and the workers' histograms in the text format."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    MultiProcessCollector(registry, path=str(multiprocess_dir))  # type: ignore[no-untyped-call]  # untyped library
    return generate_latest(registry)
