"""The figures as Prometheus metrics: prefix tickhub_, base units. docs/watching.md lists them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from app.alerts.hours import open_since
from app.reads import Kind
from app.runtime import Runtime
from app.web.metrics_database import database_families
from app.web.metrics_host import host_families

CONTENT_TYPE = CONTENT_TYPE_LATEST

MOST_FEEDS = 1000
"""Symbols whose feed is told of: those with the newest ticks. More time series than that no alert is made of."""

SAMPLES_AT_ONCE = 100
"""Written, that is, before others have their turn: about a millisecond."""

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
_OF_JOURNALS = (
    ("flushes", "tickhub_flushes", "Committed flushes."),
    ("lost", "tickhub_ticks_lost", "Acknowledged ticks that were damaged in the journals."),
)
_OF_SLOTS = (
    ("flush_failures", "tickhub_flush_failures", "Flushes that failed; their rows stay and are tried again."),
    ("ahead", "tickhub_ticks_ahead", "Accepted ticks more than a minute ahead of this server's clock."),
    ("ws_sent", "tickhub_websocket_messages_sent", "Messages to WebSockets, answers to what they say apart."),
    ("ws_skipped", "tickhub_websocket_quotes_skipped", "Versions of quotes that readers jumped over."),
    ("ws_too_slow", "tickhub_websocket_closed_too_slow", "WebSockets closed because their reader was too slow."),
)
_OF_WORKERS = (
    ("ws_open", "tickhub_websocket_connections", "Open WebSockets."),
    ("buffer_bytes", "tickhub_buffer_bytes", "Size of the ticks in memory that are not yet processed."),
    ("journals", "tickhub_journals", "Journals that are drained: a worker's own, and those that dead ones left."),
)
_LIMITS = (
    ("journal_max_bytes", "tickhub_journal_max_bytes", "Bound of the journals: when it is reached ticks are refused."),
    ("buffer_max_bytes", "tickhub_buffer_max_bytes", "Bound of the ticks in memory, a worker; the rest stay on disk."),
    ("ws_max_connections", "tickhub_websocket_max_connections", "Most WebSockets of a worker."),
)


class Families(Collector):
    """Families that make way for others while they are written: a thousand feeds take longer than a batch of ticks."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the families, once."""
        for family in self._families:
            family.samples = _making_way(family.samples)  # type: ignore[assignment]  # read once, by a loop
            yield family


def _making_way(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number % SAMPLES_AT_ONCE == 0:
            gevent.sleep(0)
        yield sample


def render(run: Runtime, stats: Mapping[str, Any], multiprocess_dir: Path) -> bytes:
    """Return all metrics in the text format. stats: the figures of /stats. May switch to other greenlets."""
    families = [
        *_of_stats(stats),
        *_of_books(run),
        *_of_feeds(run),
        *host_families(*run.watching.host.look()),
        *database_families(run.watching.database.figures, run.watching.database.age_s, run.jobs.names),
    ]
    of_workers = MultiProcessCollector(None, path=str(multiprocess_dir))  # type: ignore[no-untyped-call]  # untyped library
    return generate_latest(Families([*families, *of_workers.collect()]))  # type: ignore[no-untyped-call]  # as above


def _of_stats(stats: Mapping[str, Any]) -> Iterator[Metric]:
    for key, name, text in _COUNTERS:
        yield CounterMetricFamily(name, text, value=stats[key])
    for key, name, text in _GAUGES:
        yield GaugeMetricFamily(name, text, value=stats[key])
    up = 1 if stats["database_status"] == "connected" else 0
    yield GaugeMetricFamily("tickhub_database_up", "Whether the database answers.", value=up)


def _of_books(run: Runtime) -> Iterator[Metric]:
    figures = run.figures
    for key, name, text in _OF_JOURNALS:
        yield CounterMetricFamily(name, text, value=figures.journal(key))
    for key, name, text in _OF_SLOTS:
        yield CounterMetricFamily(name, text, value=figures.slot(key))
    workers = list(figures.workers())
    for key, name, text in _OF_WORKERS:
        yield GaugeMetricFamily(name, text, value=sum(slot[key] for slot in workers))
    for key, name, text in _LIMITS:
        yield GaugeMetricFamily(name, text, value=getattr(run.settings, key))
    yield GaugeMetricFamily(
        "tickhub_last_flush_timestamp_seconds",
        "When ticks were last committed; 0: never.",
        value=figures.last_flush_us() / 1e6,
    )
    lag = GaugeMetricFamily(
        "tickhub_flush_lag_seconds",
        "How long the oldest tick of a worker's journals has waited for the database.",
        labels=["worker"],
    )
    lanes = GaugeMetricFamily("tickhub_query_lanes", "Database connections for reads, by kind.", labels=["kind"])
    busy = GaugeMetricFamily("tickhub_query_lanes_busy", "Those of them that are in use.", labels=["kind"])
    waiting = GaugeMetricFamily("tickhub_query_lanes_waiting", "Requests that wait for one.", labels=["kind"])
    for slot in workers:
        lag.add_metric([slot.path.stem], slot["flush_lag_us"] / 1e6)
    for kind in Kind:
        lanes.add_metric([kind], sum(slot[f"{kind}_lanes"] for slot in workers))
        busy.add_metric([kind], sum(slot[f"{kind}_lanes_busy"] for slot in workers))
        waiting.add_metric([kind], sum(slot[f"{kind}_lanes_waiting"] for slot in workers))
    yield from (lag, lanes, busy, waiting)


def _of_feeds(run: Runtime) -> Iterator[Metric]:
    newest = GaugeMetricFamily(
        "tickhub_feed_newest_tick_timestamp_seconds", "Time of a symbol's newest tick.", labels=["symbol"]
    )
    opened = GaugeMetricFamily(
        "tickhub_feed_open_seconds",
        "For how long a symbol's market has been open, 0 while it is closed; of a market without hours since 1970.",
        labels=["symbol"],
    )
    now_us = time.time_ns() // 1000
    feeds = sorted(run.quotes.newest_times(), key=lambda feed: -feed[2])[:MOST_FEEDS]
    since: dict[str | None, int | None] = {}
    for symbol, exchange, time_us in sorted(feeds):
        if exchange not in since:
            since[exchange] = open_since(now_us, exchange)
        opened_us = since[exchange]
        newest.add_metric([symbol], time_us / 1e6)
        opened.add_metric([symbol], 0.0 if opened_us is None else (now_us - opened_us) / 1e6)
    yield from (newest, opened)
