"""What a worker counts, shows and logs about its work: one function an event. Greenlet side.

Numbers of a worker's slot live in a memory-mapped file that outlives it; a worker that is forked into the slot again
goes on counting there. Histograms do the same through prometheus-client's multiprocess files, named by slot instead
of by process, so dead processes leave none behind.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.values import MultiProcessValue

from app import request_ids
from app.pipeline.books import SUFFIX, Book
from app.request_meters import RequestMeters
from app.slots import SLOT_FIELDS, STATES

FLUSH_LINE_EVERY_S = 1.0
ERROR_LINE_EVERY_S = 10.0
AHEAD_LINE_EVERY_S = 60.0

_ACK_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_READ_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_FLUSH_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)

log = logging.getLogger("tickhub")


class Meters:
    """A worker's counters and its log lines."""

    def __init__(self, run_dir: Path, slot: int, tick_timezone: str, slow_query_s: float = 0.0) -> None:
        self.slot = Book(run_dir / "slots" / f"{slot}{SUFFIX}", SLOT_FIELDS, create=True)
        self.slot["pid"] = os.getpid()
        self.slot["started_us"] = time.time_ns() // 1000
        self.slot["connections"] = self.slot["requests_per_second_x1000"] = 0
        self.state("starting")
        self._timezone = tick_timezone
        self._unsaid_rows = 0
        self._total_rows = 0
        self._said_flush_at = self._said_error_at = self._said_ahead_at = float("-inf")
        self._requests_at = (time.monotonic(), self.slot["requests"])

        values.ValueClass = MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]  # untyped library
        registry = CollectorRegistry()
        self._ack = Histogram(
            "tickhub_ingest_ack_seconds",
            "From a request's arrival to its acknowledgement.",
            buckets=_ACK_BUCKETS,
            registry=registry,
        )
        self._flush = Histogram(
            "tickhub_flush_seconds",
            "Duration of a flush's transaction.",
            buckets=_FLUSH_BUCKETS,
            registry=registry,
        )
        self.requests = RequestMeters(registry)
        self.reads = ReadMeters(registry, slow_query_s)
        self._cache = Counter(
            "tickhub_query_cache_total",
            "What the query cache said: hit, miss, skipped (not asked), error.",
            ["result"],
            registry=registry,
        )
        self._records = Counter(
            "tickhub_records",
            "Records of datasets by what their request was told: accepted (duplicates included), refused.",
            ["dataset", "outcome"],
            registry=registry,
        )
        self._alerts = Counter("tickhub_alerts", "Alerts of rules that were stored.", registry=registry)
        self._posts = Counter(
            "tickhub_alert_posts",
            "Alerts and the webhook: posted, failed (tried again), given_up.",
            ["result"],
            registry=registry,
        )
        self._by_way: dict[tuple[str, str], Counter] = {}
        self._bus = Counter(
            "tickhub_bus_messages_total",
            "Messages between workers, by datagrams or redis: sent (to each), received, dropped, garbage, foreign.",
            ["way", "result"],
            registry=registry,
        )

    def state(self, name: str) -> None:
        """Show the worker's state."""
        self.slot["state"] = STATES.index(name)

    def answered(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """A request was answered, `seconds` after it began, None: for no sensible time."""
        self.slot.add("requests")
        self.requests.answered(route, method, status, seconds)

    def acknowledged(self, seconds: float) -> None:
        """A batch was acknowledged `seconds` after it arrived."""
        self._ack.observe(seconds)

    def cache_said(self, result: str) -> None:
        """The query cache was asked, or failed otherwise."""
        self._cache.labels(result).inc()

    def bus_said(self, way: str, result: str, messages: int) -> None:
        """Messages were sent to other workers, received from them, or were not."""
        counter = self._by_way.get((way, result))
        if counter is None:
            counter = self._by_way[way, result] = self._bus.labels(way, result)
        counter.inc(messages)

    def alerted(self, alerts: int) -> None:
        """Alerts were stored."""
        self._alerts.inc(alerts)

    def alert_posted(self, result: str, alerts: int = 1) -> None:
        """Alerts were posted, or were not."""
        self._posts.labels(result).inc(alerts)

    def refused(self, rows: int) -> None:
        """Rows of a request were refused."""
        self.slot.add("rejected", rows)

    def records(self, dataset: str, accepted: int, refused: int) -> None:
        """Records of a dataset were accepted and refused."""
        for outcome, rows in (("accepted", accepted), ("refused", refused)):
            if rows:
                self._records.labels(dataset, outcome).inc(rows)
        self.slot.add("rejected", refused)

    def ahead(self, rows: int, most_us: int) -> None:
        """Rows were accepted whose time is more than a minute ahead of this clock."""
        self.slot.add("ahead", rows)
        self.slot["most_ahead_us"] = max(self.slot["most_ahead_us"], most_us)
        if time.monotonic() - self._said_ahead_at > AHEAD_LINE_EVERY_S:
            self._said_ahead_at = time.monotonic()
            log.warning("[WARNING] %s", ahead_warning(most_us, self._timezone))

    def flushed(self, rows: int, seconds: float) -> None:
        """Rows were committed."""
        self._flush.observe(seconds)
        self._unsaid_rows += rows
        self._total_rows += rows
        self.say_flushed(FLUSH_LINE_EVERY_S)

    def say_flushed(self, every_s: float) -> None:
        """Log what was flushed since the last line, if that is long enough ago."""
        if self._unsaid_rows and time.monotonic() - self._said_flush_at >= every_s:
            log.info("[FLUSH] Processed %d ticks | Total: %d", self._unsaid_rows, self._total_rows)
            self._unsaid_rows = 0
            self._said_flush_at = time.monotonic()

    def flush_failed(self, reason: str) -> None:
        """A flush failed; its rows stay."""
        self.slot.add("flush_failures")
        if time.monotonic() - self._said_error_at >= ERROR_LINE_EVERY_S:
            self._said_error_at = time.monotonic()
            log.error("[ERROR] Database flush failed: %s", reason)

    def noted(self, line: str) -> None:
        """Something happened that a person should read; rare by nature."""
        log.warning("%s", line)

    def tick(self) -> None:
        """Once a second: rates, and lines that were held back."""
        now, before = time.monotonic(), self._requests_at
        requests = self.slot["requests"]
        self.slot["requests_per_second_x1000"] = round(1000 * (requests - before[1]) / max(0.001, now - before[0]))
        self._requests_at = (now, requests)
        self.say_flushed(FLUSH_LINE_EVERY_S)


class ReadMeters:
    """A worker's counters of its reads, by kind."""

    def __init__(self, registry: CollectorRegistry, slow_query_s: float = 0.0) -> None:
        """Take where to count, and from when on a read is logged (s; 0: never)."""
        self._slow_s = slow_query_s or float("inf")
        self._reads = Counter(
            "tickhub_reads",
            "Reads of the database by kind and outcome: ok, timeout, cancelled, away, failed.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tickhub_read_seconds",
            "From asking for a query lane to the outcome.",
            ["kind"],
            buckets=_READ_BUCKETS,
            registry=registry,
        )
        self._waits = Histogram(
            "tickhub_read_wait_seconds",
            "Waits for a free query lane; reads that found one at once are not in it.",
            ["kind"],
            buckets=_READ_BUCKETS,
            registry=registry,
        )
        self._stuck = Counter(
            "tickhub_query_lanes_stuck",
            "Query lanes given up because they came back neither from cancelling nor from a closed connection.",
            ["kind"],
            registry=registry,
        )

    def read(self, kind: str, outcome: str, seconds: float, what: str = "") -> None:
        """A read ended. what: which one, for the log."""
        self._reads.labels(kind, outcome).inc()
        self._seconds.labels(kind).observe(seconds)
        if seconds >= self._slow_s:
            asked = request_ids.current()
            whose = "" if asked is None else f" for {asked.what}"
            log.warning("[SLOW] a query took %.3f s, %s: %s (%s)%s", seconds, outcome, what, kind, whose)

    def waited(self, kind: str, seconds: float) -> None:
        """A read waited for a free lane, in vain or not."""
        self._waits.labels(kind).observe(seconds)

    def stuck(self, kind: str) -> None:
        """A lane was given up; rare by nature."""
        self._stuck.labels(kind).inc()
        log.warning("a %s query does not end: its connection was given up", kind)


def ahead_warning(most_us: int, tick_timezone: str) -> str:
    """Return what to tell about ticks from the future."""
    return (
        f"ticks up to {most_us // 1_000_000} s ahead of this server's clock: "
        f"is tick_timezone ({tick_timezone}) the broker's clock?"
    )
